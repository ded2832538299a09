"""Read a perturbation screen from an AnnData, and refuse data that cannot be modeled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import (
    canonical_label,
    genes_of,
    is_usual_control,
    label_text,
    listed,
    looks_unperturbed,
    resolve_control,
)
from distpert.histograms.binning import gene_ranges
from distpert.histograms.expression import check_values, describe_scale
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.opening import ScreenSource, open_cells
from distpert.histograms.progress import counting_bar

if TYPE_CHECKING:
    import pandas as pd

MISSING_AS_TEXT = {"nan", "NaN", "None", "<NA>", "NA"}


@dataclass(frozen=True, eq=False)
class Screen:
    """A perturbation screen, read and checked.

    Attributes
    ----------
    matrix : ndarray, CSR, CSC or Stream
        Expression, cells × genes; finite, not negative, without duplicate entries.
    genes : tuple of str
        Gene symbols of the columns.
    perturbation : ndarray, shape (cell,)
        Canonical label of each cell; "" for cells without a label, which do not count.
    context : ndarray, shape (cell,)
        Context of each cell; "all" if there is no context key.
    names : Index, length cells
        Names of the cells.
    keys : ScreenKeys
        The names by which the screen was read. ``keys.control`` is the label of the control cells.
    ranges : tuple of ndarray
        Smallest and largest value of each gene (gene,), over the cells with a label.
    """

    matrix: Any
    genes: tuple[str, ...]
    perturbation: NDArray[np.str_]
    context: NDArray[np.str_]
    names: pd.Index
    keys: ScreenKeys
    ranges: tuple[NDArray[np.floating], NDArray[np.floating]]

    @property
    def control(self) -> str:
        """Label of the control cells."""
        return self.keys.control

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Sorted labels of the perturbations, without the control."""
        return tuple(sorted(set(self.perturbation.tolist()) - {"", self.control}))

    def __repr__(self) -> str:
        n_labeled = int((self.perturbation != "").sum())
        return (
            f"Screen: {n_labeled:,} labeled cells of {len(self.perturbation):,}, {len(self.genes):,} genes, control "
            f"{self.control!r}, context key {self.keys.context_key!r}"
        )


def read_screen(
    adata: ScreenSource,
    keys: ScreenKeys,
    *,
    fallback_control: str | None = None,
    before_values: Callable[[tuple[str, ...], tuple[str, ...]], object] | None = None,
    progress_bar: bool = False,
) -> Screen:
    """Read and check a perturbation screen.

    Parameters
    ----------
    adata
        Cells × genes; log1p of counts per 10,000 in ``X`` or in the layer. An AnnData, in memory, backed or lazy; the
        path of an h5ad file or a zarr store; or a list of these.
    keys
        Names of columns, and the control label. Labels are ``A``, ``A+B``, ``A+ctrl`` or the control label. Cells
        without a label are left out, with a warning. One of the usual control labels (``control``, ``ctrl``,
        ``non-targeting``, upper or lower case) also stands for another one of them, if that is the only one in the
        data.
    fallback_control
        Label of the control cells if no cell has the label ``keys.control``. For held-out cells, among which there may
        be no control cells.
    before_values
        Function of the perturbations and the genes. It is called before expression is read, which can take long, and
        may raise.
    progress_bar
        Whether to show progress.

    Returns
    -------
    Screen
        The matrix is not copied, unless duplicate or unsorted entries need a correction.

    Raises
    ------
    TypeError
        If `adata` is something else, the control is not one label, or the matrix has another layout.
    KeyError
        If a column or layer is unknown.
    ValueError
        If the data cannot be used: no genes, duplicate or missing gene symbols, no control cells, a label that is the
        text of a missing value (``nan``) or names a gene twice (``A+A``), a labeled cell without context or with such a
        text as context, a value that is negative or not finite.

    Warns
    -----
    UserWarning
        For cells without a label, labels that look like those of control or unassigned cells, a single control cell in
        a context, and values that do not look like log1p of normalized counts.
    """
    cells = open_cells(adata)
    _check_control(keys)
    genes = _read_genes(cells.var, keys.gene_symbols)
    perturbation, control = _read_perturbations(cells.obs, keys, fallback_control)
    keys = replace(keys, control=control)
    is_labeled = perturbation != ""
    if n_unlabeled := int((~is_labeled).sum()):
        warnings.warn(
            f"{n_unlabeled:,} of {len(perturbation):,} cells have no label in adata.obs[{keys.perturbation_key!r}] "
            "and are left out. A missing label never counts as control",
            UserWarning,
            stacklevel=3,
        )
    if others := _like_controls(perturbation, control):
        warnings.warn(
            f"adata.obs[{keys.perturbation_key!r}] has cells labeled {listed(others)} besides the control {control!r}. "
            f"They count as perturbed. If they are controls, relabel them {control!r}; if not, leave them out",
            UserWarning,
            stacklevel=3,
        )
    context = _read_contexts(cells.obs, keys.context_key, is_labeled)
    if fallback_control is None:
        _check_control_cells(perturbation, context, keys)
    matrix, source = cells.matrix(keys.layer), cells.source(keys.layer)
    if before_values is not None:
        before_values(tuple(sorted(set(perturbation.tolist()) - {"", control})), genes)
    check = partial(check_values, genes=genes, source=source, raw_values=keys.layer is None and cells.has_raw)
    with counting_bar(matrix, "looking for ranges", progress_bar) as advance:
        low, high = gene_ranges(matrix, is_labeled, check=check, progress=advance)
    if unexpected := describe_scale(matrix, is_labeled, float(high.max(initial=0))):
        warnings.warn(
            f"values of {source} {unexpected}; log1p of counts per 10,000 is expected. "
            + _normalization(keys.layer, unexpected),
            UserWarning,
            stacklevel=3,
        )
    return Screen(matrix, genes, perturbation, context, cells.obs.index, keys, (low, high))


