"""Gene embeddings: one vector for each gene and source, and sums of vectors for combinations of genes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.labels import genes_of, listed, spelling_hint
from distpert._shared.symbols import nearest_symbols
from distpert.embeddings.tables import standard_frame

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Embeddings"]


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Standardized gene embeddings, such as those of a fit (``fit.embeddings``).

    Several sources (text, literature, a protein model) stay apart: each has its own genes and its own scale.

    Attributes
    ----------
    genes : tuple of str
        Gene symbols, each once: all genes that any source has.
    vectors : ndarray, shape (genes, dims), float32
        One row for each gene. The columns of the first source come first, then those of the second, and so on. Zero,
        the mean of the source, where a source lacks a gene.
    source_dims : tuple of int
        Number of dims of each source; their sum is dims.
    source_names : tuple of str
        Names of the sources; by default "source 1", "source 2", and so on.
    covered : ndarray, shape (genes, sources), bool
        Whether a source has a gene; by default it has all.
    aliases : mapping of str to str
        Other names of genes, such as previous symbols, with the symbol in `genes`.

    Raises
    ------
    ValueError
        If the shape of the vectors does not fit the genes and dims, or there is not one name for each source.

    See Also
    --------
    distpert.fit, distpert.read_embeddings, distpert.embed_text, distpert.datasets.gene_embeddings

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
    source_names: tuple[str, ...] = ()
    covered: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), bool))
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_sources = len(self.source_dims)
        if not self.source_names:
            object.__setattr__(self, "source_names", tuple(f"source {i + 1}" for i in range(n_sources)))
        if not self.covered.size:
            object.__setattr__(self, "covered", np.ones((len(self.genes), n_sources), bool))
        expected = (len(self.genes), sum(self.source_dims))
        if np.shape(self.vectors) != expected:
            raise ValueError(
                f"vectors must have the shape {expected}, from genes and source_dims, not {np.shape(self.vectors)}"
            )
        if self.covered.shape != (len(self.genes), n_sources):
            raise ValueError(f"covered must have the shape {(len(self.genes), n_sources)}, not {self.covered.shape}")
        if len(self.source_names) != n_sources or len(set(self.source_names)) < n_sources:
            raise ValueError(f"{n_sources} sources need as many different names, not {self.source_names}")

    def __repr__(self) -> str:
        n_genes, n_dims = self.vectors.shape
        if len(self.source_dims) == 1:
            return f"Embeddings: {n_genes:,} genes x {n_dims} dims (1 source)"
        each = zip(self.source_names, self.source_dims, self.covered.sum(axis=0), strict=True)
        parts = ", ".join(f"{name} {dims}" + ("" if n == n_genes else f" for {n:,} genes") for name, dims, n in each)
        return f"Embeddings: {n_genes:,} genes x {n_dims} dims ({len(self.source_dims)} sources: {parts})"

    @cached_property
    def _row(self) -> dict[str, int]:
        rows = {gene: row for row, gene in enumerate(self.genes)}
        return {alias: rows[gene] for alias, gene in self.aliases.items() if gene in rows} | rows

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return len(self.source_dims)

    def covers(self, labels: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each source has all genes of a label (label, source).

        Parameters
        ----------
        labels : sequence of str
            Genes ``A`` or combinations ``A+B``.

        Returns
        -------
        ndarray, shape (labels, sources), bool

        Examples
        --------
        >>> covered = np.array([[True, True], [True, False]])
        >>> embeddings = Embeddings(("A", "B"), np.float32([[1, 1], [-1, 0]]), (1, 1), covered=covered)
        >>> embeddings.covers(["A", "A+B"]).tolist()
        [[True, True], [True, False]]
        """
        found = np.zeros((len(labels), self.n_sources), bool)
        for i, label in enumerate(labels):
            if self.has(label):
                found[i] = self.covered[[self._row[gene] for gene in genes_of(label)]].all(axis=0)
        return found

    def source(self, name: str) -> Embeddings:
        """Return one source, with its own genes.

        Parameters
        ----------
        name : str
            One of `source_names`.

        Returns
        -------
        Embeddings

        Raises
        ------
        KeyError
            If there is no such source.

        Examples
        --------
        >>> covered = np.array([[True, True], [True, False]])
        >>> embeddings = Embeddings(("A", "B"), np.float32([[1, 1], [-1, 0]]), (1, 1), ("text", "go"), covered)
        >>> embeddings.source("go").genes
        ('A',)
        """
        if name not in self.source_names:
            raise KeyError(f"no source {name!r}; the sources are {listed(self.source_names)}")
        i = self.source_names.index(name)
        rows, columns = np.flatnonzero(self.covered[:, i]), self.columns(i)
        genes = tuple(self.genes[row] for row in rows)
        return Embeddings(genes, self.vectors[rows, columns], (self.source_dims[i],), (name,), aliases=self.aliases)

    def columns(self, source: int) -> slice:
        """Return the columns of a source among those of `vectors`.

        Parameters
        ----------
        source : int
            Position of the source.

        Returns
        -------
        slice

        Examples
        --------
        >>> Embeddings(("A",), np.zeros((1, 5), np.float32), (2, 3)).columns(1)
        slice(2, 5, None)
        """
        start = sum(self.source_dims[:source])
        return slice(start, start + self.source_dims[source])

    def has(self, label: str) -> bool:
        """Whether every gene of a label has an embedding, of any source.

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
            of the genes makes no difference, to the last bit. A gene named twice counts twice. Where a source lacks a
            gene, its part is zero.

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
            makes of this table have the same vectors, up to rounding. They count as one source that has all genes; for
            one source alone, see `source`.

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
