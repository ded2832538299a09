"""Seconds to fit and to predict, and whether devices agree.

    python validation/benchmarks/fitting.py --perturbations 256 --genes 1000 --devices cpu cuda

Times the optimization with and without its compilation, and the prediction of a ninth of the perturbations, on a
simulated screen, in a process of its own for each device. Without ``--devices``, JAX chooses. Where there are several,
their predictions are compared: rounding differs and minibatches amplify it, so the yardstick is how much another seed
changes the same prediction, and how far either is from the true distributions.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perturbations", type=int, default=256)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=150)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--devices", nargs="+", default=[], metavar="PLATFORM", help="of JAX: cpu, cuda, ...")
    parser.add_argument("--save", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.devices:
        run(arguments)
        return
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("perturbations", "genes", "cells", "draws")]
    with tempfile.TemporaryDirectory() as folder:
        for device in arguments.devices:
            command = [sys.executable, __file__, *sizes, "--save", f"{folder}/{device}.npz"]
            subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": device})
        compare({device: np.load(f"{folder}/{device}.npz") for device in arguments.devices})


def run(arguments: argparse.Namespace) -> None:
    """Fit and predict on the device that JAX has, and keep what was predicted."""
    import jax

    import distpert

    unseen = arguments.perturbations // 9
    screen = distpert.simulate(
        n_perturbations=arguments.perturbations - unseen,
        n_unseen=unseen,
        n_genes=arguments.genes,
        n_cells=arguments.cells,
        n_controls=4000,
        embedding_dim=8,
    )
    print(f"\ndevice: {jax.devices()[0].device_kind}; {screen}")
    histograms = timed("count", lambda: distpert.count_histograms(screen.adata))

    def fit(seed: int):
        return distpert.fit(histograms, screen.embeddings, seed=seed, progress_bar=False)

    timed("fit, first (compiles)", lambda: fit(0))
    fitted = timed("fit, again", lambda: fit(0))
    labels = screen.truth["perturbation"].to_numpy()[-unseen:].tolist()
    prediction = fitted.predict(labels, num_draws=arguments.draws, progress_bar=False)
    histogram = timed("posterior mean histogram", prediction.histogram).to_numpy()
    summary = timed("moments with intervals", prediction.summary)
    timed("the same for 150 cells", lambda: prediction.summary(n_cells=150))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB (host)")
    truth = screen.truth["histogram"].sel(perturbation=labels).isel(context=0).to_numpy()
    print(f"total variation from the true histograms {variation(histogram, truth):.6f}, epochs {len(fitted.loss)}")
    if arguments.save:
        lower, upper = (summary["mean"].sel(statistic=end).to_numpy() for end in ("lower", "upper"))
        other = fit(1).predict(labels, num_draws=arguments.draws, progress_bar=False).histogram().to_numpy()
        np.savez(arguments.save, histogram=histogram, other=other, width=upper - lower)


def compare(predicted: dict[str, np.lib.npyio.NpzFile]) -> None:
    """Say how far the predictions of each device are from those of the first."""
    (first, reference), *others = predicted.items()
    other_seed = variation(reference["histogram"], reference["other"])
    print(f"\n{first}: another seed of the fit changes histograms by {other_seed:.2e} (total variation)")
    for device, there in others:
        changed = variation(there["histogram"], reference["histogram"])
        width = np.abs(there["width"] / reference["width"] - 1).mean()
        print(f"{device}: {changed:.2e} from those of {first}; widths of intervals of the mean differ by {width:.2%}")


def variation(left: np.ndarray, right: np.ndarray) -> float:
    """Total variation of histograms, averaged over perturbations and genes."""
    return float(np.abs(left - right).sum(axis=-1).mean() / 2)


def timed(name, function):
    started = time.perf_counter()
    result = function()
    print(f"{name:26s} {time.perf_counter() - started:7.2f} s", flush=True)
    return result


if __name__ == "__main__":
    main()
