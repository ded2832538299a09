"""Bin edges and counts for each group of cells, from a dense or sparse matrix.

Only the stored values of a sparse matrix are visited; its implicit zeros are counted by subtraction. Every layout, also
on disk or in Dask, is read as blocks of rows in CSR form, and one loop counts them all. It handles a block in chunks
with temporaries that fit in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.streams import Part, Stream, ahead, n_values, parts

BLOCK_VALUES = 2**25  # stored values of a block; bounds memory, 4 bytes each for slots and up to 24 for copies
CHUNK_VALUES = 2**17  # stored values of a chunk; keeps temporaries in the cache
# If a bin is narrower than this share of the value, the values differ only by rounding of float64, and the gene counts
# as constant. Edges would be too close to distinguish. float32 values that differ at all are further apart.
CONSTANT = 2.0**-40

Result = TypeVar("Result")


class Block(NamedTuple):
    """Some cells × some genes of a matrix in CSR form; `indices` count from the first gene of the matrix."""

    cells: slice
    genes: slice
    indptr: NDArray[np.integer]
    indices: NDArray[np.integer]
    data: NDArray[Any]


def bin_edges(low: NDArray[np.floating], high: NDArray[np.floating], n_bins: int) -> NDArray[np.float64]:
    """Compute edges of bins of equal width. The first and last center are the smallest and largest value of a gene.

    With B bins the width is w = (high − low) / (B − 1), and bin b covers low + (b ± ½) w. The bins span
    [low − ε, high + ε] with ε = w / 2 [1]_.

    Parameters
    ----------
    low, high
        Smallest and largest value (gene,).
    n_bins
        Number of bins B, at least 2.

    Returns
    -------
    ndarray
        Edges (gene, bin + 1). All edges of a constant gene are its value.

    References
    ----------
    .. [1] Ramakrishnan et al. 2025, arXiv:2507.02980.
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    width = (high - low) / (n_bins - 1)
    width[width <= CONSTANT * np.abs(high)] = 0
    return low[:, None] + (np.arange(n_bins + 1) - 0.5) * width[:, None]


