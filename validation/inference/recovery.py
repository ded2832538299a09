"""Are true moments in their intervals, and are concentration and explained share found again?

    python validation/inference/recovery.py --out recovery

Screens are drawn from the model, with known distributions of seen and unseen perturbations. The output folder gets
coverage.csv (share of true moments in intervals of 90 %) and parameters.csv.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

import distpert
from distpert.histograms.moments import MOMENTS, histogram_moments

TRUE_CONCENTRATION, TRUE_SHARE = 300.0, 0.9


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--perturbations", type=int, nargs="+", default=[12, 30, 100, 200])
    parser.add_argument("--cells", type=int, nargs="+", default=[150], help="cells of each perturbation")
    parser.add_argument("--screens", type=int, default=3, help="screens of each size")
    parser.add_argument("--unseen", type=int, default=40)
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--draws", type=int, default=300)
    arguments = parser.parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)

    sizes = [
        (n, cells, seed)
        for n in arguments.perturbations
        for cells in arguments.cells
        for seed in range(arguments.screens)
    ]
    coverage, parameters = [], []
    for n, cells, seed in tqdm(sizes, desc="screens"):
        screen = distpert.simulate(
            n_perturbations=n, n_unseen=arguments.unseen, n_genes=arguments.genes, n_cells=cells,
            concentration=TRUE_CONCENTRATION, explained_share=TRUE_SHARE, seed=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the perturbations have", UserWarning)  # few cells are meant here
            fit = distpert.fit(screen.adata, screen.embeddings, progress_bar=False)
        about = {"perturbations": n, "cells": cells, "seed": seed}
        coverage += [about | row for row in covered(fit, screen, n, arguments.draws)]
        for name, truth, interval in (
            ("concentration", TRUE_CONCENTRATION, fit.concentration_interval()),
            ("explained share", TRUE_SHARE, fit.explained_share_interval()),
        ):
            lower, median, upper = interval
            parameters.append(
                about | {"parameter": name, "lower": lower, "median": median, "upper": upper,
                         "holds": lower <= truth <= upper}
            )  # fmt: skip
        pd.DataFrame(coverage).to_csv(arguments.out / "coverage.csv", index=False)
        pd.DataFrame(parameters).to_csv(arguments.out / "parameters.csv", index=False)
    table = pd.DataFrame(coverage).groupby(["perturbations", "cells", "which", "moment"], sort=False)["coverage"]
    print(table.mean().unstack("moment").round(3).to_string())
    found = pd.DataFrame(parameters).groupby(["parameter", "perturbations", "cells"], sort=False)
    print(found.agg(median=("median", "median"), holds=("holds", "mean")).round(3).to_string())


def covered(fit: distpert.Fit, screen: distpert.Simulation, n_seen: int, num_draws: int) -> list[dict[str, object]]:
    """Shares of true moments in their intervals of 90 %."""
    labels = screen.truth["perturbation"].to_numpy().tolist()
    summary = fit.predict(labels, num_draws=num_draws, progress_bar=False).summary(0.9)
    histograms = screen.truth["histogram"].isel(context=0).to_numpy()
    truths = histogram_moments(histograms, screen.truth["center"].to_numpy())
    rows = []
    for moment, truth in zip(MOMENTS, truths, strict=True):
        lower, upper = (summary[moment].sel(statistic=end).to_numpy() for end in ("lower", "upper"))
        inside = (truth >= lower) & (truth <= upper)
        for which, chosen in (("seen", slice(None, n_seen)), ("unseen", slice(n_seen, None))):
            rows.append({"which": which, "moment": moment, "coverage": float(np.mean(inside[chosen]))})
    return rows


if __name__ == "__main__":
    main()
