"""The edge to AnnData: read a perturbation screen and refuse, by name, what cannot be modelled."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert.labels import canonical_label, genes_of, listed, looks_unperturbed, resolve_control

if TYPE_CHECKING:
    from anndata import AnnData

# log1p of counts per 10,000 is at most log1p(1e4) = 9.2, of counts per million 13.8.
LARGEST_LOG_VALUE = 15
CHUNK_VALUES = 2**17
MISSING_AS_TEXT = {"nan", "NaN", "None", "<NA>", "NA"}


@dataclass(frozen=True, eq=False)
class Screen:
    """A perturbation screen that has been checked.

    Attributes
    ----------
    matrix
        Expression, cells × genes: ndarray, CSR or CSC; finite, not negative, without duplicate entries.
    genes
        Gene symbols, one a column.
    perturbation
        Canonical label of each cell, shape (cell,); "" for cells without a label, which are left out.
    context
        Context of each cell, shape (cell,); "all" throughout where there is no context key.
    control
        Label of the control cells.
    context_key
        Column of ``adata.obs`` that holds the context.
    columns
        Names by which the rest was found in the AnnData, "" for those not given.
    """

    matrix: Any
    genes: tuple[str, ...]
    perturbation: NDArray[np.str_]
    context: NDArray[np.str_]
    control: str
    context_key: str | None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        n_labelled = int((self.perturbation != "").sum())
        return (
            f"Screen: {n_labelled:,} labelled cells of {len(self.perturbation):,}, {len(self.genes):,} "
            f"genes, control {self.control!r}, context key {self.context_key!r}"
        )


def read_screen(
    adata: AnnData,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    context_key: str | None = None,
    layer: str | None = None,
    gene_symbols: str | None = None,
    fallback_control: str | None = None,
) -> Screen:
    """Read and check a perturbation screen.

    Parameters
    ----------
    adata
        Cells × genes; log1p of counts per 10,000 in ``X`` or in `layer`.
    perturbation_key
        Column of ``adata.obs`` with the perturbation of each cell: ``A``, ``A+B``, ``A+ctrl`` or the control
        label. Cells without a label are left out, with a warning.
    control
        Label of the control cells. One of the usual three (``control``, ``ctrl``, ``non-targeting``) stands
        for whichever single one of them is there.
    context_key
        Column of ``adata.obs`` with a context to compare within: day, batch, cell line.
    layer
        Layer to read in place of ``X``.
    gene_symbols
        Column of ``adata.var`` with gene symbols, in place of ``adata.var_names``.
    fallback_control
        Label of the control cells in case none is labelled `control`. Given for held-out cells, which may
        then come without control cells.

    Returns
    -------
    Screen
        The matrix is not copied (one with duplicate or unsorted entries is, to put them right).

    Raises
    ------
    TypeError
        If `adata` is no AnnData, `control` no text, or its matrix neither a numpy array nor CSR or CSC.
    KeyError
        If a column or layer is unknown.
    ValueError
        If the data cannot be used: backed on disk, no genes, duplicate or missing gene symbols, no control
        cells, a label that is the text of a missing value (``nan``) or names a gene twice (``A+A``), a labelled cell
        without context or with one that is such a text, a value that is negative or not finite.

    Warns
    -----
    UserWarning
        For cells without a label, for labels that look like those of controls or of unassigned cells, for a single
        control cell in a context, and for values that are not log-normalised.
    """
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise TypeError(f"expected an anndata.AnnData of cells by genes, got {type(adata).__name__}")
    if adata.isbacked:
        raise ValueError("this AnnData is backed by its file: read it into memory first, adata.to_memory()")
    if not isinstance(control, str):
        raise TypeError(f"labels are read as text, and so is that of the control cells: give control={str(control)!r}")
    genes = _read_genes(adata, gene_symbols)
    perturbation, control = _read_perturbations(adata, perturbation_key, control, fallback_control)
    unlabelled = int((perturbation == "").sum())
    if unlabelled:
        warnings.warn(
            f"{unlabelled:,} of {len(perturbation):,} cells have no label in adata.obs[{perturbation_key!r}] "
            "and are left out; a missing label never counts as control",
            UserWarning,
            stacklevel=3,
        )
    if others := _like_controls(perturbation, control):
        warnings.warn(
            f"adata.obs[{perturbation_key!r}] has cells labelled {listed(others)} besides those of the control "
            f"{control!r}: they are taken as perturbed. Where they name the control, write it {control!r} too; "
            "where not, leave them out",
            UserWarning,
            stacklevel=3,
        )
    context = _read_contexts(adata, context_key, perturbation != "")
    if fallback_control is None:
        is_control = perturbation == control
        there, n_controls = np.unique(context[is_control], return_counts=True)
        if without := set(context[~is_control & (perturbation != "")]) - set(there):
            raise ValueError(
                f"no control cells in these contexts of adata.obs[{context_key!r}]: "
                f"{listed(sorted(without))}. Perturbed cells are compared with control cells of "
                "their own context: leave these contexts out, or use a coarser context_key"
            )
        if few := there[n_controls < 2].tolist():
            where = f" in these contexts of adata.obs[{context_key!r}]: {listed(few)}" if context_key else ""
            warnings.warn(
                f"only 1 control cell{where}; perturbed cells are compared with control cells, and one tells little",
                UserWarning,
                stacklevel=3,
            )
    source = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"no layer {layer!r} in adata.layers; there are: {listed(filter(None, adata.layers))}")
    matrix = _as_matrix(adata.X if layer is None else adata.layers[layer], source)
    not_log = _check_values(matrix, genes, source)
    if not_log:
        warnings.warn(not_log, UserWarning, stacklevel=3)
    columns = {"perturbation_key": perturbation_key, "layer": layer or "", "gene_symbols": gene_symbols or ""}
    return Screen(matrix, genes, perturbation, context, control, context_key, columns)


def _like_controls(perturbation: NDArray[np.str_], control: str) -> list[str]:
    """Labels, one of whose parts is a usual name of cells without a perturbation, or this control's in other case."""

    def is_one(part: str) -> bool:
        return looks_unperturbed(part) or part.casefold() == control.casefold()

    return sorted(label for label in set(perturbation.tolist()) - {control} if any(map(is_one, genes_of(label))))


