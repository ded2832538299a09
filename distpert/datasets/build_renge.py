"""Rebuild ``renge.npz``, the file behind :func:`distpert.datasets.renge`, byte for byte.

::

    pip download --no-deps --no-binary renge renge==0.0.5
    python -m distpert.datasets.build_renge renge-0.0.5.tar.gz gene_embeddings.npz

The second file is an npz with ``symbols`` (G,) and ``emb`` (G, D), one embedding a gene, and covers the 103
genes of the screen.
"""

from __future__ import annotations

import argparse
import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

SDIST_SHA256 = "3472ce015cf5eb32e22e474da6e1ceafb18023451ae43614c6f026cf48bf91df"
BUNDLE = Path(__file__).with_name("renge.npz")


def read_sdist(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the two matrices of the screen from the sdist of ``renge``.

    Parameters
    ----------
    path
        ``renge-0.0.5.tar.gz``.

    Returns
    -------
    expression : DataFrame (cells, genes)
        log1p of counts.
    design : DataFrame (cells, genes and ``t``)
        Indicators of the gene knocked out, all zero for a control, and the day.

    Raises
    ------
    ValueError
        The file is not the release that this script was written for.
    """
    import pandas as pd

    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != SDIST_SHA256:
        raise ValueError(f"{path} is not the sdist of renge 0.0.5 (SHA-256 {SDIST_SHA256})")
    with tarfile.open(path) as sdist:
        frames = []
        for name in ("E", "X"):
            member = sdist.extractfile(f"renge-0.0.5/examples/data/{name}_renge_d2_80.csv")
            assert member is not None  # the checksum fixes the archive's contents
            frames.append(pd.read_csv(member, index_col=0))
    return frames[0], frames[1]


def screen_arrays(expression: pd.DataFrame, design: pd.DataFrame) -> dict[str, np.ndarray]:
    """Turn log1p values and indicators into counts and labels.

    Parameters
    ----------
    expression, design
        As returned by :func:`read_sdist`.

    Returns
    -------
    dict of arrays
        ``counts`` (genes, cells) uint8, gene by gene because that compresses best; ``genes`` and ``cells``,
        bytes; ``perturbations``, bytes, ``control`` first, and the codes ``perturbation`` (cells,);
        ``day`` (cells,).

    Raises
    ------
    ValueError
        Cells of the two frames differ, a value is not log1p of an integer from 0 to 255, a cell has several
        knock-outs, or a knocked-out gene is not measured.
    """
    if not expression.index.equals(design.index):
        raise ValueError("expression and design must have the same cells in the same order")
    exact = np.expm1(expression.to_numpy())
    counts = np.rint(exact)
    if np.abs(exact - counts).max() > 1e-6 or counts.min() < 0 or counts.max() > 255:
        raise ValueError("expression must be log1p of integers from 0 to 255")

    knocked_out = design.drop(columns="t").to_numpy() > 0
    if knocked_out.sum(axis=1).max() > 1:
        raise ValueError("a cell has more than one knock-out")
    targets = np.where(knocked_out.any(axis=1), design.columns[knocked_out.argmax(axis=1)], "control")
    perturbations = ["control", *sorted(set(targets) - {"control"})]
    if unmeasured := set(perturbations[1:]) - set(expression.columns):
        raise ValueError(f"knocked-out genes that are not measured: {sorted(unmeasured)}")
    code = {label: i for i, label in enumerate(perturbations)}
    return {
        "counts": np.ascontiguousarray(counts.astype(np.uint8).T),
        "genes": np.array(expression.columns, dtype=bytes),
        "cells": np.array(expression.index, dtype=bytes),
        "perturbations": np.array(perturbations, dtype=bytes),
        "perturbation": np.array([code[target] for target in targets], dtype=np.uint8),
        "day": design["t"].to_numpy().astype(np.uint8),
    }


def select_embeddings(path: str | Path, genes: Sequence[str]) -> np.ndarray:
    """Rows of an embedding file for some genes.

    Parameters
    ----------
    path
        npz with ``symbols`` (G,) and ``emb`` (G, D).
    genes
        Symbols, in the order wanted.

    Returns
    -------
    ndarray (genes, D), float16

    Raises
    ------
    KeyError
        The file has no embedding for some of the genes.
    """
    with np.load(path) as archive:
        row = {str(symbol): i for i, symbol in enumerate(archive["symbols"])}
        if missing := [gene for gene in genes if gene not in row]:
            raise KeyError(f"{path} has no embedding for {missing}")
        return archive["emb"][[row[gene] for gene in genes]].astype(np.float16)


def write_bundle(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed npz; the same arrays give the same bytes under the same zlib."""
    # An npz written by numpy carries no time stamp: every member is dated 1980-01-01.
    with Path(path).open("wb") as stream:
        members: dict[str, Any] = dict(arrays)  # Any: no member is taken for numpy's option allow_pickle
        np.savez_compressed(stream, **members)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="python -m distpert.datasets.build_renge")
    parser.add_argument("sdist", type=Path, help="renge-0.0.5.tar.gz")
    parser.add_argument("embeddings", type=Path, help="npz with symbols and emb")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="default: %(default)s")
    options = parser.parse_args(argv)

    arrays = screen_arrays(*read_sdist(options.sdist))
    arrays["embeddings"] = select_embeddings(options.embeddings, arrays["genes"].astype(str).tolist())
    write_bundle(options.out, arrays)
    n_genes, n_cells = arrays["counts"].shape
    print(f"{options.out}: {n_cells} cells, {n_genes} genes, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
