"""What decided the defaults: one change at a time, on perturbations left out.

    python validation/model_selection.py --data k562.h5ad --embeddings embeddings.npz --out selection

Each row changes one setting of the default model. Bins are counted once, over all cells: the comparison is between
settings that share them.
"""

import argparse
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from held_out import baseline_scores, evaluate, split

import distpert
from distpert import kernels
from distpert.inference import Optimisation
from distpert.model import Priors

VARIANTS = {
    "default": {},
    "8 factors": {"n_factors": 8},
    "32 factors": {"n_factors": 32},
    "10 epochs": {"optimisation": Optimisation(max_epochs=10, min_steps=1)},
    "100 epochs, no stopping rule": {"optimisation": Optimisation(max_epochs=100, patience=100)},
    "step size 0.02": {"optimisation": Optimisation(step_size=0.02)},
    "step size 0.08": {"optimisation": Optimisation(step_size=0.08)},
    "smoother loadings": {"priors": Priors(loading=0.03)},
    "rougher loadings": {"priors": Priors(loading=0.3)},
    "smoother common shift": {"priors": Priors(common=0.2)},
    "half the length scale": {"length_scale": 0.5},
    "twice the length scale": {"length_scale": 2.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="h5ad with log-normalised X and obs['perturbation']")
    parser.add_argument("--embeddings", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--context-key", default=None)
    parser.add_argument("--n-folds", type=int, default=9)
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 3, 6])
    parser.add_argument("--draws", type=int, default=100)
    arguments = parser.parse_args()

    embeddings = distpert.read_embeddings(arguments.embeddings)
    histograms = distpert.count_histograms(ad.read_h5ad(arguments.data), context_key=arguments.context_key)
    usable = [p for p in histograms.perturbations if set(p.split("+")) <= set(embeddings.index)]
    histograms = histograms.select(usable)
    folds = split(usable, arguments.n_folds)
    rows: dict[str, list[pd.DataFrame]] = {}
    for i in arguments.folds:
        training, held_out = histograms.drop(folds[i]), histograms.select(folds[i])
        for name, table in baseline_scores(training, held_out, tuple(folds[i])).items():
            rows.setdefault(f"({name} histogram)", []).append(table)
        chosen = None
        for name, changes in VARIANTS.items():
            options = dict(changes)
            factor = options.pop("length_scale", None)
            grid = kernels.LENGTH_SCALES
            if factor is not None and chosen is not None:
                kernels.LENGTH_SCALES = (chosen * factor,)
            try:
                started = time.perf_counter()
                fit = distpert.fit(training, embeddings, progress_bar=False, **options)
                seconds = time.perf_counter() - started
            finally:
                kernels.LENGTH_SCALES = grid
            if name == "default":
                known = distpert.embeddings.as_embeddings(embeddings).of(training.perturbations)
                gaps = kernels.distances(known, known)[np.triu_indices(len(known), 1)]
                chosen = fit.kernel.length_scale / np.median(gaps)
            table, coverage = evaluate(fit.predict(folds[i], num_draws=arguments.draws, progress_bar=False), held_out)
            table["coverage_50"] = coverage.loc[0.5].mean()
            table["coverage_90"] = coverage.loc[0.9].mean()
            table["seconds"] = seconds
            rows.setdefault(name, []).append(table)
            print(f"fold {i} {name}: Cramér {table['cramer'].mean():.5f}, {seconds:.1f} s", flush=True)
    summary = pd.DataFrame({name: pd.concat(parts).mean() for name, parts in rows.items()}).T
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.out / "selection.csv")
    print(summary.round(4).to_string())


if __name__ == "__main__":
    main()