def _column(table: Any, name: str, what: str) -> Any:
    if name not in table.columns:
        raise KeyError(f"no column {name!r} in {what}; there are: {listed(table.columns)}")
    return table[name]


def _read_genes(adata: AnnData, gene_symbols: str | None) -> tuple[str, ...]:
    import pandas as pd

    if gene_symbols is None:
        names, where = pd.Series(adata.var_names), "adata.var_names"
        way_out = "make them unique with adata.var_names_make_unique()"
    else:
        names, where = _column(adata.var, gene_symbols, "adata.var"), f"adata.var[{gene_symbols!r}]"
        way_out = "keep one column a symbol, or use adata.var_names after adata.var_names_make_unique()"
    if not len(names):
        raise ValueError("adata has no genes")
    if names.isna().any():
        lacking = listed(adata.var_names[names.isna().to_numpy()])
        n_lacking = f"{names.isna().sum():,} genes have no symbol in {where}"
        raise ValueError(f"{n_lacking} ({lacking}): fill them or leave them out")
    names = names.astype(str)
    duplicated = sorted(set(names[names.duplicated()]))
    if duplicated:
        raise ValueError(f"duplicated gene symbols in {where}: {listed(duplicated)}; {way_out}")
    return tuple(names)


def _strings(column: Any) -> tuple[NDArray[np.intp], list[str]]:
    """Codes of the cells, -1 where the value is missing, and the values as text."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return codes, [str(value).strip() for value in values]


def _read_perturbations(
    adata: AnnData, key: str, control: str, fallback_control: str | None
) -> tuple[NDArray[np.str_], str]:
    codes, labels = _strings(_column(adata.obs, key, "adata.obs"))
    present = {label for label in labels if label}
    try:
        control = resolve_control(control, present)
    except ValueError:
        if fallback_control is None:
            raise
        control = fallback_control
    if texts := [label for label in labels if (MISSING_AS_TEXT - {control}).intersection(genes_of(label))]:
        raise ValueError(
            f"adata.obs[{key!r}] has the label {listed(map(repr, texts))}, which astype(str), or R, makes of a "
            "missing value. A missing label is neither a perturbation nor a control: leave these cells out, or use "
            ".astype('string') instead, which keeps it missing"
        )
    canonical = [canonical_label(label, control) for label in labels]
    return np.array([*canonical, ""])[codes], control  # code -1 takes the last


def _read_contexts(adata: AnnData, key: str | None, labelled: NDArray[np.bool_]) -> NDArray[np.str_]:
    if key is None:
        return np.full(adata.n_obs, "all")
    codes, names = _strings(_column(adata.obs, key, "adata.obs"))
    context = np.array([*names, ""])[codes]
    missing = int((labelled & (context == "")).sum())
    if missing:
        raise ValueError(
            f"{missing:,} labelled cells have no context in adata.obs[{key!r}]: fill it in, or leave the cells out"
        )
    if texts := sorted(MISSING_AS_TEXT.intersection(context[labelled].tolist())):
        raise ValueError(
            f"adata.obs[{key!r}] has the context {listed(map(repr, texts))}, which astype(str), or R, makes of a "
            "missing value: fill it in, leave the cells out, or use .astype('string') instead, which keeps it missing"
        )
    return context


def _as_matrix(matrix: Any, source: str) -> Any:
    """Check layout and type of a matrix without copying it."""
    from scipy.sparse import issparse

    if matrix is None:
        raise ValueError(f"{source} is empty: pass layer= to read the expression from a layer")
    if issparse(matrix) and matrix.format in ("csr", "csc"):
        if not matrix.has_canonical_format:  # duplicate entries would be counted as cells of their own
            matrix = matrix.copy()
            matrix.sum_duplicates()
    elif isinstance(matrix, np.ndarray) and not isinstance(matrix, np.ma.MaskedArray):
        matrix = np.asarray(matrix)
    else:
        raise TypeError(
            f"{source} is a {type(matrix).__name__}: it must be a numpy array or a scipy.sparse CSR or CSC "
            "matrix in memory; convert it with .toarray() or scipy.sparse.csr_matrix()"
        )
    if matrix.dtype.kind not in "fiub" or matrix.dtype.itemsize > 8:
        raise TypeError(f"{source} has dtype {matrix.dtype}: convert it to float32 or float64")
    return matrix


def _check_values(matrix: Any, genes: tuple[str, ...], source: str) -> str:
    """Refuse values that are no expression; what to say of values that are not log-normalised, if so."""
    values = matrix if isinstance(matrix, np.ndarray) else matrix.data[: matrix.nnz]
    smallest, largest = values.min(initial=0), values.max(initial=0)  # NaN comes through both
    if not (smallest >= 0 and np.isfinite(largest)):
        what, wrong, way_out = "not finite", ~np.isfinite(values), ""
        if not wrong.any():
            what, wrong, way_out = "negative", values < 0, ". If they were scaled, take those from before: layer="
        raise ValueError(
            f"{source} has {wrong.sum():,} {what} values, which no log-normalised expression is; the first "
            f"is of gene {_gene_of_first(matrix, wrong, genes)!r}{way_out}"
        )
    if largest <= 1:  # binary data say nothing of their scale
        return ""
    integers = all((chunk == np.rint(chunk)).all() for chunk in _chunks(values))  # ends at the first that has others
    if largest <= LARGEST_LOG_VALUE and not integers:
        return ""
    look = "look like raw counts" if integers else "are no logarithms"
    return (
        f"values of {source} reach {largest:g} and {look}: log1p of counts per 10,000 is expected. Normalise "
        "with scanpy.pp.normalize_total(adata, target_sum=1e4) and scanpy.pp.log1p(adata)"
    )


def _gene_of_first(matrix: Any, wrong: NDArray[np.bool_], genes: tuple[str, ...]) -> str:
    if isinstance(matrix, np.ndarray):
        return genes[int(np.argwhere(wrong)[0, 1])]
    first = int(np.flatnonzero(wrong)[0])
    if matrix.format == "csc":
        return genes[int(np.searchsorted(matrix.indptr, first, side="right")) - 1]
    return genes[int(matrix.indices[first])]


def _chunks(values: NDArray[Any]) -> Any:
    step = max(1, CHUNK_VALUES * len(values) // max(1, values.size))
    return (values[start : start + step] for start in range(0, len(values), step))
