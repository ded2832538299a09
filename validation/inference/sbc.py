"""Simulation-based calibration: are true moments uniform among their posterior draws?

    python validation/inference/sbc.py --inference nuts --out sbc_nuts
    python validation/inference/sbc.py --inference svi --out sbc_svi

For "nuts", all parameters are drawn from their priors, the counts from the model, and chains run on the same model, as
the theory asks (Talts et al. 2018). For "svi", screens come from `distpert.simulate`, with fixed scales, and everything
is fitted, kernel and bins included. One gene and moment of each screen and perturbation enters, because the others
depend on it. The output folder gets ranks.csv, bands.csv and ranks.png, with simultaneous bands.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import pandas as pd
from numpyro.infer import MCMC, NUTS
from numpyro.infer.reparam import LocScaleReparam
from tqdm import tqdm

import distpert
from distpert.fitting.prepare import prepare
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.model.generative import Batch, model
from distpert.model.priors import Priors
from distpert.model.sampling import NON_CENTERED
from distpert.posterior.posterior import Posterior
from distpert.posterior.samples import name_samples, one_draw
from distpert.predictions.prediction import Prediction
from distpert.training.groups import TrainingGroups

N_SEEN, N_UNSEEN, N_GENES, N_BINS, N_CELLS = 8, 4, 5, 8, 60


def main(argv: Sequence[str] | None = None) -> None:
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--inference", choices=["svi", "nuts"], required=True)
    parser.add_argument("--screens", type=int, default=100)
    parser.add_argument("--draws", type=int, default=99)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    of_screens = by_chains if arguments.inference == "nuts" else by_fit
    rows = []
    for screen, (prediction, truths) in enumerate(
        tqdm(of_screens(arguments.screens, arguments.draws), total=arguments.screens, desc="screens")
    ):
        rng = np.random.default_rng(screen)
        moments = prediction.moments()
        for p, label in enumerate(prediction.perturbations):
            which = "seen" if p < len(prediction.training.perturbations) else "unseen"
            gene = int(rng.integers(len(prediction.genes)))
            for moment, truth in zip(MOMENTS, truths, strict=True):
                drawn = moments[moment].to_numpy()[:, p, gene]
                below, same = (drawn < truth[p, gene]).sum(), (drawn == truth[p, gene]).sum()
                rank = (below + rng.integers(same + 1)) / len(drawn)
                rows.append({"screen": screen, "perturbation": label, "which": which, "moment": moment, "rank": rank})
        pd.DataFrame(rows).to_csv(arguments.out / "ranks.csv", index=False)
    report(pd.DataFrame(rows), arguments.out)


def by_fit(n_screens: int, num_draws: int) -> Iterator[tuple[Prediction, list[np.ndarray]]]:
    """Fit screens of `distpert.simulate`."""
    for seed in range(n_screens):
        screen = distpert.simulate(
            n_perturbations=20, n_unseen=N_UNSEEN, n_genes=20, n_cells=N_CELLS, n_controls=400, seed=1000 + seed
        )
        fit = distpert.fit(screen.adata, screen.embeddings, progress_bar=False)
        prediction = fit.predict(
            screen.truth["perturbation"].to_numpy().tolist(), num_draws=num_draws, seed=seed, progress_bar=False
        )
        histograms = screen.truth["histogram"].isel(context=0).to_numpy()
        order = [screen.truth["perturbation"].to_numpy().tolist().index(label) for label in prediction.perturbations]
        yield prediction, [value[order] for value in histogram_moments(histograms, screen.truth["center"].to_numpy())]


def by_chains(n_screens: int, num_draws: int) -> Iterator[tuple[Prediction, list[np.ndarray]]]:
    """Draw all parameters from their priors, and run chains on the same model with the same fixed design."""
    # A tight prior of the sizes keeps histograms of prior draws spread over several bins.
    priors = Priors(level=0.3, common=0.2, loading=0.3, log_concentration=(5.0, 0.5))
    frame = distpert.simulate(
        n_perturbations=N_SEEN + N_UNSEEN, n_genes=N_GENES, n_bins=N_BINS, n_cells=N_CELLS, n_controls=300
    )
    histograms = distpert.count_histograms(frame.adata, n_bins=N_BINS, progress_bar=False)
    embeddings = distpert.Embeddings(
        tuple(frame.embeddings.index), frame.embeddings.to_numpy(np.float32), (frame.embeddings.shape[1],)
    )
    whole = TrainingGroups(histograms)
    labels = whole.perturbations
    everything = prepare(whole, embeddings, 2, priors)
    n_all, kernel = len(labels), everything.kernel
    matrix = (everything.design.eigenvectors * everything.design.eigenvalues) @ everything.design.eigenvectors.T
    eigenvalues, eigenvectors = np.linalg.eigh(matrix[:N_SEEN, :N_SEEN])
    design = everything.design._replace(
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        targets=everything.design.targets[:N_SEEN],
    )
    options = {"n_factors": 2, "priors": priors}

    def story(design, batch):
        model(design, batch, n_groups=N_SEEN, **options)

    reparameterized = numpyro.handlers.reparam(story, config={name: LocScaleReparam(0.0) for name in NON_CENTERED})
    chains = MCMC(
        NUTS(reparameterized, target_accept_prob=0.9, max_tree_depth=6),
        num_warmup=300, num_samples=4 * num_draws, thinning=4, jit_model_args=True, progress_bar=False,
    )  # fmt: skip
    groups = Batch(None, np.full(n_all, N_CELLS), np.arange(n_all), np.zeros(n_all, int))
    for screen in range(n_screens):
        rng = np.random.default_rng(screen)
        seeded = numpyro.handlers.seed(model, jax.random.key(screen))
        trace = numpyro.handlers.trace(seeded).get_trace(everything.design, groups, n_groups=n_all, **options)
        shares = np.asarray(jax.nn.softmax(trace["counts"]["fn"].base_dist.logits, axis=-1), np.float64)
        concentration = np.exp(np.asarray(trace["log_concentration"]["value"], np.float64))
        gammas = rng.standard_gamma(np.maximum(concentration[:, None] * shares, 1e-8))
        truth = gammas / gammas.sum(axis=-1, keepdims=True)
        counts = rng.multinomial(N_CELLS, truth[:N_SEEN] / truth[:N_SEEN].sum(axis=-1, keepdims=True))
        control = np.asarray(jax.nn.softmax(trace["control_counts"]["fn"].base_dist.logits, axis=-1), np.float64)
        control_counts = rng.multinomial(300, control / control.sum(axis=-1, keepdims=True))
        of_screen = design._replace(control_counts=control_counts.astype(np.float32))
        batch = Batch(counts.astype(np.float32), np.full(N_SEEN, N_CELLS), np.arange(N_SEEN), np.zeros(N_SEEN, int))
        chains.run(
            jax.random.key(10_000 + screen), jax.tree.map(jnp.asarray, of_screen), jax.tree.map(jnp.asarray, batch)
        )
        training = with_counts(histograms.drop(labels[N_SEEN:]), control_counts[0], counts)
        named = name_samples(chains.get_samples(group_by_chain=True), TrainingGroups(training), of_screen)
        posterior = Posterior(training, embeddings, kernel, one_draw(named, of_screen), samples=named)
        drawn = posterior.draw_responses(labels, num_draws, screen)
        prediction = Prediction(
            training, labels, posterior.contexts, posterior=posterior, **drawn._asdict(), seed=screen
        )
        centers = histograms.centers.to_numpy()
        yield prediction, [np.asarray(value) for value in histogram_moments(truth, centers)]
        jax.clear_caches()  # each screen compiles its own chains, and a hundred of them would fill the memory


def with_counts(histograms: distpert.Histograms, control: np.ndarray, counts: np.ndarray) -> distpert.Histograms:
    """Histograms with other counts."""
    dataset = histograms.dataset.copy(deep=True)
    is_control = dataset["perturbation"].to_numpy() == histograms.control
    values = dataset["counts"].to_numpy().copy()
    values[is_control], values[~is_control] = control, counts
    return distpert.Histograms(dataset.assign(counts=(dataset["counts"].dims, values)))


def report(ranks: pd.DataFrame, out: Path) -> None:
    """Write the largest distance of the ranks' CDF from uniform, its band, and a picture."""
    rng = np.random.default_rng(0)
    points = np.linspace(0, 1, 21)[1:-1]
    figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained", sharex=True, sharey=True)
    lines = []
    for row, which in zip(axes, ("seen", "unseen"), strict=True):
        for ax, moment in zip(row, MOMENTS, strict=True):
            part = ranks[(ranks["which"] == which) & (ranks["moment"] == moment)]
            # Perturbations of a screen share parameters: screens are resampled as a whole, and the band is that of
            # uniform ranks with the same variation between screens.
            observed = np.array([(part["rank"] <= x).mean() for x in points]) - points
            by_screen = np.stack([[(one["rank"] <= x).mean() - x for x in points] for _, one in part.groupby("screen")])
            centered = by_screen - by_screen.mean(axis=0)
            chosen = rng.integers(len(centered), size=(2000, len(centered)))
            resampled = centered[chosen].mean(axis=1)
            scale = np.maximum(resampled.std(axis=0), 1e-9)
            limit = np.quantile(np.abs(resampled / scale).max(axis=1), 0.95)
            inside = bool((np.abs(observed) <= limit * scale).all())
            lines.append(
                {"which": which, "moment": moment, "ranks": len(part), "uniform within the band": inside,
                 "largest distance": np.abs(observed).max()}
            )  # fmt: skip
            ax.fill_between(points, -limit * scale, limit * scale, color="#555555", alpha=0.2, lw=0)
            ax.plot(points, observed, color="#0072B2")
            ax.axhline(0, color="#555555", lw=0.8)
            ax.set_title(f"{which}: {moment}", fontsize="medium")
    figure.supxlabel("rank of the truth among posterior draws")
    figure.supylabel("CDF of the ranks less uniform")
    figure.savefig(out / "ranks.png", dpi=120)
    table = pd.DataFrame(lines)
    table.to_csv(out / "bands.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
