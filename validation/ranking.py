"""Are held-out perturbations that are ranked first by predicted effect really the strong ones?

    python validation/ranking.py --data k562.h5ad --out ranking

Each perturbation is held out once, in nine folds, and ranked by `Fit.rank` beside the nearest-neighbor rule: the effect
of the training perturbation with the nearest embedding. The truth is the effect in the held-out cells, less what
sampling of cells adds. The folder gets ranking.csv (a row for each perturbation) and summary.csv, with intervals by
resampling perturbations.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr
from screens import BUNDLED, EMBEDDINGS_HELP, open_embeddings, open_screen

import distpert
from distpert.cross_validation.protocol import count_fold
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen

STRONG = 0.1  # share of perturbations that count as strong
N_RESAMPLES = 2000


def observed_effects(histograms: distpert.Histograms) -> pd.Series:
    """Root mean squares, over genes, of shifts of the mean in units of the controls, less those from sampling."""
    centers, counts = histograms.centers.to_numpy(), histograms.counts.to_numpy().astype(float)
    n_cells, label = histograms.n_cells.to_numpy(), histograms.dataset["perturbation"].to_numpy()
    shares = counts / n_cells[:, None, None]
    mean = (shares * centers).sum(-1)
    variance = (shares * centers**2).sum(-1) - mean**2
    control = label == histograms.control
    base = np.average(mean[control], axis=0, weights=n_cells[control])
    spread = np.average(variance[control], axis=0, weights=n_cells[control])
    rows, used = np.flatnonzero(~control), spread > 0
    noise = variance / np.maximum(n_cells[:, None] - 1, 1) + spread / n_cells[control].sum()
    squares = ((mean[rows] - base) ** 2 - noise[rows])[:, used] / spread[used]
    for i, row in enumerate(rows):  # the perturbed genes do not count
        own = np.isin(np.array(histograms.genes)[used], label[row].split("+"))
        squares[i, own] = np.nan
    squares = pd.Series(np.nanmean(squares, axis=1), index=label[rows]).groupby(level=0).mean()
    return np.sqrt(squares.clip(lower=0))


def nearest(labels: list[str], training: pd.Series, embeddings) -> pd.Series:
    """Effects of the training perturbations with the nearest embedding."""
    known = [label for label in training.index if embeddings.has(label)]
    left, right = embeddings.of(labels), embeddings.of(known)
    far = ((left[:, None] - right) ** 2).sum(axis=-1)
    return pd.Series(training[known].to_numpy()[far.argmin(axis=1)], index=labels)


def measures(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Rank correlation, enrichment of strong ones among the first, and area under the curve of finding them."""
    n_strong = max(1, round(STRONG * len(truth)))
    strong = rankdata(-truth, method="ordinal") <= n_strong
    first = rankdata(-predicted, method="ordinal") <= n_strong
    ranks = rankdata(predicted)
    area = (ranks[strong].sum() - n_strong * (n_strong + 1) / 2) / (n_strong * (~strong).sum())
    return {
        "rank correlation": float(spearmanr(predicted, truth).statistic),
        "enrichment": float(strong[first].mean() / STRONG),
        "area under the curve": float(area),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--embeddings", nargs="+", default=[BUNDLED], help=EMBEDDINGS_HELP)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--n-folds", type=int, default=9)
    arguments = parser.parse_args(argv)
    adata, keys = open_screen(arguments.data)
    embeddings = open_embeddings(arguments.embeddings)
    screen = read_screen(adata, ScreenKeys(**keys))
    labels = [label for label in screen.perturbations if embeddings.has(label)]
    rows = []
    for number, fold in enumerate(distpert.split_perturbations(labels, n_folds=arguments.n_folds).folds):
        training, held_out = count_fold(screen, fold, 15)
        fit = distpert.fit(training, embeddings, progress_bar=False)
        held = sorted(fold.held_out)
        table = fit.rank(held, n_exact=len(held), progress_bar=False).table.loc[held]
        neighbor = nearest(held, observed_effects(training), fit.embeddings)
        truth = observed_effects(held_out)
        rows.append(table.assign(fold=number, neighbor=neighbor, truth=truth.reindex(held)))
        print(f"fold {number}: {measures(table['effect'].to_numpy(), truth.loc[held].to_numpy())}", flush=True)
    found = pd.concat(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found.to_csv(arguments.out / "ranking.csv")
    truth, rng = found["truth"].to_numpy(), np.random.default_rng(0)
    resampled = [rng.integers(0, len(found), len(found)) for _ in range(N_RESAMPLES)]
    summary = []
    for name in ("effect", "effect_exact", "neighbor"):
        values = found[name].to_numpy()
        draws = pd.DataFrame([measures(values[i], truth[i]) for i in resampled])
        for measure, value in measures(values, truth).items():
            low, high = draws[measure].quantile([0.025, 0.975])
            summary.append({"by": name, "measure": measure, "value": value, "lower": low, "upper": high})
        if name == "effect":
            ours = draws
        elif name == "neighbor":
            for measure in ours:
                low, high = (ours[measure] - draws[measure]).quantile([0.025, 0.975])
                value = (ours[measure] - draws[measure]).mean()
                summary.append(
                    {"by": "effect − neighbor", "measure": measure, "value": value, "lower": low, "upper": high}
                )
    fast = spearmanr(found["effect"], found["effect_exact"]).statistic
    summary.append({"by": "effect, effect_exact", "measure": "rank correlation", "value": fast})
    inside = found["truth"].between(found["effect_lower"], found["effect_upper"]).mean()
    summary.append({"by": "effect", "measure": "truth in its 90 % interval", "value": inside})
    pd.DataFrame(summary).to_csv(arguments.out / "summary.csv", index=False)
    print(pd.DataFrame(summary).round(3).to_string())


if __name__ == "__main__":
    main()
