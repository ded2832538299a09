"""How well are perturbations predicted that were left out? One fold, or all, of one screen.

    python validation/unseen.py --data k562.h5ad --embeddings embeddings.npz --out unseen --folds 0

Splits the perturbations that have an embedding in 9, fits without each fold named, and writes scores beside those of
the control and the pooled histogram, coverage of central predictive intervals, and the time and memory of the fits.
"""

import argparse
import resource
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from held_out import baseline_scores, evaluate, split

import distpert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="h5ad with log-normalised X and obs['perturbation']")
    parser.add_argument("--embeddings", required=True, help="a file that distpert.read_embeddings reads")
    parser.add_argument("--out", required=True, type=Path, help="folder for the tables")
    parser.add_argument("--context-key", default=None)
    parser.add_argument("--counts", action="store_true", help="X holds raw counts: normalise them first")
    parser.add_argument("--n-folds", type=int, default=9)
    parser.add_argument("--folds", type=int, nargs="*", default=None, help="which folds; all by default")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    adata = ad.read_h5ad(arguments.data)
    if arguments.counts:
        adata.X = log_normalised(adata)
    embeddings = distpert.read_embeddings(arguments.embeddings)
    labels = adata.obs["perturbation"].astype(str)
    usable = [p for p in labels.unique() if p != "control" and set(p.split("+")) <= set(embeddings.index)]
    adata = adata[labels.isin([*usable, "control"]).to_numpy()].copy()
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels

    scores: dict[str, list[pd.DataFrame]] = {}
    covered = []
    for fold, held_out in enumerate(split(usable, arguments.n_folds, arguments.seed)):
        if arguments.folds is not None and fold not in arguments.folds:
            continue
        is_held_out = labels.isin(held_out).to_numpy()
        started = time.perf_counter()
        fit = distpert.fit(
            adata[~is_held_out], embeddings, context_key=arguments.context_key, seed=arguments.seed, progress_bar=False
        )
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"fold {fold}: {len(held_out)} perturbations held out; fit in {seconds:.1f} s, peak {peak:.2f} GiB")
        print(fit)
        # The bins are those of the training cells.
        cells = distpert.count_histograms(adata[is_held_out], bins=fit.histograms, context_key=arguments.context_key)
        prediction = fit.predict(held_out, num_draws=arguments.draws, seed=arguments.seed, progress_bar=False)
        table, coverage = evaluate(prediction, cells)
        scores.setdefault("distpert", []).append(table)
        covered.append(coverage)
        for name, baseline in baseline_scores(fit.histograms, cells, prediction.perturbations).items():
            scores.setdefault(name, []).append(baseline)

    summary = pd.DataFrame({name: pd.concat(parts).mean() for name, parts in scores.items()}).T
    coverage = sum(covered) / len(covered)
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary.to_csv(arguments.out / "scores.csv")
    coverage.to_csv(arguments.out / "coverage.csv")
    print("\nScores, averaged over genes and perturbations (lower is better, but for pearson_shift)")
    print(summary.round(4).to_string())
    print("\nCoverage of central predictive intervals for as many cells as were measured")
    print(coverage.round(3).to_string())


def log_normalised(adata: ad.AnnData):
    """log1p of counts per 10,000; of ``obs.total_counts`` where the genes are a part of the transcriptome."""
    counts = adata.X.tocsr().astype(np.float32)
    if "total_counts" in adata.obs:
        totals = adata.obs["total_counts"].to_numpy(float)
    else:
        totals = np.asarray(counts.sum(axis=1)).ravel()
    counts.data = np.log1p(counts.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(counts.indptr)))
    return counts.astype(np.float32)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="perturbations with fewer than 2 cells")
    main()
