"""Gene embeddings from descriptions in words, with a sentence encoder of the user."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from distpert._shared.arguments import check_count
from distpert._shared.labels import listed
from distpert.embeddings.arrays import to_array
from distpert.embeddings.tables import frame_from_vectors, validate_embeddings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TextEncoder", "embed_text"]


class TextEncoder(Protocol):
    """An object that turns texts into vectors, such as a ``SentenceTransformer``."""

    def encode(self, sentences: list[str], /) -> Any:
        """Return the vectors of texts, array_like (texts, dims). Each depends only on its own text."""


def embed_text(
    descriptions: Mapping[str, str] | pd.Series | pd.DataFrame,
    encoder: TextEncoder | str | os.PathLike[str],
    *,
    batch_size: int = 256,
    progress_bar: bool = True,
) -> pd.DataFrame:
    """Embed descriptions of genes.

    Parameters
    ----------
    descriptions : dict, Series or DataFrame
        Text for each gene symbol: a dict, a Series with symbols as its index, or a DataFrame with one such column.
    encoder : TextEncoder, str or path
        An object with ``encode(list of texts)`` that returns one vector for each text, such as a
        ``SentenceTransformer``. Or the name or folder of a model for ``sentence_transformers.SentenceTransformer``,
        which downloads a model from the Hugging Face Hub on first use. Most encoders cut long texts without a warning;
        see their ``max_seq_length``.
    batch_size : int
        Number of texts that the encoder gets at a time.
    progress_bar : bool
        Whether to show progress when it takes longer than two seconds.

    Returns
    -------
    DataFrame, shape (genes, dims)
        float32, index named "gene", in the order of the descriptions. AnnData can store it in ``adata.uns``.

    Raises
    ------
    ImportError
        If `encoder` names a model and sentence-transformers is not installed.
    TypeError
        If `descriptions` or `encoder` has another type.
    ValueError
        If texts are missing, empty or the same for several genes, symbols are duplicated, or the encoder does not
        return one vector of finite numbers for each text. The message names the genes.

    See Also
    --------
    distpert.read_embeddings, distpert.fit

    Examples
    --------
    >>> texts = {"SOX2": "SRY-box transcription factor 2 ...", "MYC": "MYC proto-oncogene ..."}
    >>> distpert.embed_text(texts, "sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    batch_size = check_count("batch_size", batch_size)
    genes, texts = _checked(descriptions)
    model = _encoder(encoder)
    vectors: list[Any] = []
    with tqdm(total=len(texts), desc="encoding", unit=" texts", delay=2, disable=not progress_bar) as bar:
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            some = listed(genes[start : start + batch_size], 3)
            try:
                found = to_array(model.encode(batch))
            except ValueError as error:
                raise ValueError(f"what the encoder returned for the texts of {some} {error}") from error
            if found.ndim != 2 or len(found) != len(batch):
                raise ValueError(
                    f"the encoder returned an array of shape {found.shape} for the {len(batch)} texts of {some}; it "
                    "must return one vector for each text"
                )
            vectors.extend(found)
            bar.update(len(batch))
    return validate_embeddings(frame_from_vectors(genes, vectors, "text embeddings"), "text embeddings")


def _checked(descriptions: Any) -> tuple[list[str], list[str]]:
    """Return the symbols and their texts; all texts must be present and different."""
    import pandas as pd

    if isinstance(descriptions, pd.DataFrame) and descriptions.shape[1] == 1:
        descriptions = descriptions.iloc[:, 0]
    if not isinstance(descriptions, Mapping | pd.Series):
        columns = isinstance(descriptions, pd.DataFrame)
        found = f"a DataFrame of {descriptions.shape[1]} columns" if columns else type(descriptions).__name__
        raise TypeError(
            f"descriptions must be a dict or a Series, symbol -> text, or one column of a table, not {found}"
        )
    pairs = list(descriptions.items())
    if not pairs:
        raise ValueError("descriptions: no gene has a text")
    genes = [gene for gene, _ in pairs]
    if unnamed := [gene for gene in genes if not isinstance(gene, str) or not gene]:
        raise ValueError(f"descriptions: the index must hold gene symbols, but has {listed(map(repr, unnamed))}")
    if repeated := [gene for gene, times in Counter(genes).items() if times > 1]:
        raise ValueError(f"descriptions: duplicated gene symbols: {listed(repeated)}. Keep one text for each gene")
    if lacking := [gene for gene, text in pairs if not isinstance(text, str) or not text.strip()]:
        raise ValueError(f"descriptions: no text for {listed(lacking)}. Describe these genes, or leave them out")
    genes_of: dict[str, list[str]] = {}
    for gene, text in pairs:
        genes_of.setdefault(text.strip(), []).append(gene)
    if alike := [" = ".join(same) for same in genes_of.values() if len(same) > 1]:
        raise ValueError(
            f"descriptions: these genes have the same text: {listed(alike)}. Describe each in its own words"
        )
    return genes, [text.strip() for _, text in pairs]


def _encoder(encoder: Any) -> TextEncoder:
    """Load a model by its name; return an encoder as it is."""
    if isinstance(encoder, str | os.PathLike):
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError(
                f"to load the model {os.fspath(encoder)!r}, install sentence-transformers (pip install "
                "sentence-transformers; it is the extra 'text' of distpert), or pass an object with .encode(texts)"
            ) from error
        return SentenceTransformer(os.fspath(encoder))
    if not callable(getattr(encoder, "encode", None)) or isinstance(encoder, type):
        raise TypeError(
            f"encoder must be an object with .encode(texts), or the name or folder of a model, not {encoder!r}"
        )
    return encoder
