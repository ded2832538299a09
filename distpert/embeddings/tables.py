"""Tables of gene embeddings, genes × dims: made from single vectors, and checked."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.labels import genes_of, listed
from distpert.embeddings.arrays import to_array

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["frame_from_vectors", "standard_frame", "validate_embeddings"]


def frame_from_vectors(genes: Sequence[str], vectors: Sequence[ArrayLike], where: str = "embeddings") -> pd.DataFrame:
    """Stack the vectors of genes into a DataFrame (genes × dims).

    Parameters
    ----------
    genes
        Gene symbols.
    vectors
        Their vectors (dims,), in the same order. A dict in place of a vector stands for symbols with a slash.
    where
        Name of the source in errors.

    Raises
    ------
    ValueError
        If a vector is not one-dimensional, does not contain real numbers or cannot be converted, or if lengths differ.
        The message names the genes.
    """
    import pandas as pd

    genes, vectors = _flat(genes, vectors)
    arrays, wrong = [], {}
    for gene, vector in zip(genes, vectors, strict=True):
        try:
            array = to_array(vector)
            if array.ndim != 1:
                raise ValueError(_wrong_shape(array))
            with np.errstate(over="ignore"):  # becomes inf, which validation names
                arrays.append(array.astype(np.float32))
        except ValueError as error:
            wrong[gene] = str(error)
    if wrong:
        gene, reason = next(iter(wrong.items()))
        others = (
            f" The same is true of {len(wrong) - 1} other genes: {listed(list(wrong)[1:])}"
            if wrong.keys() - {gene}
            else ""
        )
        raise ValueError(f"{where}: the vector of {gene} {reason}.{others}")
    lengths = [len(array) for array in arrays]
    usual = Counter(lengths).most_common(1)[0][0] if lengths else 0
    if odd := [f"{gene} has {length}" for gene, length in zip(genes, lengths, strict=True) if length != usual]:
        raise ValueError(f"{where}: vectors differ in length; most have {usual} dims, but {listed(odd)}")
    values = np.array(arrays, dtype=np.float32).reshape(len(genes), usual)
    return pd.DataFrame(values, index=pd.Index(list(genes), dtype=object))


def _flat(genes: Sequence[str], vectors: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Join symbols that contain a slash: HDF5 stores them as groups, which are read back as dicts within the dict."""
    flat: dict[int, tuple[str, Any]] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}/{key}", inner)
        else:
            flat[len(flat)] = (name, value)

    for gene, vector in zip(genes, vectors, strict=True):
        add(gene, vector)
    return [name for name, _ in flat.values()], [value for _, value in flat.values()]


def _wrong_shape(array: NDArray[Any]) -> str:
    way_out = {0: "pass a list of numbers", 2: "pass vector[0] if it has one row, or else the mean over rows"}
    return f"has shape {array.shape}, but must be one-dimensional: {way_out.get(array.ndim, 'flatten it')}"


def validate_embeddings(
    frame: pd.DataFrame, where: str = "embeddings", genes: Collection[str] = frozenset()
) -> pd.DataFrame:
    """Check a table of gene embeddings and return it in standard form.

    Parameters
    ----------
    frame
        (genes, dims) numbers, with gene symbols as index.
    where
        Name of the source (a file, a key) in errors.
    genes
        Genes of the screen. A table that has some of them as columns, and none in the index, is transposed.

    Returns
    -------
    DataFrame
        float32; index named "gene", without spaces around symbols; columns "0" to "dims − 1", named "dim".

    Raises
    ------
    ValueError
        If the table is empty or transposed, symbols are not strings or are duplicated, a column has row numbers or
        identifiers, cells are not finite numbers, or the vector of a gene is all zeros. The message names the genes or
        the column.
    """
    if 0 in frame.shape:
        raise ValueError(f"{where}: no embeddings ({frame.shape[0]} genes x {frame.shape[1]} dims)")
    in_columns = [name for name in frame.columns if isinstance(name, str) and name in genes]
    if in_columns and not any(isinstance(name, str) and name.strip() in genes for name in frame.index):
        raise ValueError(
            f"{where}: the table is transposed. Its columns are genes ({listed(in_columns, 5)}), its index has none. "
            "Pass its transpose, .T (genes x dims)"
        )
    if unnamed := [gene for gene in frame.index if not isinstance(gene, str) or not gene.strip()]:
        raise ValueError(
            f"{where}: the index must hold gene symbols, but has {listed(map(repr, unnamed))}. "
            "Set it with frame.set_index(...), or transpose a table of dims x genes"
        )
    symbols = np.array([str(gene).strip() for gene in frame.index], dtype=object)
    if repeated := [gene for gene, times in Counter(symbols).items() if times > 1]:
        raise ValueError(f"{where}: duplicated gene symbols: {listed(repeated)}. Keep one row for each gene")
    known = set(symbols)
    if summed := [gene for gene in symbols if len(genes_of(gene)) > 1 and known.issuperset(genes_of(gene))]:
        raise ValueError(
            f"{where}: rows for combinations of genes: {listed(summed)}. Remove them: "
            "the vector of a combination is the sum of its genes' vectors"
        )
    values = _numbers(frame.set_axis(symbols), where)
    if len(bad := symbols[~np.isfinite(values).all(axis=1)]):
        raise ValueError(f"{where}: NaN or infinite values (as float32) for {listed(bad)}. Remove these genes")
    if numbers := _columns_of_numbers(frame.columns, values):
        raise ValueError(
            f"{where}: columns that seem to hold row numbers or identifiers, not dimensions: "
            f"{listed(map(repr, numbers))}. Leave them out: frame.drop(columns={numbers!r}), or for a file "
            f"read_embeddings(path, drop={numbers!r})"
        )
    if len(zero := symbols[~values.any(axis=1)]):
        raise ValueError(
            f"{where}: all-zero vectors, which usually stand for a missing embedding: {listed(zero)}. "
            "Remove these genes"
        )
    return standard_frame(symbols.tolist(), values)


