"""Networks that predict from embeddings, with their tuning."""