def _normalization(layer: str | None, unexpected: str) -> str:
    """Return how to normalize counts without a change to other layers; `unexpected` is from `describe_scale`."""
    if layer is None:
        return "To normalize counts: scanpy.pp.normalize_total(adata, target_sum=1e4) and scanpy.pp.log1p(adata)"
    has_counts = unexpected.startswith("reach") or "not logged" in unexpected
    counts = layer if has_counts else "counts"
    return (
        f"To normalize counts: adata.layers['log1p'] = adata.layers[{counts!r}].copy(), then "
        "scanpy.pp.normalize_total(adata, target_sum=1e4, layer='log1p') and scanpy.pp.log1p(adata, layer='log1p'). "
        "Then pass layer='log1p'"
    )


def _check_control(keys: ScreenKeys) -> None:
    """Refuse a control that is not one text."""
    control: Any = keys.control
    if isinstance(control, str):
        return
    column = f"adata.obs[{keys.perturbation_key!r}]"
    if isinstance(control, list | tuple | set | frozenset | np.ndarray) and len(control):
        names = sorted(map(label_text, control))
        one = next(filter(is_usual_control, names), names[0])
        relabel = [name for name in names if name != one]
        cells = f"{column} = {column}.astype('string').replace({relabel!r}, {one!r}), and pass control={one!r}"
        raise TypeError(
            f"control must be one label, a str, not a {type(control).__name__} of {len(names)} ({listed(names)}). "
            + (f"Label all control cells alike: {cells}" if relabel else f"Pass control={one!r}")
        )
    example = f": control={label_text(control)!r}" if isinstance(control, Real) else ""
    raise TypeError(f"control must be the label of the control cells in {column}, a str{example}; got {control!r}")


def _check_control_cells(perturbation: NDArray[np.str_], context: NDArray[np.str_], keys: ScreenKeys) -> None:
    """Refuse contexts without control cells, and warn of contexts with a single one."""
    is_control, key = perturbation == keys.control, keys.context_key
    there, n_controls = np.unique(context[is_control], return_counts=True)
    if without := set(context[~is_control & (perturbation != "")]) - set(there):
        raise ValueError(
            f"no control cells in these contexts of adata.obs[{key!r}]: {listed(sorted(without))}. Perturbed cells are "
            "compared with control cells of their own context. Leave these contexts out, or use a coarser context_key"
        )
    if few := there[n_controls < 2].tolist():
        where = f" in these contexts of adata.obs[{key!r}]: {listed(few)}" if key else ""
        warnings.warn(
            f"only 1 control cell{where}. Perturbed cells are compared with control cells, and 1 cell is too few for "
            "that. Add control cells",
            UserWarning,
            stacklevel=4,
        )


