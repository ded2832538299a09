"""The generative model, its likelihood, kernel, start and inference."""
