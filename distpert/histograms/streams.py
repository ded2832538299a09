"""Expression that is not in memory: sparse or dense matrices on disk, Dask arrays, and several of them as one.

They are read part by part. Each part is a few tens of megabytes (of a Dask array: a row of blocks), and the next one is
read while the last one is counted.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

PART_VALUES = 2**22  # stored values of a part; bounds memory

Result = TypeVar("Result")


class Part(NamedTuple):
    """Some cells × some genes of a matrix, in memory: ndarray, CSR or CSC without duplicate entries."""

    cells: slice
    genes: slice
    values: Any


class Stream(ABC):
    """A matrix, cells × genes, that is read part by part.

    Attributes
    ----------
    shape
        Numbers of cells and genes.
    dtype
        Type of the values.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    @abstractmethod
    def n_values(self) -> int:
        """Number of stored values, for progress."""

    @abstractmethod
    def parts(self, columns: NDArray[np.intp] | None = None) -> Iterator[Part]:
        """Read all parts, once each; with ``columns``, of these genes in this order."""

    @abstractmethod
    def rows(self, chosen: NDArray[np.intp]) -> Any:
        """Read some rows, given in order."""

    def map_parts(
        self, function: Callable[[Part], Result], columns: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[slice, slice, Result]]:
        """Apply a function to each part, where the parts lie, and yield the results with cells and genes."""
        for part in ahead(self.parts(columns)):
            yield part.cells, part.genes, function(part)

    @property
    def is_remote(self) -> bool:
        """Whether parts lie on other machines or processes, so that only results should travel."""
        return False


@dataclass(frozen=True, eq=False)
class OnDisk(Stream):
    """A matrix in an HDF5 file or a zarr store.

    Attributes
    ----------
    source
        A sparse dataset of anndata, an ``h5py.Dataset`` or a ``zarr.Array``.
    """

    source: Any

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Numbers of cells and genes."""
        n_cells, n_genes = self.source.shape
        return int(n_cells), int(n_genes)

    @cached_property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """Type of the values."""
        return np.dtype(self.source.dtype)

    @property
    def layout(self) -> str:
        """``csr``, ``csc`` or ``dense``."""
        return str(getattr(self.source, "format", "dense"))

    @cached_property
    def indptr(self) -> NDArray[np.int64]:
        """Where the values of each row (of each column, in CSC) start, and where the last ones end."""
        if self.layout == "dense":
            return np.arange(self.shape[0] + 1, dtype=np.int64) * self.shape[1]
        return np.asarray(self.source.group["indptr"][:], np.int64)

    @property
    def n_values(self) -> int:
        """Number of stored values."""
        return int(self.indptr[-1])

    def parts(self, columns: NDArray[np.intp] | None = None) -> Iterator[Part]:
        """Read rows one after the other; of CSC, columns."""
        if self.layout != "csc":
            for start, stop in cuts(self.indptr):
                values = self.source[start:stop]
                values = canonical(values) if columns is None else canonical(values)[:, columns]
                yield Part(slice(start, stop), slice(None), values)
            return
        sizes = np.diff(self.indptr) if columns is None else np.diff(self.indptr)[columns]
        for start, stop in cuts(np.concatenate([[0], sizes.cumsum()])):
            wanted = slice(start, stop) if columns is None else columns[start:stop]
            yield Part(slice(0, self.shape[0]), slice(start, stop), canonical(self.source[:, wanted]))

    def rows(self, chosen: NDArray[np.intp]) -> Any:
        """Read some rows."""
        return self.source[chosen]


@dataclass(frozen=True, eq=False)
class InDask(Stream):
    """A Dask array, with dense or sparse blocks.

    With a client of ``dask.distributed``, blocks are counted where they lie, and only counts travel.

    Attributes
    ----------
    array
        The array.
    """

    array: Any

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Numbers of cells and genes."""
        n_cells, n_genes = self.array.shape
        return int(n_cells), int(n_genes)

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """Type of the values."""
        return np.dtype(self.array.dtype)

    @property
    def n_values(self) -> int:
        """Number of cells times genes: sparse blocks do not tell how many values they store."""
        return self.shape[0] * self.shape[1]

    @property
    def is_remote(self) -> bool:
        """Whether there is a client."""
        return self._client is not None

    def parts(self, columns: NDArray[np.intp] | None = None) -> Iterator[Part]:
        """Compute the blocks of rows one after the other."""
        for cells, block in self._row_blocks:
            yield _as_part(cells, block.compute(scheduler="threads"), columns)

    def rows(self, chosen: NDArray[np.intp]) -> Any:
        """Compute some rows."""
        return self.array[chosen].compute()

    def map_parts(
        self, function: Callable[[Part], Result], columns: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[slice, slice, Result]]:
        """Apply a function to each part, where the parts lie; see `Stream.map_parts`."""
        if not self.is_remote:
            yield from super().map_parts(function, columns)
            return
        from dask import delayed
        from distributed import as_completed

        of_block = delayed(partial(_of_block, function=function, columns=columns))
        tasks = iter([of_block(cells, block) for cells, block in self._row_blocks])
        n_workers = max(1, len(self._client.ncores()))
        waiting = as_completed([], with_results=True)
        for task in islice(tasks, 2 * n_workers):
            waiting.add(self._client.compute(task))
        for _, (cells, result) in waiting:
            if (task := next(tasks, None)) is not None:
                waiting.add(self._client.compute(task))
            yield cells, slice(None), result

    @cached_property
    def _row_blocks(self) -> list[tuple[slice, Any]]:
        bounds = np.concatenate([[0], np.cumsum(self.array.chunks[0])]).tolist()
        return [(slice(start, stop), self.array[start:stop]) for start, stop in pairwise(bounds) if stop > start]

    @property
    def _client(self) -> Any:
        if "distributed" not in sys.modules:
            return None
        from distributed import get_client

        try:
            return get_client()
        except ValueError:
            return None


