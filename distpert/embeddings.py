"""Gene embeddings: a vector for every gene, and by sums a vector for every perturbation.

Several sources (a text embedding, a protein embedding) are standardised one by one and laid side by side.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

    EmbeddingSource: TypeAlias = "Embeddings | pd.DataFrame | Mapping[str, ArrayLike] | str"

__all__ = [
    "Embeddings",
    "as_embeddings",
    "frame_from_vectors",
    "nearest_symbols",
    "standardise",
    "validate_embeddings",
]


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Standardised gene embeddings; `as_embeddings` makes them.

    Attributes
    ----------
    genes : tuple of str
        Gene symbols, each once.
    vectors : ndarray, shape (genes, dims), float32
        One row a gene; the blocks of the sources lie side by side.
    source_dims : tuple of int
        Dims contributed by each source; they sum to dims.
    """

    genes: tuple[str, ...]
    vectors: NDArray[np.float32]
    source_dims: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = (len(self.genes), sum(self.source_dims))
        if np.shape(self.vectors) != expected:
            raise ValueError(f"genes and source_dims ask for vectors of shape {expected}, not {np.shape(self.vectors)}")

    def __repr__(self) -> str:
        n_genes, n_dims = self.vectors.shape
        if len(self.source_dims) == 1:
            return f"Embeddings: {n_genes} genes x {n_dims} dims (1 source)"
        parts = " + ".join(map(str, self.source_dims))
        return f"Embeddings: {n_genes} genes x {n_dims} dims ({len(self.source_dims)} sources: {parts})"

    @cached_property
    def _row(self) -> dict[str, int]:
        return {gene: row for row, gene in enumerate(self.genes)}

    def has(self, label: str) -> bool:
        """Whether every gene of a label (``A`` or ``A+B``) has an embedding."""
        return all(gene in self._row for gene in label.split("+"))

    def missing(self, labels: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Labels that have no embedding.

        Parameters
        ----------
        labels : iterable of str
            Genes ``A`` or combinations ``A+B``.

        Returns
        -------
        dict
            For each label without an embedding, its genes that lack one. Empty if nothing is missing.
        """
        if isinstance(labels, str):
            raise TypeError(f"labels must be a sequence of labels; for one label pass [{labels!r}]")
        lacking = {label: tuple(gene for gene in label.split("+") if gene not in self._row) for label in labels}
        return {label: genes for label, genes in lacking.items() if genes}

    def of(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings of perturbations.

        Parameters
        ----------
        labels : sequence of str
            Genes ``A`` or combinations ``A+B``. A combination has the sum of its genes' vectors; the order of
            the genes makes no difference, to the last bit, and a gene named twice counts twice.

        Returns
        -------
        ndarray, shape (labels, dims), float32

        Raises
        ------
        KeyError
            If genes have no embedding; names all of them and the nearest symbols that have one.
        """
        if lacking := self.missing(labels):
            raise KeyError(self._describe(dict.fromkeys(gene for genes in lacking.values() for gene in genes)))
        vectors = np.empty((len(labels), self.vectors.shape[1]), dtype=np.float32)
        for i, label in enumerate(labels):
            # Sorted, because floating-point sums of three or more genes depend on their order.
            rows = sorted(self._row[gene] for gene in label.split("+"))
            vectors[i] = self.vectors[rows].sum(axis=0)
        return vectors

    def _describe(self, missing: Iterable[str]) -> str:
        """Name the missing genes, and for the first 20 the nearest symbols."""
        genes = list(missing)
        named = []
        for gene in genes[:20]:
            near = nearest_symbols(gene, self.genes)
            named.append(f"{gene!r} (nearest: {', '.join(near) if near else 'none'})")
        named += map(repr, genes[20:])
        return f"no embedding for {len(genes)} gene{'s'[: len(genes) > 1]}: {', '.join(named)}"


def as_embeddings(embeddings: EmbeddingSource | Sequence[EmbeddingSource], adata: AnnData | None = None) -> Embeddings:
    """Turn any accepted form of gene embeddings into `Embeddings`.

    Parameters
    ----------
    embeddings : Embeddings, DataFrame, dict, str, or a list or tuple of these
        A DataFrame has gene symbols as its index and dims as columns; a dict maps symbols to vectors; a str
        is the key of a DataFrame or dict in ``adata.uns``. `Embeddings` are returned as they are. In a list,
        only the genes that all sources have are kept; each source is standardised over those genes (see
        `standardise`) and the results are concatenated in the order given.
    adata : AnnData, optional
        Where to look up a key.

    Returns
    -------
    Embeddings

    Raises
    ------
    KeyError
        If ``adata.uns`` has no such key.
    TypeError
        If a source is of another type.
    ValueError
        If a source has duplicated symbols, vectors of different lengths, cells that are not finite numbers,
        rows of zeros or the same vector for all genes, or if the sources share no gene.

    Warns
    -----
    UserWarning
        Names genes left out because some source lacks them.
    """
    if isinstance(embeddings, Embeddings):
        return embeddings
    if isinstance(embeddings, list | tuple):
        if not embeddings:
            raise ValueError("embeddings is an empty list; give at least one source")
        entries = [_resolve(entry, adata, f"embeddings[{i}]") for i, entry in enumerate(embeddings)]
    else:
        entries = [_resolve(embeddings, adata, "embeddings")]
    sources = [source for entry, where in entries for source in _frames(entry, where)]

    shared = set.intersection(*(set(frame.index) for frame, _ in sources))
    genes = [gene for gene in sources[0][0].index if gene in shared]
    if not genes:
        examples = "; ".join(f"{where} has {listing(frame.index, 3)}" for frame, where in sources)
        raise ValueError(f"the embedding sources share no gene: {examples}. Rename one to match the others")
    blocks = [standardise(frame.loc[genes].to_numpy(), where=where) for frame, where in sources]

    absent = dict.fromkeys(gene for frame, _ in sources for gene in frame.index if gene not in shared)
    if absent:
        lacks = {where: sum(gene not in frame.index for gene in absent) for frame, where in sources}
        counts = ", ".join(f"{where} lacks {count}" for where, count in lacks.items() if count)
        warnings.warn(
            f"left out genes that not all embedding sources have ({counts}): {listing(absent)}",
            UserWarning,
            stacklevel=2,
        )
    dims = tuple(block.shape[1] for block in blocks)
    return Embeddings(genes=tuple(genes), vectors=np.concatenate(blocks, axis=1), source_dims=dims)


def standardise(vectors: ArrayLike, *, where: str = "embeddings") -> NDArray[np.float32]:
    r"""Centre vectors over genes and scale them by one number.

    .. math:: \tilde e_{gd} = \frac{e_{gd} - \bar e_d}{s}, \qquad
              s^2 = \frac{1}{GD} \sum_{g,d} (e_{gd} - \bar e_d)^2

    so that the mean of :math:`\lVert \tilde e_g \rVert^2` over genes is the number of dims D. One scale for
    all dims leaves the geometry of the source as it was: ratios of distances between genes do not change.

    Parameters
    ----------
    vectors : array_like, shape (genes, dims)
    where : str, optional
        Name of the source in the error.

    Returns
    -------
    ndarray, shape (genes, dims), float32

    Raises
    ------
    ValueError
        If all genes have the same vector: there is nothing to tell them apart.
    """
    raw = np.asarray(vectors, dtype=np.float64)
    if (raw == raw[:1]).all():
        raise ValueError(f"{where}: nothing tells the genes apart: all {len(raw)} have the same vector")
    centred = raw - raw.mean(axis=0)
    scale = np.linalg.norm(centred) / np.sqrt(centred.size)
    scaled: NDArray[np.float32] = (centred / scale).astype(np.float32)
    return scaled


def nearest_symbols(symbol: str, available: Iterable[str], n: int = 3) -> list[str]:
    """Symbols most like a given one, whatever their case.

    Parameters
    ----------
    symbol : str
        The symbol to look for.
    available : iterable of str
        Where to look.
    n : int, optional
        How many to return at most.

    Returns
    -------
    list of str
        First those that differ in case alone, then the closest by `difflib`'s ratio (0.6 or more).
    """
    wanted = symbol.upper()
    spellings: dict[str, list[str]] = {}
    for other in available:
        # The ratio, 2 (letters matched) / (total length), is below 0.6 for lengths outside 3/7 to 7/3.
        if 3 * len(wanted) <= 7 * len(other) and 3 * len(other) <= 7 * len(wanted):
            spellings.setdefault(other.upper(), []).append(other)
    same = spellings.pop(wanted, [])
    close = difflib.get_close_matches(wanted, _share_letters(wanted, list(spellings)), n=n) if n > len(same) else []
    return [*same, *(spelling for other in close for spelling in spellings[other])][:n]


def _share_letters(word: str, words: list[str], n: int = 200) -> list[str]:
    """Keep the n words that share most letters with a word: difflib is slow over 20,000 of them.

    Ranked by 2 (letters in common, with multiplicity) / (total length), which difflib's ratio cannot exceed.
    """
    if len(words) <= n:
        return words
    letters = np.array(words).view(np.uint32).reshape(len(words), -1)
    common = sum(np.minimum((letters == ord(c)).sum(axis=1), word.count(c)) for c in set(word))
    bound = common / ((letters != 0).sum(axis=1) + len(word))
    return [words[i] for i in np.argsort(-bound, kind="stable")[:n]]


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
        raise ValueError(f"{where}: not a one-dimensional vector of numbers: {listing(wrong)}")
    lengths = [len(array) for array in arrays if array is not None]
    usual = Counter(lengths).most_common(1)[0][0] if lengths else 0
    if odd := [f"{gene} has {len_}" for gene, len_ in zip(genes, lengths, strict=True) if len_ != usual]:
        raise ValueError(f"{where}: vectors differ in length; most have {usual} dims, but {listing(odd)}")
    values = np.array(arrays, dtype=np.float32).reshape(len(genes), usual)
    return pd.DataFrame(values, index=pd.Index(list(genes), dtype=object))


def validate_embeddings(frame: pd.DataFrame, where: str = "embeddings") -> pd.DataFrame:
    """Check a table of gene embeddings and give it its standard form.

    Parameters
    ----------
    frame : DataFrame, shape (genes, dims)
        Gene symbols as index, numbers as cells.
    where : str, optional
        Name of the source (a file, a key) in errors.

    Returns
    -------
    DataFrame
        float32; index named "gene", columns 0 to dims − 1 named "dim".

    Raises
    ------
    ValueError
        If the table is empty, symbols are not strings or are duplicated, cells are not finite numbers, or a
        gene's vector is all zeros. Names the genes.
    """
    import pandas as pd

    if 0 in frame.shape:
        raise ValueError(f"{where}: no embeddings ({frame.shape[0]} genes x {frame.shape[1]} dims)")
    if unnamed := [gene for gene in frame.index if not isinstance(gene, str) or not gene]:
        raise ValueError(
            f"{where}: the index must hold gene symbols, but has {listing(map(repr, unnamed))}; "
            "set it with frame.set_index(...), or transpose a table of dims x genes"
        )
    genes = pd.Index([str(gene) for gene in frame.index], name="gene", dtype=object)
    if repeated := list(dict.fromkeys(genes[genes.duplicated()])):
        raise ValueError(f"{where}: duplicated gene symbols: {listing(repeated)}; keep one row a gene")
    known = set(genes)
    if summed := [gene for gene in genes if "+" in gene and known.issuperset(gene.split("+"))]:
        raise ValueError(
            f"{where}: rows for combinations of genes: {listing(summed)}; remove them, "
            "a combination has the sum of its genes' vectors"
        )
    values = _numbers(frame.set_axis(genes), where)
    if len(bad := genes[~np.isfinite(values).all(axis=1)]):
        raise ValueError(f"{where}: NaN or infinite values (as float32) for {listing(bad)}; remove these genes")
    if len(zero := genes[~values.any(axis=1)]):
        raise ValueError(
            f"{where}: all-zero vectors, which usually stand for a missing embedding: {listing(zero)}; "
            "remove these genes"
        )
    return pd.DataFrame(values, index=genes, columns=pd.RangeIndex(values.shape[1], name="dim"))


def _resolve(entry: Any, adata: AnnData | None, where: str) -> tuple[Any, str]:
    """Look up a key, and refuse what is no source."""
    import pandas as pd

    if isinstance(entry, str):
        if adata is None:
            raise TypeError(f"{where}={entry!r} is a key into adata.uns, but no adata was given{_HINT}")
        if entry not in adata.uns:
            raise KeyError(f"adata.uns has no {entry!r}; its keys: {', '.join(adata.uns) or 'none'}{_HINT}")
        entry, where = adata.uns[entry], f"adata.uns[{entry!r}]"
    if not isinstance(entry, Embeddings | pd.DataFrame | Mapping):
        hint = _HINT if isinstance(entry, os.PathLike) else ""
        raise TypeError(
            f"{where} must be a DataFrame (genes x dims), a dict of vectors or a key of adata.uns, "
            f"not {type(entry).__name__}{hint}"
        )
    return entry, where


_HINT = "; for a file, pass distpert.read_embeddings(path)"


def _frames(entry: Any, where: str) -> Iterator[tuple[pd.DataFrame, str]]:
    """One validated table a source; Embeddings may hold several."""
    import pandas as pd

    if isinstance(entry, Embeddings):
        blocks = np.split(entry.vectors, np.cumsum(entry.source_dims)[:-1], axis=1)
        for block in blocks:
            yield pd.DataFrame(block, index=pd.Index(entry.genes, dtype=object)), where
    else:
        if isinstance(entry, Mapping):
            entry = frame_from_vectors(list(entry), list(entry.values()), where)
        yield validate_embeddings(entry, where), where


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
                    wrong[gene] = f"{gene} ({cell!r} in column {frame.columns[column]!r})"
    if wrong:
        raise ValueError(f"{where}: cells that are not numbers: {listing(wrong.values())}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(frame.to_numpy(dtype=np.float32))


def listing(names: Iterable[str], n: int = 10) -> str:
    """Join names as in "a, b, c and 12 more"."""
    rest = iter(names)
    shown = ", ".join(islice(rest, n))
    more = sum(1 for _ in rest)
    return f"{shown} and {more} more" if more else shown
