"""Score what the peers wrote, by `distpert.score`, beside distpert's own baselines on the same folds.

    python validation/peers/score.py --data k562.h5ad --embeddings e.npz --splits splits.json --out peers scouter gears

The last arguments are the folders that the peers' scripts wrote. A peer is scored by its means. One that generates
cells is scored a second time, as NAME_cells, by their histogram in the training bins, with one cell spread evenly over
the bins added so that none is impossible. Writes scores.csv (a row a method, fold and perturbation), prints averages.
"""

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import distpert
from distpert._shared.labels import canonical_label
from distpert.baselines import BASELINES, MeanPrediction, PointPrediction
from distpert.cross_validation.splits import Splits
from distpert.embeddings.sources import as_embeddings
from distpert.evaluation.scoring import score

SCORES = ("nll", "cramer", "wasserstein", "rmae_mean", "rmae_variance", "rmae_skewness", "rmae_kurtosis")
SCORES += ("pearson_shift", "pearson_shift_centered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="h5ad with log-normalized X and obs['perturbation']")
    parser.add_argument("--embeddings", required=True, help="a file that distpert.read_embeddings reads")
    parser.add_argument("--splits", required=True, type=Path)
    parser.add_argument("--baselines", nargs="*", default=["control", "pooled", "ridge"], choices=list(BASELINES))
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("peers", nargs="+", type=Path)
    arguments = parser.parse_args()

    adata = ad.read_h5ad(arguments.data)
    embeddings = as_embeddings(distpert.read_embeddings(arguments.embeddings), adata)
    splits = Splits.from_json(arguments.splits.read_text())
    labels = adata.obs["perturbation"].astype(str).map(lambda label: canonical_label(label, "control"))
    tables = []
    for number, fold in enumerate(splits.folds):
        files = {folder.name: folder / f"fold_{number}.npz" for folder in arguments.peers}
        files = {name: file for name, file in files.items() if file.exists()}
        if not files:
            continue
        # As in cross_validate: the bins span the training cells, of labels without an embedding too.
        training = distpert.count_histograms(adata[[x == "control" or fold.trains_on(x) for x in labels]])
        held_out = distpert.count_histograms(adata[labels.isin(list(fold.held_out)).to_numpy()], bins=training)
        predictions = {
            name: BASELINES[name]().fit(training, embeddings).predict(list(fold.held_out))
            for name in arguments.baselines
        }
        for name, file in files.items():
            predictions.update(read(name, file, training))
            left = sorted(set(fold.held_out).difference(predictions[name].perturbations))
            print(f"fold {number}, {name}: {cost(file)}" + (f"; not predicted: {', '.join(left)}" if left else ""))
        for name, prediction in predictions.items():
            table = score(prediction, held_out, ceilings=False).to_dataframe()
            categories = [fold.held_out[label] for label in table.index]
            tables.append(table.reset_index().assign(method=name, fold=number, category=categories))
    scores = pd.concat(tables)
    scores["method"] = pd.Categorical(scores["method"], scores["method"].unique())
    arguments.out.mkdir(parents=True, exist_ok=True)
    scores.to_csv(arguments.out / "scores.csv", index=False)
    print("\nAverages over perturbations (lower is better, but for Pearson; nothing where a method gives means alone)")
    names = [name for name in SCORES if name in scores]
    print(scores.groupby(["category", "method"], observed=True)[names].mean().round(4).to_string(na_rep=""))


def read(
    name: str, file: Path, training: distpert.Histograms
) -> Iterator[tuple[str, PointPrediction | MeanPrediction]]:
    """Read a peer's means and, where it generated cells, their histograms."""
    with np.load(file) as arrays:
        written = dict(arrays)
    labels = tuple(written["perturbations"].tolist())
    if written["genes"].tolist() != list(training.genes):
        raise ValueError(f"{file} has other genes than the data, or in another order")
    yield name, MeanPrediction(training, labels, training.contexts, written["means"][:, None])
    if "cells" in written:
        cells = written["cells"].clip(min=0)  # what lies below the bins counts in the first of them
        obs = pd.DataFrame({"perturbation": np.repeat(labels, cells.shape[1])})
        obs.index = obs.index.astype(str)
        generated = ad.AnnData(cells.reshape(-1, cells.shape[2]), obs, pd.DataFrame(index=list(training.genes)))
        counted = distpert.count_histograms(generated, bins=training)
        order = counted.dataset["perturbation"].to_numpy().tolist()
        rows = [order.index(label) for label in labels]
        counts = counted.counts.to_numpy()[rows][:, None] + 1 / training.n_bins
        probs = counts / counts.sum(axis=-1, keepdims=True)
        yield f"{name}_cells", PointPrediction(training, labels, training.contexts, probs)


def cost(file: Path) -> str:
    """Say what a run took."""
    record = json.loads(file.with_suffix(".json").read_text())
    seconds, cpu = (sum(record[name].values()) for name in ("seconds", "cpu_seconds"))
    return f"{record['peer']}, {seconds:.0f} s ({cpu:.0f} s of processor time), {record['peak_gib']} GiB"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="(no embedding for|perturbations with fewer than 2 cells)")
    main()
