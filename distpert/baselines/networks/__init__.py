"""Neural networks that predict from embeddings, and their tuning."""
