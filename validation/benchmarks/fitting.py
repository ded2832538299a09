"""Seconds to fit and to predict, on whatever device JAX finds.

    python validation/benchmarks/fitting.py --perturbations 256 --genes 1000

Times the optimisation with and without its compilation, and the prediction of a ninth of the perturbations, on a
simulated screen. On a GPU machine run it as it is; on one without, JAX uses the CPU.
"""

import argparse
import resource
import time

import jax
import numpy as np

import distpert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perturbations", type=int, default=256)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=150)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()

    unseen = arguments.perturbations // 9
    screen = distpert.simulate(
        n_perturbations=arguments.perturbations - unseen,
        n_unseen=unseen,
        n_genes=arguments.genes,
        n_cells=arguments.cells,
        n_controls=4000,
        embedding_dim=8,
    )
    print(f"device: {jax.devices()[0]}; {screen}")
    histograms = timed("count", lambda: distpert.count_histograms(screen.adata))
    timed("fit, first (compiles)", lambda: distpert.fit(histograms, screen.embeddings, progress_bar=False))
    fit = timed("fit, again", lambda: distpert.fit(histograms, screen.embeddings, progress_bar=False))
    labels = screen.truth["perturbation"].to_numpy()[-unseen:].tolist()
    prediction = fit.predict(labels, num_draws=arguments.draws, progress_bar=False)
    timed("posterior mean histogram", prediction.histogram)
    timed("moments with intervals", prediction.summary)
    timed("the same for 150 cells", lambda: prediction.summary(n_cells=150))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB (host)")
    truth = screen.truth["histogram"].sel(perturbation=labels).isel(context=0).to_numpy()
    error = np.abs(prediction.histogram().to_numpy() - truth).sum(axis=-1).mean() / 2
    print(f"total variation from the true histograms {error:.4f}, epochs {len(fit.loss)}")


def timed(name, function):
    started = time.perf_counter()
    result = function()
    print(f"{name:26s} {time.perf_counter() - started:7.2f} s", flush=True)
    return result


if __name__ == "__main__":
    main()
