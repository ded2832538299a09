"""What the scripts that run the peers share: the cells and labels of one fold, and the files written.

Needs numpy, pandas and anndata alone, so that it works in the environment of every peer.
"""

import argparse
import json
import resource
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd


@dataclass
class Fold:
    """One fold as the peers take it, and a clock that starts once it is read.

    ``cells`` are the control and the training perturbations, labeled as the field does in ``obs["condition"]``:
    ``ctrl``, ``A+ctrl``, ``A+B``. ``held_out`` are the labels to predict, ``A`` or ``A+B``.
    """

    arguments: argparse.Namespace
    cells: ad.AnnData
    embeddings: pd.DataFrame
    held_out: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    _last: tuple[float, float] = field(default_factory=lambda: (time.perf_counter(), time.process_time()))

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap, by the clock and of all threads on the processor."""
        now = time.perf_counter(), time.process_time()
        self.seconds[name], self.cpu_seconds[name] = (round(b - a, 1) for a, b in zip(self._last, now, strict=True))
        self._last = now

    def write(self, package: str, means: np.ndarray, *, cells: np.ndarray | None = None, **facts: object) -> None:
        """Write means (perturbation, gene), cells (perturbation, cell, gene) if there are any, and what it cost."""
        out = Path(self.arguments.out)
        out.mkdir(parents=True, exist_ok=True)
        arrays = {"means": np.asarray(means, np.float32)}
        if cells is not None:
            arrays["cells"] = np.asarray(cells, np.float32)
        name = f"fold_{self.arguments.fold}"
        genes = self.cells.var_names.to_numpy(str)
        np.savez(out / f"{name}.npz", perturbations=np.array(self.held_out, str), genes=genes, **arrays)
        record = {
            "peer": f"{package} {version(package)}",
            "arguments": vars(self.arguments),
            "training_cells": self.cells.n_obs,
            "training_perturbations": self.cells.obs["condition"].nunique() - 1,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            **facts,
        }
        text = json.dumps(record, indent=1)
        (out / f"{name}.json").write_text(text + "\n")
        print(text)


def parser(description: str) -> argparse.ArgumentParser:
    """Take the arguments that all peers have; a peer adds its own."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--data", required=True, help="h5ad with log-normalized X and obs['perturbation']")
    result.add_argument("--embeddings", required=True, help="npz with symbols and emb")
    result.add_argument("--splits", required=True, help="json as distpert.Splits.to_json writes it")
    result.add_argument("--fold", type=int, default=0)
    result.add_argument("--out", required=True, help="folder for fold_N.npz and fold_N.json")
    result.add_argument("--seed", type=int, default=0)
    return result


def read_fold(arguments: argparse.Namespace) -> Fold:
    """Read the fold's training cells: control, and labels whose genes all have embeddings and none is held out."""
    with np.load(arguments.embeddings) as file:
        embeddings = pd.DataFrame(file["emb"].astype(np.float32), index=file["symbols"].astype(str))
    fold = json.loads(Path(arguments.splits).read_text())["folds"][arguments.fold]
    adata = ad.read_h5ad(arguments.data)
    labels = adata.obs["perturbation"].astype(str).map(canonical)

    def trains(label: str) -> bool:
        genes = set(label.split("+"))
        return label == "ctrl" or not (
            label in fold["held_out"] or genes & set(fold["genes"]) or genes - set(embeddings.index)
        )

    cells = adata[labels.map(trains).to_numpy()].copy()
    conditions = labels[cells.obs_names].map(condition)
    cells.obs = pd.DataFrame({"condition": pd.Categorical(conditions)}, index=cells.obs_names)
    cells.var = pd.DataFrame({"gene_name": cells.var_names}, index=cells.var_names)
    cells.layers.clear()
    return Fold(arguments, cells, embeddings, list(fold["held_out"]))


def canonical(label: str) -> str:
    """Write a label as the splits do: ``A``, or ``A+B`` in order; ``ctrl`` for the control."""
    genes = sorted(set(label.split("+")) - {"control", "ctrl", "non-targeting"})
    return "+".join(genes) or "ctrl"


def condition(label: str) -> str:
    """Write a canonical label as the peers do."""
    return label if label == "ctrl" or "+" in label else f"{label}+ctrl"