@dataclass(frozen=True, eq=False)
class Stacked(Stream):
    """Several matrices one below the other.

    Attributes
    ----------
    matrices
        Streams, or matrices in memory.
    columns
        For each of them, the columns of the genes, in the order of the first; None where they are in that order.
    """

    matrices: Sequence[Any]
    columns: Sequence[NDArray[np.intp] | None]

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Numbers of cells and genes."""
        return sum(matrix.shape[0] for matrix in self.matrices), self.matrices[0].shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """Type that holds the values of all."""
        return np.result_type(*(matrix.dtype for matrix in self.matrices))

    @property
    def n_values(self) -> int:
        """Number of stored values of all."""
        return sum(n_values(matrix) for matrix in self.matrices)

    def parts(self, columns: NDArray[np.intp] | None = None) -> Iterator[Part]:
        """Read one after the other."""
        start = 0
        for matrix, order in zip(self.matrices, self.columns, strict=True):
            chosen = order if columns is None else columns if order is None else order[columns]
            for part in parts(matrix, chosen):
                cells = slice(start + part.cells.start, start + part.cells.stop)
                yield Part(cells, part.genes, part.values.astype(self.dtype, copy=False))
            start += matrix.shape[0]

    def rows(self, chosen: NDArray[np.intp]) -> Any:
        """Read some rows."""
        start, found = 0, []
        for matrix, order in zip(self.matrices, self.columns, strict=True):
            own = chosen[(chosen >= start) & (chosen < start + matrix.shape[0])] - start
            if len(own):
                values = dense(take_rows(matrix, own))
                found.append(values if order is None else values[:, order])
            start += matrix.shape[0]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), self.dtype)


def as_stream(matrix: Any) -> Stream | None:
    """Return a stream of a matrix that is not in memory, and None for any other object."""
    if isinstance(matrix, Stream):
        return matrix
    kind = type(matrix)
    package = kind.__module__.partition(".")[0]
    if package == "dask":
        return InDask(matrix)
    if package in ("h5py", "zarr") and hasattr(matrix, "shape"):
        return OnDisk(matrix)
    is_sparse_on_disk = package == "anndata" and getattr(matrix, "format", "") in ("csr", "csc")
    return OnDisk(matrix) if is_sparse_on_disk and hasattr(matrix, "group") else None


def parts(matrix: Any, columns: NDArray[np.intp] | None = None) -> Iterator[Part]:
    """Yield the parts of any matrix; one in memory is a single part."""
    if isinstance(matrix, Stream):
        yield from matrix.parts(columns)
    else:
        values = matrix if columns is None else matrix[:, columns]
        yield Part(slice(0, values.shape[0]), slice(None), values)


def take_rows(matrix: Any, chosen: NDArray[np.intp]) -> Any:
    """Return some rows of any matrix, in memory."""
    return matrix.rows(chosen) if isinstance(matrix, Stream) else matrix[chosen]


def dense(values: Any) -> NDArray[Any]:
    """Return a dense array of values in memory."""
    return values if isinstance(values, np.ndarray) else values.toarray()


def n_values(matrix: Any) -> int:
    """Return the number of stored values of any matrix."""
    if isinstance(matrix, Stream):
        return matrix.n_values
    return int(matrix.size if isinstance(matrix, np.ndarray) else matrix.nnz)


def canonical(values: Any) -> Any:
    """Return values in memory as ndarray, CSR or CSC without duplicate entries, which would count as separate cells."""
    from scipy.sparse import csr_matrix, issparse

    if not issparse(values):
        return np.asarray(values)
    if values.format not in ("csr", "csc"):
        values = csr_matrix(values)
    if not values.has_canonical_format:
        values = values.copy()
        values.sum_duplicates()
    return values


def cuts(indptr: NDArray[np.integer]) -> Iterator[tuple[int, int]]:
    """Cut rows into parts of about `PART_VALUES` stored values: first and last row of each part."""
    marks = np.searchsorted(indptr, np.arange(0, max(1, int(indptr[-1])), PART_VALUES))
    bounds = np.unique(np.concatenate([[0], marks, [len(indptr) - 1]]))
    return pairwise(bounds.tolist())


def ahead(items: Iterator[Part]) -> Iterator[Part]:
    """Yield items while a thread prepares the next one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _of_block(
    cells: slice, values: Any, function: Callable[[Part], Result], columns: NDArray[np.intp] | None
) -> tuple[slice, Result]:
    return cells, function(_as_part(cells, values, columns))


def _as_part(cells: slice, values: Any, columns: NDArray[np.intp] | None) -> Part:
    values = canonical(values)
    return Part(cells, slice(None), values if columns is None else values[:, columns])
