"""Tables of gene embeddings, genes × dims: from loose vectors, and checked."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Collection, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from distpert._shared.labels import genes_of, listed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["frame_from_vectors", "validate_embeddings"]


def frame_from_vectors(genes: Sequence[str], vectors: Sequence[ArrayLike], where: str = "embeddings") -> pd.DataFrame:
    """Stack one vector a gene into a DataFrame (genes × dims).

    Parameters
    ----------
    genes : sequence of str
        Gene symbols.
    vectors : sequence of array_like, shape (dims,)
        Their vectors, in the same order.
    where : str, optional
        Name of the source in errors.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        If a vector is not one-dimensional and numeric, or if lengths differ; names the genes.
    """
    import pandas as pd

    arrays = [_vector(vector) for vector in vectors]
    if wrong := [gene for gene, array in zip(genes, arrays, strict=True) if array is None]:
        raise ValueError(f"{where}: not a one-dimensional vector of numbers: {listed(wrong)}")
    lengths = [len(array) for array in arrays if array is not None]
    usual = Counter(lengths).most_common(1)[0][0] if lengths else 0
    if odd := [f"{gene} has {len_}" for gene, len_ in zip(genes, lengths, strict=True) if len_ != usual]:
        raise ValueError(f"{where}: vectors differ in length; most have {usual} dims, but {listed(odd)}")
    values = np.array(arrays, dtype=np.float32).reshape(len(genes), usual)
    return pd.DataFrame(values, index=pd.Index(list(genes), dtype=object))


def validate_embeddings(
    frame: pd.DataFrame, where: str = "embeddings", genes: Collection[str] = frozenset()
) -> pd.DataFrame:
    """Check a table of gene embeddings and give it its standard form.

    Parameters
    ----------
    frame : DataFrame, shape (genes, dims)
        Gene symbols as index, numbers as cells.
    where : str, optional
        Name of the source (a file, a key) in errors.
    genes : collection of str, optional
        Genes of the screen: a table that has some of them as columns, and none in the index, is transposed.

    Returns
    -------
    DataFrame
        float32; index named "gene", without blanks around symbols, columns 0 to dims − 1 named "dim".

    Raises
    ------
    ValueError
        If the table is empty or transposed, symbols are not strings or are duplicated, cells are not finite
        numbers, or a gene's vector is all zeros. Names the genes.
    """
    import pandas as pd

    if 0 in frame.shape:
        raise ValueError(f"{where}: no embeddings ({frame.shape[0]} genes x {frame.shape[1]} dims)")
    in_columns = [name for name in frame.columns if isinstance(name, str) and name in genes]
    if in_columns and not any(isinstance(name, str) and name.strip() in genes for name in frame.index):
        raise ValueError(
            f"{where}: transposed: the columns hold genes ({listed(in_columns, 5)}), the index none; "
            "pass .T, which is genes x dims"
        )
    if unnamed := [gene for gene in frame.index if not isinstance(gene, str) or not gene.strip()]:
        raise ValueError(
            f"{where}: the index must hold gene symbols, but has {listed(map(repr, unnamed))}; "
            "set it with frame.set_index(...), or transpose a table of dims x genes"
        )
    symbols = pd.Index([str(gene).strip() for gene in frame.index], name="gene", dtype=object)
    if repeated := list(dict.fromkeys(symbols[symbols.duplicated()])):
        raise ValueError(f"{where}: duplicated gene symbols: {listed(repeated)}; keep one row a gene")
    known = set(symbols)
    if summed := [gene for gene in symbols if len(genes_of(gene)) > 1 and known.issuperset(genes_of(gene))]:
        raise ValueError(
            f"{where}: rows for combinations of genes: {listed(summed)}; remove them, "
            "a combination has the sum of its genes' vectors"
        )
    values = _numbers(frame.set_axis(symbols), where)
    if len(bad := symbols[~np.isfinite(values).all(axis=1)]):
        raise ValueError(f"{where}: NaN or infinite values (as float32) for {listed(bad)}; remove these genes")
    if len(zero := symbols[~values.any(axis=1)]):
        raise ValueError(
            f"{where}: all-zero vectors, which usually stand for a missing embedding: {listed(zero)}; "
            "remove these genes"
        )
    return pd.DataFrame(values, index=symbols, columns=pd.RangeIndex(values.shape[1], name="dim"))


def _vector(value: Any) -> NDArray[np.float32] | None:
    """Return a one-dimensional array of numbers as float32, None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of different lengths
        return None
    if array.ndim != 1 or (array.dtype.kind not in "fiu" and array.size):
        return None
    with np.errstate(over="ignore"):  # becomes inf, which validation names
        return array.astype(np.float32)


def _numbers(frame: pd.DataFrame, where: str) -> NDArray[np.float32]:
    """Cells as float32; text that looks like a number is no number."""
    wrong: dict[str, str] = {}  # the first such cell of each gene
    for column, dtype in enumerate(frame.dtypes):
        if not isinstance(dtype, np.dtype) or dtype.kind not in "fiu":
            for gene, cell in frame.iloc[:, column].items():
                if gene not in wrong and (isinstance(cell, bool) or not isinstance(cell, Real)):
                    wrong[gene] = f"{gene} ({reprlib.repr(cell)} in column {frame.columns[column]!r})"
    if wrong:
        raise ValueError(
            f"{where}: cells that are not numbers: {listed(wrong.values(), 5)}; leave out columns of text, and give "
            "vectors that are in one column as a dict, dict(zip(genes, vectors))"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(frame.to_numpy(dtype=np.float32))
