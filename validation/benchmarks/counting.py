"""Time and memory of counting histograms, beside the time of one `numpy.bincount`.

    python validation/benchmarks/counting.py

A sparse screen of 50,000 cells by 5,000 genes with a tenth of the values stored, 100 perturbations in random
order of cells. Two yardsticks: `bincount` of the column indices, which visits every stored value once, and
`bincount` of the finished (group, gene, bin) index, the least that counting in one go could take. All are
timed in turn, several times over.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import anndata
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, random_array

from distpert import count_histograms
from distpert.histograms.binning import bin_edges, count_bins, gene_ranges

N_BINS = 15


def simulate_screen(n_cells: int, n_genes: int, n_perturbations: int, seed: int = 0) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    matrix = csr_matrix(random_array((n_cells, n_genes), density=0.1, dtype=np.float32, format="csr", rng=rng))
    matrix.data = np.log1p(rng.gamma(1, 2, matrix.nnz)).astype(np.float32)
    labels = np.array(["control", *(f"G{i}" for i in range(n_perturbations))])
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels[rng.integers(0, len(labels), n_cells)])})
    obs.index = obs.index.astype(str)
    return anndata.AnnData(matrix, obs=obs)


def flat_index(adata: anndata.AnnData, group: np.ndarray, edges: np.ndarray) -> np.ndarray:
    matrix, low = adata.X, edges.mean(axis=1) - (N_BINS - 1) / 2 * (edges[:, 1] - edges[:, 0])
    bins = np.floor((matrix.data - low[matrix.indices]) / (edges[:, 1] - edges[:, 0])[matrix.indices] + 0.5)
    cell = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return (group[cell] * matrix.shape[1] + matrix.indices) * N_BINS + bins.astype(np.int64)


def report_memory(adata: anndata.AnnData) -> None:
    tracemalloc.start()  # numpy reports its allocations to it
    count_histograms(adata, n_bins=N_BINS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = adata.X.data.nbytes + adata.X.indices.nbytes + adata.X.indptr.nbytes
    print(f"matrix {size / 1e6:.0f} MB; peak of memory allocated while counting {peak / 1e6:.0f} MB")


def report_time(adata: anndata.AnnData, repeats: int) -> None:
    matrix = adata.X
    group = adata.obs["perturbation"].cat.codes.to_numpy().astype(np.intp)
    kept = group >= 0
    edges = bin_edges(*gene_ranges(matrix, kept), N_BINS)
    flat, size = flat_index(adata, group, edges), (group.max() + 1) * matrix.shape[1] * N_BINS

    def whole() -> None:
        vars(matrix).pop("_has_canonical_format", None)  # scipy remembers the answer: check it anew
        count_histograms(adata, n_bins=N_BINS)

    steps = {
        "bincount of column indices": lambda: np.bincount(matrix.indices),
        "bincount of (group, gene, bin)": lambda: np.bincount(flat, minlength=size),
        "count_histograms, whole": whole,
        "  of which ranges": lambda: gene_ranges(matrix, kept),
        "  of which counts": lambda: count_bins(matrix, group, edges),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    print(f"{matrix.nnz:,} stored values; medians of {repeats} interleaved repeats")
    one, least = (np.array(seconds[name]) for name in list(steps)[:2])
    for name, taken in seconds.items():
        ratios = f"{np.median(taken / one):6.2f} × the first, {np.median(taken / least):5.2f} × the second"
        print(f"{name:<32}{np.median(taken):8.3f} s (best {np.min(taken):.3f}) {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=5_000)
    parser.add_argument("--perturbations", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    adata = simulate_screen(options.cells, options.genes, options.perturbations)
    report_time(adata, options.repeats)
    report_memory(adata)


if __name__ == "__main__":
    main()
