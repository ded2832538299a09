"""Gene embeddings: one vector for each gene, and sums of vectors for combinations of genes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from distpert._shared.labels import genes_of, listed, spelling_hint
from distpert._shared.symbols import nearest_symbols
from distpert.embeddings.tables import frame_from_vectors, standard_frame, validate_embeddings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

EmbeddingSource: TypeAlias = "Embeddings | pd.DataFrame | Mapping[str, ArrayLike] | str"
EmbeddingSources: TypeAlias = "EmbeddingSource | Sequence[EmbeddingSource]"

__all__ = ["Embeddings", "as_embeddings", "standardize"]


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Standardized gene embeddings, such as those of a fit (``fit.embeddings``).

    Several sources (a text embedding, a protein embedding) are standardized one by one and concatenated.

    Attributes
    ----------
    genes : tuple of str
        Gene symbols, each once.
    vectors : ndarray, shape (genes, dims), float32
        One row for each gene. The columns of the first source come first, then those of the second, and so on.
    source_dims : tuple of int
        Number of dims of each source; their sum is dims.

    Raises
    ------
    ValueError
        If the shape of the vectors does not fit the genes and dims.

    See Also
    --------
    distpert.fit, distpert.read_embeddings, distpert.embed_text

    Examples
    --------
    >>> embeddings = Embeddings(genes=("A", "B"), vectors=np.float32([[1, -1], [-1, 1]]), source_dims=(2,))
    >>> embeddings
    Embeddings: 2 genes x 2 dims (1 source)
    >>> embeddings.has("A+B"), embeddings.has("C")
    (True, False)
    """

    genes: tuple[str, ...]
    vectors: NDArray[np.float32]
    source_dims: tuple[int, ...]

    def __post_init__(self) -> None:
        expected = (len(self.genes), sum(self.source_dims))
        if np.shape(self.vectors) != expected:
            raise ValueError(
                f"vectors must have the shape {expected}, from genes and source_dims, not {np.shape(self.vectors)}"
            )

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
        """Whether every gene of a label has an embedding.

        Parameters
        ----------
        label : str
            A gene ``A`` or a combination ``A+B``.

        Returns
        -------
        bool

        Examples
        --------
        >>> embeddings = Embeddings(genes=("A", "B"), vectors=np.float32([[1], [-1]]), source_dims=(1,))
        >>> embeddings.has("A+B"), embeddings.has("A+C")
        (True, False)
        """
        return not self._lacking(label)

    def missing(self, labels: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the labels without an embedding.

        Parameters
        ----------
        labels : iterable of str
            Genes ``A`` or combinations ``A+B``.

        Returns
        -------
        dict of str to tuple of str
            For each label without an embedding, its genes that lack one. Empty if nothing is missing.

        Raises
        ------
        TypeError
            If a single str is passed.

        Examples
        --------
        >>> embeddings = Embeddings(genes=("A", "B"), vectors=np.float32([[1], [-1]]), source_dims=(1,))
        >>> embeddings.missing(["A", "A+C"])
        {'A+C': ('C',)}
        """
        if isinstance(labels, str):
            raise TypeError(f"labels must be a sequence of labels. For one label pass [{labels!r}]")
        lacking = {label: self._lacking(label) for label in labels}
        return {label: genes for label, genes in lacking.items() if genes}

    def _lacking(self, label: str) -> tuple[str, ...]:
        """Return the genes of a label without an embedding. An empty label counts as a gene."""
        return tuple(gene for gene in genes_of(label) or (label,) if gene not in self._row)

    def of(self, labels: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of perturbations.

        Parameters
        ----------
        labels : sequence of str
            Genes ``A`` or combinations ``A+B``. The vector of a combination is the sum of its genes' vectors. The order
            of the genes makes no difference, to the last bit. A gene named twice counts twice.

        Returns
        -------
        ndarray, shape (labels, dims), float32

        Raises
        ------
        KeyError
            If genes have no embedding. The message names all of them, and the nearest symbols with one.
        TypeError
            If a single str is passed.

        Examples
        --------
        >>> embeddings = Embeddings(genes=("A", "B"), vectors=np.float32([[1, -1], [2, 3]]), source_dims=(2,))
        >>> embeddings.of(["A", "A+B"]).tolist()
        [[1.0, -1.0], [3.0, 2.0]]
        """
        if lacking := self.missing(labels):
            raise KeyError(self._describe(dict.fromkeys(gene for genes in lacking.values() for gene in genes)))
        vectors = np.empty((len(labels), self.vectors.shape[1]), dtype=np.float32)
        for i, label in enumerate(labels):
            # Sorted, because a floating-point sum of three or more terms depends on their order.
            rows = sorted(self._row[gene] for gene in genes_of(label))
            vectors[i] = self.vectors[rows].sum(axis=0)
        return vectors

    def to_frame(self) -> pd.DataFrame:
        """Return the vectors as a table that AnnData can store in ``adata.uns``.

        Returns
        -------
        DataFrame, shape (genes, dims)
            float32; index named "gene", columns "0" to "dims − 1" (text) named "dim". Embeddings that `distpert.fit`
            makes of this table have the same vectors, up to rounding. They count as one source.

        Notes
        -----
        Store this table rather than a dict of vectors if symbols contain a slash. AnnData does not write such a dict to
        zarr, and in h5ad the vector of ``A/B`` can be lost if there is also a gene ``A``.

        Examples
        --------
        >>> embeddings = Embeddings(genes=("A", "B"), vectors=np.float32([[1, -1], [-1, 1]]), source_dims=(2,))
        >>> embeddings.to_frame().loc["A"].tolist()
        [1.0, -1.0]
        >>> adata.uns["embeddings"] = fit.embeddings.to_frame()  # doctest: +SKIP
        """
        return standard_frame(self.genes, self.vectors.copy())

    def _describe(self, missing: Iterable[str]) -> str:
        """Name the missing genes, and for the first 20 the nearest symbols."""
        genes = list(missing)
        named = []
        for gene in genes[:20]:
            near = nearest_symbols(gene, self.genes)
            named.append(f"{gene!r} (nearest: {', '.join(near) if near else 'none'})")
        named += map(repr, genes[20:])
        hint = spelling_hint(genes, self._row)
        return f"no embedding for {len(genes)} gene{'s'[: len(genes) > 1]}: {', '.join(named)}{hint and '.' + hint}"


def as_embeddings(
    embeddings: EmbeddingSources,
    adata: AnnData | None = None,
    *,
    genes: Iterable[str] = (),
) -> Embeddings:
    """Turn gene embeddings in any accepted form into `Embeddings`.

    Parameters
    ----------
    embeddings : Embeddings, DataFrame, dict, str, or a list or tuple of these
        A DataFrame has gene symbols as its index and dims as columns. A dict maps symbols to vectors. A str is the key
        of a DataFrame or dict in ``adata.uns``. `Embeddings` are returned as they are. Of a list, the genes that all
        sources have are kept. Each source is standardized over these genes (see `standardize`), and the results are
        concatenated in the order of the list.
    adata : AnnData, optional
        Where a key is looked up.
    genes : iterable of str, optional
        Genes of the screen, to recognize a transposed table.

    Returns
    -------
    Embeddings

    Raises
    ------
    KeyError
        If ``adata.uns`` has no such key.
    TypeError
        If a source has another type.
    ValueError
        If a source is transposed, has duplicated symbols, vectors of different lengths, cells that are not finite
        numbers, rows of zeros or the same vector for all genes, or if the sources share no gene.

    Warns
    -----
    UserWarning
        If genes are left out because a source lacks them.

    Notes
    -----
    If symbols of a dict contain a slash, AnnData reads it back from h5ad as a nested dict. It is accepted like the
    original.
    """
    if isinstance(embeddings, Embeddings):
        return embeddings
    if isinstance(embeddings, list | tuple):
        if not embeddings:
            raise ValueError("embeddings is an empty list. Pass at least one source")
        entries = [_resolve(entry, adata, f"embeddings[{i}]") for i, entry in enumerate(embeddings)]
    else:
        entries = [_resolve(embeddings, adata, "embeddings")]
    known = frozenset(genes)
    sources = [source for entry, where in entries for source in _frames(entry, where, known)]

    in_all = set.intersection(*(set(frame.index) for frame, _ in sources))
    shared = [gene for gene in sources[0][0].index if gene in in_all]
    if not shared:
        examples = "; ".join(f"{where} has {listed(frame.index, 3)}" for frame, where in sources)
        raise ValueError(f"the embedding sources share no gene: {examples}. Use the same gene symbols in all of them")
    blocks = [standardize(frame.loc[shared].to_numpy(), where=where) for frame, where in sources]

    absent = dict.fromkeys(gene for frame, _ in sources for gene in frame.index if gene not in in_all)
    if absent:
        lacks = {where: sum(gene not in frame.index for gene in absent) for frame, where in sources}
        counts = ", ".join(f"{where} lacks {count}" for where, count in lacks.items() if count)
        warnings.warn(
            f"left out genes that some embedding sources lack ({counts}): {listed(absent)}",
            UserWarning,
            stacklevel=2,
        )
    dims = tuple(block.shape[1] for block in blocks)
    return Embeddings(genes=tuple(shared), vectors=np.concatenate(blocks, axis=1), source_dims=dims)


def standardize(vectors: ArrayLike, *, where: str = "embeddings") -> NDArray[np.float32]:
    r"""Center vectors over genes and scale them by one number.

    .. math:: \tilde e_{gd} = \frac{e_{gd} - \bar e_d}{s}, \qquad
              s^2 = \frac{1}{GD} \sum_{g,d} (e_{gd} - \bar e_d)^2

    The mean of :math:`\lVert \tilde e_g \rVert^2` over genes is then the number of dims D. All dims have the same
    scale, so the ratios of distances between genes do not change.

    Parameters
    ----------
    vectors : array_like, shape (genes, dims)
        One row for each gene.
    where : str, optional
        Name of the source in the error.

    Returns
    -------
    ndarray, shape (genes, dims), float32

    Raises
    ------
    ValueError
        If all genes have the same vector.

    Examples
    --------
    >>> standardize([[1.0, 3.0], [3.0, 1.0]]).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    raw = np.asarray(vectors, dtype=np.float64)
    if (raw == raw[:1]).all():
        raise ValueError(f"{where}: all {len(raw)} genes have the same vector. Pass vectors that differ between genes")
    centered = raw - raw.mean(axis=0)
    scale = np.linalg.norm(centered) / np.sqrt(centered.size)
    scaled: NDArray[np.float32] = (centered / scale).astype(np.float32)
    return scaled


def _resolve(entry: Any, adata: AnnData | None, where: str) -> tuple[Any, str]:
    """Look up a key, and refuse an object that is not a source."""
    import pandas as pd

    if isinstance(entry, str):
        if adata is None:
            raise TypeError(f"{where}={entry!r} is a key into adata.uns, but no adata was given{_HINT}")
        if entry not in adata.uns:
            raise KeyError(f"adata.uns has no key {entry!r}; its keys: {', '.join(adata.uns) or 'none'}{_HINT}")
        entry, where = adata.uns[entry], f"adata.uns[{entry!r}]"
    if not isinstance(entry, Embeddings | pd.DataFrame | Mapping):
        hint = _HINT if isinstance(entry, os.PathLike) else ""
        raise TypeError(
            f"{where} must be a DataFrame (genes x dims), a dict of vectors or a key of adata.uns, "
            f"not {type(entry).__name__}{hint}"
        )
    return entry, where


_HINT = ". For a file, pass distpert.read_embeddings(path)"


def _frames(entry: Any, where: str, genes: frozenset[str]) -> Iterator[tuple[pd.DataFrame, str]]:
    """Yield one validated table for each source; Embeddings can have several."""
    import pandas as pd

    if isinstance(entry, Embeddings):
        blocks = np.split(entry.vectors, np.cumsum(entry.source_dims)[:-1], axis=1)
        for block in blocks:
            yield pd.DataFrame(block, index=pd.Index(entry.genes, dtype=object)), where
    else:
        if isinstance(entry, Mapping):
            entry = frame_from_vectors(list(entry), list(entry.values()), where)
        yield validate_embeddings(entry, where, genes), where
