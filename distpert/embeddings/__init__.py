"""Gene embeddings: reading, checks, standardization, and sums for combinations of genes."""

from distpert.embeddings.files import read_embeddings
from distpert.embeddings.sources import EmbeddingSources, as_embeddings, standardize
from distpert.embeddings.text import embed_text
from distpert.embeddings.vectors import Embeddings

__all__ = ["EmbeddingSources", "Embeddings", "as_embeddings", "embed_text", "read_embeddings", "standardize"]
