"""Gene embeddings in any accepted form, brought to one: sources that are validated and standardized."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np

from distpert._shared.labels import listed
from distpert.embeddings.tables import frame_from_vectors, validate_embeddings
from distpert.embeddings.vectors import Embeddings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray

EmbeddingSource: TypeAlias = "Embeddings | pd.DataFrame | Mapping[str, ArrayLike] | str"
EmbeddingSources: TypeAlias = "EmbeddingSource | Sequence[EmbeddingSource] | Mapping[str, Embeddings | pd.DataFrame]"

__all__ = ["as_embeddings", "standardize"]


def as_embeddings(
    embeddings: EmbeddingSources,
    adata: AnnData | None = None,
    *,
    genes: Iterable[str] = (),
) -> Embeddings:
    """Turn gene embeddings in any accepted form into `Embeddings`.

    Parameters
    ----------
    embeddings : Embeddings, DataFrame, dict, str, or a list or dict of these
        A DataFrame has gene symbols as its index and dims as columns. A dict maps symbols to vectors. A str is the key
        of a DataFrame or dict in ``adata.uns``. `Embeddings` are returned as they are. The sources of a list stay
        apart, and each is standardized over its own genes (see `standardize`). A dict of DataFrames or `Embeddings`
        names the sources. A gene needs one source only.
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
        numbers, rows of zeros or the same vector for all genes, or if a source shares no gene with the others.

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
    elif _names_sources(embeddings):
        entries = [_resolve(entry, adata, str(name)) for name, entry in embeddings.items()]
    else:
        entries = [_resolve(embeddings, adata, "embeddings")]
    known = frozenset(genes)
    sources = [source for i, (entry, where) in enumerate(entries, 1) for source in _sources(entry, where, i, known)]
    union = tuple(dict.fromkeys(gene for source in sources for gene in source.genes))
    row = {gene: i for i, gene in enumerate(union)}
    covered = np.zeros((len(union), len(sources)), bool)
    vectors = np.zeros((len(union), sum(source.vectors.shape[1] for source in sources)), np.float32)
    start = 0
    for i, source in enumerate(sources):
        rows, dims = [row[gene] for gene in source.genes], source.vectors.shape[1]
        covered[rows, i] = True
        vectors[rows, start : start + dims] = source.vectors
        start += dims
    for i, source in enumerate(sources):
        if len(sources) > 1 and not covered[:, np.arange(len(sources)) != i][covered[:, i]].any():
            examples = "; ".join(f"{one.where} has {listed(one.genes, 3)}" for one in sources)
            raise ValueError(
                f"{source.where} shares no gene with the other sources: {examples}. Use the same gene symbols in all"
            )
    aliases = {alias: gene for source in sources[::-1] for alias, gene in source.aliases.items()}
    dims = tuple(source.vectors.shape[1] for source in sources)
    return Embeddings(union, vectors, dims, _distinct([source.name for source in sources]), covered, aliases)


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
            raise TypeError(f"{where}={entry!r} is a key into adata.uns, but there is no AnnData to look it up{_HINT}")
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


class _Source(NamedTuple):
    """One validated and standardized source."""

    genes: tuple[str, ...]
    vectors: NDArray[np.float32]
    name: str
    where: str  # for messages
    aliases: Mapping[str, str]


def _sources(entry: Any, where: str, number: int, genes: frozenset[str]) -> Iterator[_Source]:
    """Yield the sources of an entry; Embeddings can have several."""
    if isinstance(entry, Embeddings):
        given = not where.startswith("embeddings") or entry.source_names == ("source 1",)
        for name in entry.source_names:
            one = entry.source(name)
            named = _name_of(where, number) if entry.n_sources == 1 and given else name
            yield _Source(one.genes, standardize(one.vectors, where=where), named, where, entry.aliases)
        return
    if isinstance(entry, Mapping):
        entry = frame_from_vectors(list(entry), list(entry.values()), where)
    frame = validate_embeddings(entry, where, genes)
    vectors = standardize(frame.to_numpy(), where=where)
    yield _Source(tuple(frame.index), vectors, _name_of(where, number), where, {})


def _name_of(where: str, number: int) -> str:
    """Name a source: the key that it has in ``adata.uns`` or in a dict, or else its number."""
    if where.startswith("adata.uns["):
        return where.removeprefix("adata.uns[")[1:-2]
    return f"source {number}" if where.startswith("embeddings") else where


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Add numbers to names that occur twice."""
    found: list[str] = []
    for name in names:
        number, distinct = 1, name
        while distinct in found:
            number += 1
            distinct = f"{name} ({number})"
        found.append(distinct)
    return tuple(found)


def _names_sources(embeddings: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a dict names whole sources, rather than genes."""
    import pandas as pd

    if not isinstance(embeddings, Mapping) or not embeddings:
        return False
    return all(isinstance(entry, Embeddings | pd.DataFrame) for entry in embeddings.values())
