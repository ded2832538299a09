"""Time and peak memory of counting a screen that is on disk, beside reading its file once.

    python validation/benchmarks/streaming.py --folder streaming

A script-made h5ad of 300,000 cells by 8,000 genes with a tenth of the values stored and 2,000 perturbations, written
without compression and with gzip, as published files mostly are. Each measurement runs in a process of its own. Reading
once is reading values and indices in the same parts, and doing nothing with them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

N_STORED = 0.1
BLOCK = 10_000  # cells written at a time


def write(path: Path, n_cells: int, n_genes: int, n_perturbations: int, compression: str | None) -> None:
    from anndata.io import write_elem

    rng = np.random.default_rng(0)
    per_cell = int(N_STORED * n_genes)
    labels = np.array(["control", *(f"G{i}" for i in range(n_perturbations))])
    codes = np.where(rng.random(n_cells) < 0.05, 0, rng.integers(1, len(labels), n_cells))
    obs = pd.DataFrame({"perturbation": pd.Categorical.from_codes(codes, labels)}, index=np.arange(n_cells).astype(str))
    level = rng.gamma(0.5, 2, n_genes)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", obs)
        write_elem(file, "var", pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [n_cells, n_genes]})
        options = {"compression": compression, "chunks": (2**18,)}
        data = group.create_dataset("data", (n_cells * per_cell,), np.float32, **options)
        indices = group.create_dataset("indices", (n_cells * per_cell,), np.int32, **options)
        group["indptr"] = np.arange(n_cells + 1, dtype=np.int64) * per_cell
        for start in range(0, n_cells, BLOCK):
            n = min(BLOCK, n_cells - start)
            # One random gene of each stretch of 10 is stored.
            chosen = np.arange(per_cell) * (n_genes // per_cell) + rng.integers(0, n_genes // per_cell, (n, per_cell))
            counts = 1 + rng.poisson(level[chosen])
            depth = rng.lognormal(8.5, 0.4, (n, 1))
            at = slice(start * per_cell, (start + n) * per_cell)
            data[at] = np.log1p(counts / depth * 1e4).astype(np.float32).ravel()
            indices[at] = chosen.astype(np.int32).ravel()


def measure(path: Path, what: str) -> dict[str, float | str]:
    import distpert

    idle, started = _peak(), time.perf_counter()
    found: dict[str, float | str] = {"file": path.name, "what": what}
    if what == "read":
        from distpert.histograms.opening import open_cells

        for _ in open_cells(path).matrix(None).parts():
            pass
    else:
        histograms = distpert.count_histograms(path)
        found["histograms_GiB"] = sum(array.nbytes for array in histograms.dataset.values()) / 2**30
    found["seconds"] = time.perf_counter() - started
    found["peak_GiB"], found["idle_GiB"] = _peak(), idle
    return found


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=300_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--perturbations", type=int, default=2_000)
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(Path(arguments.one[0]), arguments.one[1])))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for compression in (None, "gzip"):
        path = arguments.folder / f"{compression or 'plain'}.h5ad"
        if not path.exists():
            write(path, arguments.cells, arguments.genes, arguments.perturbations, compression)
        for what in ("read", "count", "read", "count"):
            one = [sys.executable, __file__, "--folder", str(arguments.folder), "--one", str(path), what]
            rows.append(json.loads(subprocess.run(one, check=True, capture_output=True, text=True).stdout))
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(arguments.folder / "streaming.csv", index=False)


if __name__ == "__main__":
    main()