def _like_controls(perturbation: NDArray[np.str_], control: str) -> list[str]:
    """Return labels of which a part is a usual name of unperturbed cells, or the control label in another case."""

    def is_one(part: str) -> bool:
        return looks_unperturbed(part) or part.casefold() == control.casefold()

    return sorted(label for label in set(perturbation.tolist()) - {control} if any(map(is_one, genes_of(label))))


def _column(table: Any, name: str, what: str) -> Any:
    if name not in table.columns:
        raise KeyError(f"no column {name!r} in {what}; there are: {listed(table.columns)}")
    return table[name]


def _read_genes(var: pd.DataFrame, gene_symbols: str | None) -> tuple[str, ...]:
    import pandas as pd

    if gene_symbols is None:
        names, where = pd.Series(var.index), "adata.var_names"
        way_out = "Make them unique with adata.var_names_make_unique()"
    else:
        names, where = _column(var, gene_symbols, "adata.var"), f"adata.var[{gene_symbols!r}]"
        way_out = "Keep one column for each symbol, or use adata.var_names after adata.var_names_make_unique()"
    if not len(names):
        raise ValueError("adata has no genes. Pass cells × genes with at least one gene")
    if names.isna().any():
        lacking = listed(var.index[names.isna().to_numpy()])
        n_lacking = f"{names.isna().sum():,} genes have no symbol in {where}"
        raise ValueError(f"{n_lacking} ({lacking}). Fill them in, or leave these genes out")
    names = names.astype(str)
    duplicated = sorted(set(names[names.duplicated()]))
    if duplicated:
        raise ValueError(f"duplicated gene symbols in {where}: {listed(duplicated)}. {way_out}")
    return tuple(names)


def _texts(column: Any) -> tuple[NDArray[np.intp], list[str]]:
    """Return the codes of the cells, −1 for a missing value, and the values as text."""
    import pandas as pd

    codes, values = pd.factorize(column)
    return codes, [label_text(value) for value in values]


def _read_perturbations(
    obs: pd.DataFrame, keys: ScreenKeys, fallback_control: str | None
) -> tuple[NDArray[np.str_], str]:
    key = keys.perturbation_key
    codes, labels = _texts(_column(obs, key, "adata.obs"))
    present = {label for label in labels if label}
    try:
        control = resolve_control(keys.control, present)
    except ValueError:
        if fallback_control is None:
            raise
        control = fallback_control
    if texts := [label for label in labels if (MISSING_AS_TEXT - {control}).intersection(genes_of(label))]:
        raise ValueError(
            f"adata.obs[{key!r}] has the label {listed(map(repr, texts))}, the text that astype(str) or R makes of a "
            "missing value. A missing label is neither a perturbation nor a control. Leave these cells out, or use "
            ".astype('string'), which keeps missing values"
        )
    canonical = [canonical_label(label, control) for label in labels]
    return np.array([*canonical, ""])[codes], control  # code −1 is the last


def _read_contexts(obs: pd.DataFrame, key: str | None, is_labeled: NDArray[np.bool_]) -> NDArray[np.str_]:
    if key is None:
        return np.full(len(obs), "all")
    codes, names = _texts(_column(obs, key, "adata.obs"))
    context = np.array([*names, ""])[codes]
    n_missing = int((is_labeled & (context == "")).sum())
    if n_missing:
        raise ValueError(
            f"{n_missing:,} labeled cells have no context in adata.obs[{key!r}]. Fill it in, or leave the cells out"
        )
    if texts := sorted(MISSING_AS_TEXT.intersection(context[is_labeled].tolist())):
        raise ValueError(
            f"adata.obs[{key!r}] has the context {listed(map(repr, texts))}, the text that astype(str) or R makes of a "
            "missing value. Fill it in, leave the cells out, or use .astype('string'), which keeps missing values"
        )
    return context
