"""From cells and embeddings to a fitted model."""
