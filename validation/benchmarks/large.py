"""Time, peak memory and accuracy of fits to large screens, drawn as counts.

    python validation/benchmarks/large.py --out large.csv

Counts are drawn from shifts of low rank that follow random embeddings, in a process of its own for each size. Accuracy
is the Cramér distance of predictions for unseen perturbations to their true histograms, relative to that of the
controls.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import distpert

N_BINS, N_FACTORS, N_DIMS, N_CELLS, N_UNSEEN = 15, 12, 32, 120, 20


def simulate(n_perturbations: int, n_genes: int, seed: int = 0):
    """Histograms of a screen, embeddings, and the true histograms of unseen perturbations and controls."""
    rng = np.random.default_rng(seed)
    labels = [f"P{i:05d}" for i in range(n_perturbations + N_UNSEEN)]
    vectors = rng.normal(size=(len(labels), N_DIMS)).astype(np.float32)
    centers = rng.normal(size=(60, N_DIMS))  # complexes: similar genes act alike
    of_complex = rng.integers(0, 60, len(labels))
    vectors = (0.4 * vectors + centers[of_complex]).astype(np.float32)
    response = 0.5 * rng.normal(size=(len(labels), N_FACTORS)) + rng.normal(size=(60, N_FACTORS))[of_complex]
    strength = rng.gamma(1.5, 0.6, (len(labels), 1))
    x = np.linspace(-1, 1, N_BINS)
    level = rng.normal(-1, 1, n_genes)
    log_control = -4 * (x[None] - 0.4 * level[:, None]) ** 2
    log_control[:, 0] += 2.5
    tilt = rng.normal(size=(N_FACTORS, n_genes)) * (rng.random((N_FACTORS, n_genes)) < 0.3) * 0.4
    base = np.exp(log_control)
    base /= base.sum(axis=-1, keepdims=True)

    def histogram(row: int) -> np.ndarray:
        logits = log_control + (strength[row] * response[row] @ tilt)[:, None] * x
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    counts = np.zeros((n_perturbations + 1, n_genes, N_BINS), np.uint16)
    counts[0] = rng.multinomial(5_000, base)
    for row in range(n_perturbations):
        counts[row + 1] = rng.multinomial(N_CELLS, histogram(row))
    left = np.tile(np.arange(N_BINS) * 0.3, (n_genes, 1))
    dataset = xr.Dataset(
        {
            "counts": (("group", "gene", "bin"), counts),
            "n_cells": ("group", counts[:, 0].sum(axis=-1).astype(np.int64)),
            "out_of_range": (("group", "gene"), np.zeros(counts.shape[:2], np.uint8)),
        },
        coords={
            "perturbation": ("group", np.array(["control", *labels[:n_perturbations]])),
            "context": ("group", np.full(n_perturbations + 1, "all")),
            "gene": np.array([f"G{i}" for i in range(n_genes)]),
            "bin_left": (("gene", "bin"), left),
            "bin_right": (("gene", "bin"), left + 0.3),
        },
        attrs={**distpert.ScreenKeys().to_attrs(), "format_version": 1},
    )
    embeddings = pd.DataFrame(vectors, index=labels)
    truth = np.stack([histogram(row) for row in range(n_perturbations, len(labels))])
    return distpert.Histograms(dataset), embeddings, labels[n_perturbations:], truth, base


def measure(n_perturbations: int, n_genes: int, max_steps: int, max_epochs: int) -> dict[str, float]:
    histograms, embeddings, unseen, truth, base = simulate(n_perturbations, n_genes)
    before, started = _peak(), time.perf_counter()
    settings = distpert.Optimization(max_steps=max_steps, max_epochs=max_epochs)
    fit = distpert.fit(histograms, embeddings, optimization=settings, progress_bar=False)
    seconds, peak = time.perf_counter() - started, _peak()
    predicted = fit.predict(unseen, num_draws=50, progress_bar=False).histogram().to_numpy()

    def distance(histogram: np.ndarray) -> float:
        return float(((histogram.cumsum(-1) - truth.cumsum(-1)) ** 2).sum(-1).mean())

    return {
        "perturbations": n_perturbations,
        "genes": n_genes,
        "max_steps": max_steps,
        "epochs": len(fit.loss),
        "seconds": seconds,
        "peak_GiB": peak,
        "counts_GiB": histograms.counts.nbytes / 2**30,
        "before_GiB": before,
        "relative_cramer": distance(predicted) / distance(np.broadcast_to(base, truth.shape)),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--sizes", nargs="+", default=["256x1000", "1000x1000", "2000x1000", "2000x8000"])
    parser.add_argument("--max-steps", type=int, nargs="+", default=[distpert.Optimization().max_steps])
    parser.add_argument("--max-epochs", type=int, default=distpert.Optimization().max_epochs)
    parser.add_argument("--one", nargs=3, type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.max_epochs)))
        return
    rows = []
    for size in arguments.sizes:
        for steps in arguments.max_steps:
            one = [sys.executable, __file__, "--one", *size.split("x"), str(steps)]
            one += ["--max-epochs", str(arguments.max_epochs)]
            rows.append(json.loads(subprocess.run(one, check=True, stdout=subprocess.PIPE, text=True).stdout))
            print(rows[-1], flush=True)
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