def standard_frame(genes: Sequence[str], values: NDArray[np.float32]) -> pd.DataFrame:
    """Return a table with an index named "gene" and columns named "dim", which are text: AnnData stores no others."""
    import pandas as pd

    dims = pd.Index([str(dim) for dim in range(values.shape[1])], name="dim", dtype=object)
    return pd.DataFrame(values, index=pd.Index(genes, name="gene", dtype=object), columns=dims)


# Names of columns of row numbers and identifiers. No dimension of an embedding has such a name.
_NUMBER_NAMES = re.compile(
    r"unnamed: ?\d+(_.*)?|index|level_\d+|row([ _.-]?(number|nr|no|num|names?|id))?|(.*[ _.-])?ids?|entrez.*"
    r"|.*(entrez|geneid|gene_id|taxid|hgnc)([ _.-]?id)?",
    re.IGNORECASE,
)
_FEWEST_ROWS, _OUTLYING = 3, 100.0


def _columns_of_numbers(names: Any, values: NDArray[np.float32]) -> list[Any]:
    """Find columns of row numbers or identifiers: by name, or as whole numbers that differ between all genes.

    If the other dimensions have fractions, different whole numbers are enough. If all dimensions are whole numbers, the
    column must also have consecutive numbers, or vary a hundred times as much as the median column.
    """
    is_whole = (values == np.rint(values)).all(axis=0)
    spread = values.std(axis=0, dtype=np.float64)
    usual = np.median(spread[spread > 0]) if spread.any() else np.inf
    found = []
    for position, name in enumerate(names):
        column = values[:, position]
        named = isinstance(name, str) and bool(_NUMBER_NAMES.fullmatch(name.strip()))
        differ = len(column) >= _FEWEST_ROWS and is_whole[position] and len(np.unique(column)) == len(column)
        if differ and is_whole.all():
            consecutive = len(column) >= 10 * _FEWEST_ROWS and np.ptp(column) == len(column) - 1
            differ = consecutive or spread[position] > _OUTLYING * usual
        if named or differ:
            found.append(name)
    return found


def _numbers(frame: pd.DataFrame, where: str) -> NDArray[np.float32]:
    """Return the cells as float32. Text is refused, also where it looks like a number."""
    wrong: dict[str, str] = {}  # the first such cell of each gene
    for column, dtype in enumerate(frame.dtypes):
        if not isinstance(dtype, np.dtype) or dtype.kind not in "fiu":
            for gene, cell in frame.iloc[:, column].items():
                if gene not in wrong and (isinstance(cell, bool) or not isinstance(cell, Real)):
                    wrong[gene] = f"{gene} ({reprlib.repr(cell)} in column {frame.columns[column]!r})"
    if wrong:
        raise ValueError(
            f"{where}: cells that are not numbers: {listed(wrong.values(), 5)}. Leave out columns of text, with "
            "frame.drop(columns=) or read_embeddings(path, drop=). If one column has the whole vectors, pass a dict: "
            "dict(zip(genes, vectors))"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(frame.to_numpy(dtype=np.float32))