def gene_ranges(
    matrix: Any,
    kept: NDArray[np.bool_],
    *,
    check: Callable[[Part], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Find the smallest and largest value of every gene.

    Parameters
    ----------
    matrix
        Non-negative values, cells × genes: ndarray, CSR or CSC without duplicate entries, or a stream.
    kept
        Which cells count (cell,).
    check
        Function that is called with each part first, and raises if it cannot be used.
    progress
        Function of a number of values, called when that many more have been read.

    Returns
    -------
    low, high : ndarray
        (gene,).
    """
    n_genes, dtype = matrix.shape[1], _float_type(matrix)
    low, high = np.full(n_genes, np.inf, dtype), np.zeros(n_genes, dtype)

    of_part = partial(_check_and_range, kept=kept, dtype=dtype, check=check)
    for _, genes, (lowest, highest, n_read) in _map_parts(matrix, of_part):
        np.minimum(low[genes], lowest, out=low[genes])
        np.maximum(high[genes], highest, out=high[genes])
        if progress is not None:
            progress(n_read)
    return low, high


def _check_and_range(
    part: Part, kept: NDArray[np.bool_], dtype: np.dtype[Any], check: Callable[[Part], object] | None
) -> tuple[NDArray[np.floating], NDArray[np.floating], int]:
    """Ranges (gene,) of a part, and its number of values. It may run on another machine."""
    if check is not None:
        check(part)
    return *_ranges(part.values, kept[part.cells], dtype), n_values(part.values)


def _ranges(
    matrix: Any, kept: NDArray[np.bool_], dtype: np.dtype[Any]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Ranges (gene,) of a matrix in memory; infinity and 0 if no cell is kept."""
    n_genes = matrix.shape[1]
    low, high = np.full(n_genes, np.inf, dtype), np.zeros(n_genes, dtype)
    if isinstance(matrix, np.ndarray):
        step = max(1, CHUNK_VALUES // n_genes)
        for start in range(0, len(matrix), step):
            values = matrix[start : start + step][kept[start : start + step]].astype(dtype, copy=False)
            np.minimum(low, values.min(axis=0, initial=np.inf), out=low)
            np.maximum(high, values.max(axis=0, initial=0), out=high)
        return low, high

    stored_always = np.ones(n_genes, dtype=bool)
    for block in _blocks(matrix):
        for cells, stored in _chunks(block.indptr):
            genes, x = block.indices[stored], block.data[stored]
            keep = kept[block.cells][cells]
            if not keep.all():
                entries = np.repeat(keep, np.diff(block.indptr[cells.start : cells.stop + 1]))
                genes, x = genes[entries], x[entries]
            _update(np.maximum, high, genes, x, x > high.take(genes))
            # Values are not negative: the minimum is 0 if one cell stores no value, as for most genes.
            if stored_always.any():
                everywhere = np.bincount(genes, minlength=n_genes) == keep.sum()
                stored_always[block.genes] &= everywhere[block.genes]
                _update(np.minimum, low, genes, x, stored_always.take(genes) & (x < low.take(genes)))
    low[~stored_always] = 0
    return low, high


def _map_parts(matrix: Any, function: Callable[[Part], Result]) -> Iterator[tuple[slice, slice, Result]]:
    if isinstance(matrix, Stream):
        yield from matrix.map_parts(function)
    else:
        for part in parts(matrix):
            yield part.cells, part.genes, function(part)


def count_bins(
    matrix: Any,
    group: NDArray[np.intp],
    edges: NDArray[np.float64],
    *,
    columns: NDArray[np.intp] | None = None,
    count_outside: bool = False,
    largest: int = 0,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """Count the cells of each group in each bin of each gene.

    Parameters
    ----------
    matrix
        Finite values, cells × genes: ndarray, CSR or CSC without duplicate entries, or a stream.
    group
        Group of each cell (cell,), from 0; −1 leaves a cell out.
    edges
        Equally spaced edges (gene, bin + 1), from `bin_edges`.
    columns
        Column of the matrix for each gene of `edges`; by default all columns in order.
    count_outside
        Whether to count values beyond the outer edges. They are in the end bins in either case.
    largest
        A number of cells that the type of the counts must hold, if it is more than that of any group.
    progress
        Function of a number of values, called when that many more have been binned.

    Returns
    -------
    counts : ndarray
        (group, gene, bin) numbers of cells, in the smallest unsigned type that holds the sizes of all groups.
    outside : ndarray
        (group, gene) numbers of cells beyond the outer edges.
    """
    n_genes, n_bins = edges.shape[0], edges.shape[1] - 1
    n_cells = np.bincount(group[group >= 0])
    dtype = np.min_scalar_type(max(largest, int(n_cells.max(initial=0))))
    counts = np.zeros((len(n_cells), n_genes, n_bins), dtype)
    outside = np.zeros((len(n_cells), n_genes), dtype)
    binning = _Binning(edges, _float_type(matrix))

    if isinstance(matrix, Stream) and matrix.is_remote:
        of_part = partial(_count_part, group=group, binning=binning, count_outside=count_outside)
        by_group = counts.reshape(len(n_cells), -1)
        for _, _, found in matrix.map_parts(of_part, columns):
            row, place = np.divmod(found.places, n_genes * n_bins)
            by_group[found.groups[row], place] += found.numbers
            outside[found.groups] += found.outside
            if progress is not None:
                progress(found.n_values)
    else:
        for block in _blocks(matrix, columns):
            _count_block(block, group[block.cells], binning, counts, outside if count_outside else None, progress)

    zeros, zero_bin = np.zeros(n_genes, binning.dtype), np.arange(n_genes)
    zero_slot = zero_bin * n_bins + binning.bin(zeros, zero_bin)
    zero_outside = binning.outside(zeros, zero_bin)
    for r, n in enumerate(n_cells):
        implicit = (n - np.einsum("gb->g", counts[r], dtype=np.int64, casting="safe")).astype(dtype)
        counts[r].reshape(-1)[zero_slot] += implicit
        if count_outside:
            outside[r] += implicit * zero_outside
    return counts, outside


def _count_block(
    block: Block,
    group: NDArray[np.intp],
    binning: _Binning,
    counts: NDArray[np.unsignedinteger],
    outside: NDArray[np.unsignedinteger] | None,
    progress: Callable[[int], object] | None,
) -> None:
    """Add the stored values of a block to the counts; ``group`` is that of its cells."""
    indptr, indices, data = block.indptr, block.indices, block.data
    one = counts.dtype.type(1)  # the type of the counts, for the fast path of add.at
    slot = np.empty(len(data), np.int32)  # index of (gene, bin) in the counts of a group
    for _, stored in _chunks(indptr):
        genes = indices[stored]
        if outside is not None:
            beyond = np.flatnonzero(binning.outside(data[stored], genes))
            r = group[np.searchsorted(indptr, beyond + stored.start, side="right") - 1]
            np.add.at(outside, (r[r >= 0], genes[beyond[r >= 0]]), one)
        np.multiply(genes, binning.n_bins, out=slot[stored])
        slot[stored] += binning.bin(data[stored], genes)
        if progress is not None:
            progress(len(genes))
    # One group at a time keeps its counts in the cache.
    order = np.argsort(group, kind="stable")
    order = order[group[order] >= 0]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for cells in np.split(order, starts[1:]) if len(order) else []:
        rows = map(slice, indptr[cells].tolist(), indptr[cells + 1].tolist())
        np.add.at(counts[group[cells[0]]].reshape(-1), np.concatenate([slot[row] for row in rows]), one)


class _Travelling(NamedTuple):
    """Counts of the stored values of a part, small enough to travel.

    Attributes
    ----------
    groups
        The groups that are present.
    places, numbers
        Places of their counts (group, gene, bin) that are not 0, and these counts.
    outside
        (group, gene) numbers beyond the outer edges.
    n_values
        Number of values.
    """

    groups: NDArray[np.intp]
    places: NDArray[np.intp]
    numbers: NDArray[np.unsignedinteger]
    outside: NDArray[np.unsignedinteger]
    n_values: int


def _count_part(part: Part, group: NDArray[np.intp], binning: _Binning, count_outside: bool) -> _Travelling:
    values, group = part.values, group[part.cells]
    present, of_cell = np.unique(group[group >= 0], return_inverse=True)
    compact = np.full(len(group), -1, np.intp)
    compact[group >= 0] = of_cell
    dtype = np.min_scalar_type(int(np.bincount(of_cell, minlength=1).max()))
    counts = np.zeros((len(present), len(binning.left), binning.n_bins), dtype)
    outside = np.zeros(counts.shape[:2], dtype)
    for block in _blocks(values):
        _count_block(block, compact[block.cells], binning, counts, outside if count_outside else None, None)
    places = np.flatnonzero(counts)
    return _Travelling(present, places, counts.reshape(-1)[places], outside, n_values(values))


class _Binning:
    """Finds the bin of a value: floor((x − low) / (high − low) · (B − 1) + ½), in the type of the data."""

    def __init__(self, edges: NDArray[np.float64], dtype: np.dtype[Any]) -> None:
        self.dtype, self.n_bins = dtype, edges.shape[1] - 1
        self.left, self.right = edges[:, 0].copy(), edges[:, -1].copy()
        width = (self.right - self.left) / self.n_bins
        low, span = (self.left + width / 2).astype(dtype), (width * (self.n_bins - 1)).astype(dtype)
        self.low = low if low.any() else None
        self.span = np.where(span > 0, span, dtype.type(np.inf))  # all cells of a constant gene are in bin 0

    def bin(self, x: NDArray[Any], genes: NDArray[np.integer]) -> NDArray[np.int32]:
        with np.errstate(over="ignore"):
            x = (x if self.low is None else x - self.low.take(genes)) / self.span.take(genes)
            x *= self.n_bins - 1
            x += self.dtype.type(0.5)
            np.clip(x, 0, self.n_bins - 1, out=x)
        return x.astype(np.int32)

    def outside(self, x: NDArray[Any], genes: NDArray[np.integer]) -> NDArray[np.bool_]:
        return (x < self.left.take(genes)) | (x > self.right.take(genes))


def _float_type(matrix: Any) -> np.dtype[Any]:
    return np.result_type(matrix.dtype, np.float32)


def _update(ufunc: np.ufunc, best: NDArray[Any], genes: NDArray[np.integer], x: NDArray[Any], better: Any) -> None:
    # Few values change the result. Finding them first is cheaper than ufunc.at with all values.
    better = np.flatnonzero(better)
    ufunc.at(best, genes[better], x[better].astype(best.dtype))


def _chunks(indptr: NDArray[Any]) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the rows of a block, of about `CHUNK_VALUES` values each, and slices of these values."""
    cuts = np.searchsorted(indptr, np.arange(0, indptr[-1], CHUNK_VALUES))
    rows = np.unique(np.concatenate([[0], cuts, [len(indptr) - 1]]))
    for start, stop in pairwise(rows.tolist()):
        yield slice(start, stop), slice(int(indptr[start]), int(indptr[stop]))


def _blocks(matrix: Any, columns: NDArray[np.intp] | None = None) -> Iterator[Block]:
    """Yield CSR blocks of a matrix, of about `BLOCK_VALUES` stored values or fewer; blocks of CSR are views."""
    if isinstance(matrix, Stream):
        for one in ahead(matrix.parts(columns)):
            first_cell, first_gene = one.cells.start, one.genes.start or 0
            for block in _blocks(one.values):
                cells = slice(first_cell + block.cells.start, first_cell + block.cells.stop)
                genes = slice(first_gene + (block.genes.start or 0), None)
                indices = block.indices + np.int32(first_gene) if first_gene else block.indices
                yield Block(cells, genes, block.indptr, indices, block.data)
        return
    n_cells, n_genes = matrix.shape[0], matrix.shape[1] if columns is None else len(columns)
    layout = getattr(matrix, "format", "dense")
    n_blocks = -(-(matrix.size if layout == "dense" else matrix.nnz) // BLOCK_VALUES)
    for start, stop in _cut(n_genes if layout == "csc" else n_cells, max(1, n_blocks)):
        part, everything = slice(start, stop), slice(None)
        if layout == "csc":
            values = matrix[:, part if columns is None else columns[part]].tocsr()
            yield Block(slice(0, n_cells), part, values.indptr, values.indices + np.int32(start), values.data)
        elif layout == "dense":
            values = matrix[part] if columns is None else matrix[part][:, columns]
            indptr = np.arange(stop - start + 1) * n_genes
            indices = np.tile(np.arange(n_genes, dtype=np.int32), stop - start)
            yield Block(part, everything, indptr, indices, values.ravel())
        elif columns is None:
            indptr = matrix.indptr[start : stop + 1]
            stored = slice(indptr[0], indptr[-1])
            yield Block(part, everything, indptr - indptr[0], matrix.indices[stored], matrix.data[stored])
        else:
            values = matrix[part][:, columns]
            yield Block(part, everything, values.indptr, values.indices, values.data)


def _cut(n: int, n_parts: int) -> Iterator[tuple[int, int]]:
    bounds = np.unique(np.linspace(0, n, n_parts + 1).astype(int)).tolist()
    return pairwise(bounds)
