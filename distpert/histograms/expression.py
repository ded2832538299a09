"""Checks of the expression matrix of a screen: its layout, its values and their scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.streams import Part, as_stream, dense, parts, take_rows

# log1p of counts per 10,000 is at most log1p(1e4) = 9.2, of counts per million 13.8.
LARGEST_LOG_VALUE = 15
CHUNK_VALUES = 2**17
CELLS_LOOKED_AT = 200  # cells in which whole multiples are sought
LARGEST_MULTIPLE = 50  # rounding in single precision hides larger whole multiples
NEAR_WHOLE = 0.01
FEWEST_MULTIPLES = 50  # with fewer values, the share of whole multiples is too uncertain
SHARE_OF_COUNTS = 0.9  # at this share of whole multiples or more, values come from counts
_FACTORS = (0.05, 1e4)  # of counts before the first logarithm; below, two logarithms are nearly one
DEPTH_VARIES = 0.25  # above this coefficient of variation of the depth of cells, counts were not normalized


def check_matrix(matrix: Any, source: str) -> Any:
    """Return a matrix in a layout that can be counted, if possible without a copy.

    Parameters
    ----------
    matrix
        Cells × genes, from an AnnData.
    source
        Where it is from, for errors.

    Returns
    -------
    ndarray, CSR, CSC or Stream
        A sparse matrix with unsorted or duplicate entries is copied, and the copy corrected. A matrix on disk or in
        Dask becomes a stream.

    Raises
    ------
    ValueError
        If there is no matrix.
    TypeError
        If it has another layout, or values that are not real numbers.
    """
    from scipy.sparse import issparse

    if matrix is None:
        raise ValueError(f"{source} is empty. Pass layer= to read the expression from a layer")
    if (stream := as_stream(matrix)) is not None:
        matrix = stream
    elif issparse(matrix) and matrix.format in ("csr", "csc"):
        if not matrix.has_canonical_format:  # duplicate entries would be counted as separate cells
            matrix = matrix.copy()
            matrix.sum_duplicates()
    elif isinstance(matrix, np.ndarray) and not isinstance(matrix, np.ma.MaskedArray):
        matrix = np.asarray(matrix)
    else:
        raise TypeError(
            f"{source} is a {type(matrix).__name__}. It must be a numpy array, a scipy.sparse CSR or CSC matrix, or "
            f"such a matrix on disk or in Dask: {source} = {_conversion(matrix, source)}"
        )
    if matrix.dtype.kind not in "fiub" or matrix.dtype.itemsize > 8:
        raise TypeError(f"{source} has dtype {matrix.dtype}. Convert it: {source} = {source}.astype('float32')")
    return matrix


def _conversion(matrix: Any, source: str) -> str:
    """Return code that converts a matrix, with a method that it has."""
    if isinstance(matrix, np.ma.MaskedArray):
        return f"{source}.filled(0)"
    for method in ("tocsr", "compute", "to_memory", "toarray", "to_numpy"):
        if hasattr(matrix, method):
            return f"{source}.{method}()"
    return f"numpy.asarray({source})"


def check_values(part: Part, genes: tuple[str, ...], source: str, raw_values: bool = False) -> None:
    """Refuse values that cannot be log-normalized expression.

    Parameters
    ----------
    part
        Some cells and genes.
    genes
        Symbols of all genes.
    source
        Where the matrix is from, for errors.
    raw_values
        Whether ``adata.raw`` has unscaled values.

    Raises
    ------
    ValueError
        If a value is negative or not finite. The message names the first such gene of the part.
    """
    matrix, values = part.values, stored_values(part.values)
    smallest, largest = values.min(initial=0), values.max(initial=0)  # a NaN makes both NaN
    if smallest >= 0 and np.isfinite(largest):
        return
    what, wrong, way_out = "not finite", ~np.isfinite(values), ""
    if not wrong.any():
        what, wrong = "negative", values < 0
        way_out = (
            ". If they were scaled, use the unscaled values: adata = adata.raw.to_adata()"
            if raw_values
            else ". If they were scaled, use the unscaled values, for instance those of a layer, with layer="
        )
    where = f" in cells {part.cells.start:,} to {part.cells.stop - 1:,}" if part.cells.start else ""
    raise ValueError(
        f"{source} has {wrong.sum():,} {what} values{where}, which log-normalized expression cannot have; the first is "
        f"of gene {_gene_of_first(matrix, wrong, genes[part.genes])!r}{way_out}"
    )


class _Scale(NamedTuple):
    """A scale of expression: its name, and the function from values to counts."""

    name: str
    to_counts: Callable[[NDArray[np.float64]], NDArray[np.float64]]


# In the order in which they are tried. The first is the expected one.
_SCALES = (
    _Scale("log1p of normalized counts", np.expm1),
    _Scale("log1p taken twice", lambda x: np.expm1(np.expm1(x))),
    _Scale("counts that are not logged", lambda x: x),
    _Scale("square roots of counts", np.square),
    _Scale("log2 of counts, where the natural logarithm is expected", lambda x: np.exp2(x) - 1),
    _Scale("log10 of counts, where the natural logarithm is expected", lambda x: 10**x - 1),
)


def describe_scale(matrix: Any, kept: NDArray[np.bool_], largest: float | None = None) -> str:
    r"""Return what is unexpected about the scale of the values, "" if nothing is.

    If x is log1p of normalized counts, the values of expm1(x) of one cell are whole multiples of the smallest one. Most
    values then satisfy

    .. math:: \frac{T(x_{ig})}{\min_{g'} T(x_{ig'})} \in \{1, 2, 3, \ldots\}

    with T = expm1. Another T that fits in its place shows another scale: expm1 twice (logged twice), the identity, the
    square, or a power of another base. If the values of T are whole numbers and cells differ in depth, the counts were
    not normalized. If no T fits (imputed or corrected values), the scale remains unknown.

    Parameters
    ----------
    matrix
        As returned by `check_matrix`; finite, not negative.
    kept
        Which cells to look at (cell,).
    largest
        The largest value, if it is known.

    Returns
    -------
    str
        A clause about the values, such as ``reach 137 and look like raw counts``.
    """
    if largest is None:
        largest = max(stored_values(part.values).max(initial=0) for part in parts(matrix))
    if largest <= 1:  # the scale of binary data is unknown
        return ""
    chunks = (chunk for part in parts(matrix) for chunk in _chunks(stored_values(part.values)))
    if all((chunk == np.rint(chunk)).all() for chunk in chunks):  # stops at the first chunk with other values
        return f"reach {largest:g} and look like raw counts"
    if largest > LARGEST_LOG_VALUE:
        return f"reach {largest:g} and are not logarithms"
    cells = _some_cells(matrix, kept)
    for scale in _SCALES:
        multiples = _multiples(cells, scale.to_counts)
        if multiples.size < FEWEST_MULTIPLES or _share_whole(multiples) < SHARE_OF_COUNTS:
            continue
        if scale is not _SCALES[0]:
            return f"look like {scale.name}"
        counts = np.expm1(cells)
        if _share_whole(counts[counts > 0]) > SHARE_OF_COUNTS and _variation_of_depth(counts) > DEPTH_VARIES:
            return "look like log1p of counts that were not normalized"
        return ""
    multiples = np.concatenate([np.empty(0), *map(_multiples_before_two_logs, cells)])
    if multiples.size >= FEWEST_MULTIPLES and _share_whole(multiples) >= SHARE_OF_COUNTS:
        return "look like log1p of normalized counts that was normalized and logged again"
    return ""


def stored_values(matrix: Any) -> NDArray[Any]:
    """Return all values of a dense matrix, or the stored values of a sparse one."""
    return matrix if isinstance(matrix, np.ndarray) else matrix.data[: matrix.nnz]


def _some_cells(matrix: Any, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the values (cell, gene) of some of the kept cells, evenly spread over all of them."""
    chosen = np.flatnonzero(kept)
    chosen = chosen[:: max(1, len(chosen) // CELLS_LOOKED_AT)][:CELLS_LOOKED_AT]
    return dense(take_rows(matrix, chosen)).astype(np.float64)


def _multiples(cells: NDArray[np.float64], to_counts: Callable) -> NDArray[np.float64]:
    """Return the multiples of the smallest value of each cell, without those near 1 and very large ones."""
    positive = cells > 0
    smallest = np.where(positive, cells, np.inf).min(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # expm1 twice of large values is infinite
        ratios = to_counts(cells[positive]) / np.repeat(to_counts(smallest), positive.sum(axis=1))
    return ratios[(ratios > 1 + NEAR_WHOLE) & (ratios < LARGEST_MULTIPLE)]


def _multiples_before_two_logs(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""Return the counts of a cell that was normalized and logged twice, if it was; without those that are used up.

    Then :math:`v = e^x - 1 = a \log(1 + s k)` with the counts k and two unknown factors of the cell. The two smallest
    values are taken for the counts 1 and 2, which fixes s: :math:`v_2 / v_1 = \log(1 + 2 s) / \log(1 + s)`, and the
    other values give :math:`k = ((1 + s)^{v / v_1} - 1) / s`.
    """
    from scipy.optimize import brentq

    values = np.expm1(cell[cell > 0])
    distinct = np.unique(values.astype(np.float32)).astype(np.float64)
    if len(distinct) < 4:
        return np.empty(0)
    least, ratio = distinct[0], distinct[1] / distinct[0]
    low, high = (np.log1p(2 * s) / np.log1p(s) for s in _FACTORS)
    if not high < ratio < low:
        return np.empty(0)
    s = brentq(lambda s: np.log1p(2 * s) / np.log1p(s) - ratio, *_FACTORS)
    counts = np.expm1(np.minimum(values / least * np.log1p(s), 50)) / s
    return counts[(counts > 2 + NEAR_WHOLE) & (counts < LARGEST_MULTIPLE)]


def _variation_of_depth(counts: NDArray[np.float64]) -> float:
    r"""Return the coefficient of variation of the depth of cells, a factor that all genes of a cell share.

    If cell i has depth d_i of mean 1, genes g and h have the covariance :math:`\mu_g \mu_h \operatorname{var}(d)`. The
    variance of the total would be too large, because the total of few genes also varies by chance.
    """
    mean, total = counts.mean(axis=0), counts.sum(axis=1)
    of_pairs = total.mean() ** 2 - (mean**2).sum()
    covariance = total.var() - counts.var(axis=0).sum()
    return float(np.sqrt(max(0.0, covariance) / of_pairs)) if of_pairs > 0 else 0.0


def _share_whole(values: NDArray[np.float64]) -> float:
    return float((np.abs(values - np.rint(values)) < NEAR_WHOLE).mean())


def _gene_of_first(matrix: Any, wrong: NDArray[np.bool_], genes: tuple[str, ...]) -> str:
    if isinstance(matrix, np.ndarray):
        return genes[int(np.argwhere(wrong)[0, 1])]
    first = int(np.flatnonzero(wrong)[0])
    if matrix.format == "csc":
        return genes[int(np.searchsorted(matrix.indptr, first, side="right")) - 1]
    return genes[int(matrix.indices[first])]


def _chunks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    step = max(1, CHUNK_VALUES * len(values) // max(1, values.size))
    return (values[start : start + step] for start in range(0, len(values), step))


def digest_values(matrix: Any) -> str:
    """Return a fingerprint of the nonzero values and their positions, the same for the same data in every layout.

    It is the sum, modulo 2⁶⁴, of a hash of each value with its row and column. A sum does not depend on the order in
    which a layout stores the values.

    Parameters
    ----------
    matrix
        As returned by `check_matrix`.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    total = sum(
        _digest(part.values, part.cells.start, part.genes.start or 0, matrix.shape[1]) for part in parts(matrix)
    )
    return f"{total % 2**64:016x}"


def _digest(matrix: Any, first_row: int, first_column: int, n_columns: int) -> int:
    """Sum of the hashes of a part of a matrix."""
    from scipy.sparse import coo_array

    by_column = getattr(matrix, "format", "") == "csc"
    n_along, n_across = matrix.shape[::-1] if by_column else matrix.shape
    step = max(1, CHUNK_VALUES // max(1, n_across))
    total = 0
    for start in range(0, n_along, step):
        part = coo_array(matrix[:, start : start + step] if by_column else matrix[start : start + step])
        row, column = part.row.astype(np.uint64), part.col.astype(np.uint64)
        shifted = column if by_column else row
        shifted += np.uint64(start)
        place = (row + np.uint64(first_row)) * np.uint64(n_columns) + column + np.uint64(first_column)
        values = part.data.astype(np.float64)
        hashed = _mix(_mix(place) ^ values.view(np.uint64))[values != 0]
        total += int(hashed.sum(dtype=np.uint64))
    return total


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits: the finalizer of splitmix64 (Steele, Lea & Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
