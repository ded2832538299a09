"""Open common files of screens in the form that `distpert` expects, and print what was recognized.

    adata, keys = open_screen("NormanWeissman2019_filtered.h5ad", n_genes=2000)
    distpert.cross_validate(adata, embeddings, **keys)

Recognized: scPerturb releases, GEARS releases, the original files of Replogle et al. 2022, and plain files with
``obs["perturbation"]``. Other files are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from distpert import Embeddings, read_embeddings
from distpert._shared.labels import canonical_label, genes_of, listed, resolve_control
from distpert.datasets import gene_embeddings
from distpert.embeddings.sources import as_embeddings

AUTO = "auto"
BUNDLED = "bundled"
EMBEDDINGS_HELP = f"files that distpert.read_embeddings reads, or {BUNDLED!r}: those that come with distpert"
CONTEXT_COLUMNS = ("context", "day", "bio_rep", "cell_type", "celltype", "cell_line")
SYMBOL_COLUMNS = ("gene_name", "gene_symbol", "gene_symbols", "symbol", "feature_name")
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(\.\d+)?")
ENHANCER = re.compile(r".*_enh|HS2(_.*)?")  # targets of Schraivogel et al. 2020 that are not genes
LARGEST_LOG = 15  # as in distpert.histograms.expression
BLOCK_CELLS = 5000


def open_embeddings(names: Sequence[str]) -> Embeddings:
    """Read files of embeddings, each as one source; "bundled" stands for the sources that come with distpert."""
    sources = [gene_embeddings() if name == BUNDLED else read_embeddings(name) for name in names]
    return as_embeddings(sources)


class Layout(NamedTuple):
    """Files of one origin: how to recognize them, and their columns of labels and of total counts."""

    name: str
    needs: tuple[str, ...]  # columns of obs
    label: str
    control: str
    totals: tuple[str, ...] = ()


LAYOUTS = (
    Layout("scPerturb release", ("perturbation", "nperts"), "perturbation", "control", ("ncounts",)),
    Layout("plain layout", ("perturbation",), "perturbation", "control", ("total_counts", "ncounts")),
    Layout("GEARS release", ("condition",), "condition", "ctrl"),
    Layout("Replogle et al. 2022, original", ("gene",), "gene", "non-targeting", ("UMI_count",)),
)


def open_screen(
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    context_key: str | None = AUTO,
    totals: str | None = AUTO,
    n_genes: int | None = None,
) -> tuple[ad.AnnData, dict[str, str | None]]:
    """Open a screen: log1p of counts per 10,000 in ``X``, symbols as ``var_names``, ``obs["perturbation"]``.

    Returns the cells, and the arguments with which distpert reads them. ``dataset`` chooses one data set of a file with
    several (``obs["dataset"]``). ``context_key`` and ``totals`` name the columns of ``obs`` with contexts and with the
    total counts of a cell. "auto" looks for the usual columns. With None there are no contexts, and the total of a cell
    is its sum over the genes in the file. ``n_genes`` keeps the genes of largest variance over all cells, and the
    perturbed genes that are measured. The file is read in blocks to save memory.
    """
    backed = ad.read_h5ad(path, backed="r")
    try:
        obs = backed.obs
        layout = _recognize(obs)
        notes = [layout.name]
        kept = _of_dataset(obs, dataset, notes)
        labels = _read_labels(obs[kept], layout, notes)
        targets_gene = ~_are_enhancers(labels, notes)
        kept[np.flatnonzero(kept)] = targets_gene
        obs, labels = obs[kept].copy(), labels[targets_gene]
        perturbed = {gene for label in set(labels.dropna()) - {"control"} for gene in genes_of(label)}
        context = _find_context(obs, context_key, notes)
        cells = _Cells(backed.X, kept, obs, _find_totals(obs, totals, layout), notes)
        columns, symbols = _choose_genes(backed.var, cells, perturbed, n_genes, notes)
        matrix = sparse.vstack([block[:, columns] for block in cells], format="csr")
        var = backed.var.iloc[columns].set_axis(symbols, axis=0)
    finally:
        backed.file.close()
    obs["perturbation"] = labels.astype("category")
    adata = ad.AnnData(matrix, obs=obs, var=var)
    pairs = sum("+" in label for label in labels.dropna().unique())
    print(
        f"{os.path.basename(path)}: {adata.n_obs:,} cells × {adata.n_vars:,} genes, {labels.nunique() - 1 - pairs} "
        f"single and {pairs} combined perturbations; {'; '.join(notes)}"
    )
    return adata, {"perturbation_key": "perturbation", "control": "control", "context_key": context}


def _recognize(obs: pd.DataFrame) -> Layout:
    for layout in LAYOUTS:
        if set(layout.needs) <= set(obs.columns):
            values = set(obs[layout.label].dropna().astype(str).unique())
            if layout.label == "perturbation" or layout.control in values:
                return layout
    raise ValueError(
        "unknown layout: expected obs['perturbation'], obs['condition'] with 'ctrl' (GEARS), or obs['gene'] with "
        f"'non-targeting' (Replogle); the columns of obs are: {listed(obs.columns, 40)}"
    )


def _of_dataset(obs: pd.DataFrame, dataset: str | None, notes: list[str]) -> np.ndarray:
    """Whether each cell belongs to the chosen data set."""
    there = sorted(obs["dataset"].astype(str).unique()) if "dataset" in obs else []
    if dataset is None and len(there) > 1:
        raise ValueError(f"the file has several data sets: pass dataset=, one of {listed(there)}")
    if dataset is None:
        return np.ones(len(obs), dtype=bool)
    if dataset not in there:
        raise ValueError(f"no data set {dataset!r} in obs['dataset']; there are: {listed(there)}")
    notes.append(f"data set {dataset!r} of {listed(there)}")
    return (obs["dataset"].astype(str) == dataset).to_numpy(copy=True)  # pandas 3 gives a view that is read-only


def _read_labels(obs: pd.DataFrame, layout: Layout, notes: list[str]) -> pd.Series:
    """Canonical labels, with "control"; missing ones stay missing."""
    found = obs[layout.label].astype(object).where(obs[layout.label].notna(), None)
    found = found.map(lambda label: str(label).strip() or None, na_action="ignore")
    if "nperts" in layout.needs:
        found = _join_pairs(found, obs["nperts"])
    control = resolve_control(layout.control, set(found.dropna()))
    notes.append(f"labels obs[{layout.label!r}], control {control!r}")
    names = {label: canonical_label(label, control) for label in found.dropna().unique()}
    return found.map({label: "control" if name == control else name for label, name in names.items()})


def _join_pairs(labels: pd.Series, n_perturbed: pd.Series) -> pd.Series:
    """Write combinations with "+". scPerturb joins genes with "_", which symbols may contain too."""
    n_perturbed = n_perturbed.astype(float)  # text or categories in some releases
    several = labels.notna() & (n_perturbed > 1)
    sizes = pd.DataFrame({"label": labels[several], "n": n_perturbed[several].astype(int)}).drop_duplicates()
    unclear = [label for label, n in sizes.itertuples(index=False) if len(label.split("_")) != n]
    if unclear:
        raise ValueError(f"obs['nperts'] does not fit the number of genes between '_' in {listed(unclear)}")
    joined = {label: label.replace("_", "+") for label in sizes["label"]}
    return labels.where(~several, labels.map(joined))


def _are_enhancers(labels: pd.Series, notes: list[str]) -> np.ndarray:
    names = [label for label in labels.dropna().unique() if ENHANCER.fullmatch(label)]
    if names:
        notes.append(f"left out {listed(sorted(names))}: enhancers, not genes")
    return labels.isin(names).to_numpy()


def _find_context(obs: pd.DataFrame, context_key: str | None, notes: list[str]) -> str | None:
    if context_key == AUTO:
        several = [name for name in CONTEXT_COLUMNS if name in obs and obs[name].nunique() > 1]
        if len(several) > 1:
            raise ValueError(f"which is the context, {listed(several)}? Pass context_key=, or None for no context")
        context_key = several[0] if several else None
    elif context_key is not None and context_key not in obs:
        raise ValueError(f"no column {context_key!r} in obs; there are: {listed(obs.columns, 40)}")
    values = [] if context_key is None else sorted(obs[context_key].dropna().astype(str).unique())
    notes.append(f"context obs[{context_key!r}]: {listed(values)}" if values else "no contexts")
    return context_key


def _find_totals(obs: pd.DataFrame, totals: str | None, layout: Layout) -> str | None:
    if totals == AUTO:
        return next((name for name in layout.totals if name in obs), None)
    if totals is not None and totals not in obs:
        raise ValueError(f"no column {totals!r} in obs; there are: {listed(obs.columns, 40)}")
    return totals


class _Cells:
    """Log-normalized expression of the kept cells, block by block from the file."""

    def __init__(self, matrix, kept: np.ndarray, obs: pd.DataFrame, totals: str | None, notes: list[str]) -> None:
        if matrix is None:
            raise ValueError("X of this file is empty")
        self.matrix = matrix.to_memory().tocsr() if getattr(matrix, "format", "") == "csc" else matrix
        self.kept, self.column = kept, totals
        self.totals = None if totals is None else obs[totals].to_numpy(float)
        first = next(self._blocks(), None)
        if first is None or not first.nnz:
            raise ValueError("X has no values in its first cells")
        largest, integers = first.data.max(), (first.data == np.rint(first.data)).all()
        if first.data.min() < 0 or (integers and largest <= 1) or (not integers and largest > LARGEST_LOG):
            raise ValueError(
                f"X is neither raw counts nor log1p of normalized counts: values from {first.data.min():g} to "
                f"{largest:g}{', all integers' * bool(integers)}"
            )
        self.raw = bool(integers)
        whole = f"obs[{totals!r}]" if totals else "the genes in the file"
        counts = f"X raw counts, now log1p of counts per 10,000 of {whole}"
        notes.append(counts if self.raw else "X taken as log-normalized, as it is")

    def _blocks(self) -> Iterator[sparse.csr_matrix]:
        for start in range(0, len(self.kept), BLOCK_CELLS):
            rows = np.flatnonzero(self.kept[start : start + BLOCK_CELLS])
            if rows.size:
                yield sparse.csr_matrix(self.matrix[start : start + BLOCK_CELLS], dtype=np.float32)[rows]

    def __iter__(self) -> Iterator[sparse.csr_matrix]:
        start = 0
        for block in self._blocks():
            totals = None if self.totals is None else self.totals[start : start + block.shape[0]]
            start += block.shape[0]
            yield self._normalized(block, totals) if self.raw else block

    def _normalized(self, counts: sparse.csr_matrix, totals: np.ndarray | None) -> sparse.csr_matrix:
        sums = np.asarray(counts.sum(axis=1)).ravel()
        if totals is None:
            totals = sums
        elif not (sums <= totals + 0.5).all():
            raise ValueError(
                f"obs[{self.column!r}] is less than the sum of the counts in some cells: pass totals=, another "
                "column, or None to take that sum"
            )
        counts.data = np.log1p(counts.data * np.repeat(1e4 / np.maximum(totals, 1), np.diff(counts.indptr)))
        return counts.astype(np.float32)


def _choose_genes(
    var: pd.DataFrame, cells: _Cells, perturbed: set[str], n_genes: int | None, notes: list[str]
) -> tuple[np.ndarray, pd.Index]:
    """Columns to keep and their symbols: one column for each symbol, the most variable and the perturbed genes."""
    symbols = _read_symbols(var, notes)
    repeated = sorted(set(symbols[symbols.duplicated()]))
    kept = np.ones(len(symbols), dtype=bool)
    if repeated or n_genes is not None:
        mean, variance = _moments(cells)
        order = np.argsort(-mean, kind="stable")
        kept[order] = ~symbols[order].duplicated()
        if repeated:
            notes.append(f"of columns with the same symbol the one of largest mean kept: {listed(repeated)}")
    if n_genes is not None:
        ranked = np.flatnonzero(kept)[np.argsort(-variance[kept], kind="stable")]
        chosen = np.zeros(len(symbols), dtype=bool)
        chosen[ranked[:n_genes]] = True
        also = kept & symbols.isin(perturbed) & ~chosen
        notes.append(f"{chosen.sum():,} genes of largest variance and {also.sum():,} more that are perturbed")
        kept = chosen | also
    return np.flatnonzero(kept), symbols[kept]


def _read_symbols(var: pd.DataFrame, notes: list[str]) -> pd.Index:
    names = pd.Series(var.index.astype(str))
    if names.map(lambda name: bool(ENSEMBL.fullmatch(name))).mean() < 0.5:
        notes.append("gene symbols var_names")
        return pd.Index(names)
    column = next((name for name in SYMBOL_COLUMNS if name in var), None)
    if column is None:
        raise ValueError(
            f"var_names are Ensembl identifiers, and no column of var has symbols ({listed(SYMBOL_COLUMNS)}); the "
            f"columns are: {listed(var.columns, 40)}"
        )
    found = pd.Series(var[column].astype(object).to_numpy())
    missing = found.isna() | (found.astype(str).str.strip() == "")
    notes.append(f"gene symbols var[{column!r}]" + f", {missing.sum()} missing: identifier kept" * bool(missing.any()))
    return pd.Index(found.where(~missing, names).astype(str))


def _moments(cells: _Cells) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every gene."""
    n, total, squares = 0, 0.0, 0.0
    for block in cells:
        n += block.shape[0]
        total = total + np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
        squares = squares + np.asarray(block.power(2).sum(axis=0, dtype=np.float64)).ravel()
    return total / n, squares / n - (total / n) ** 2
