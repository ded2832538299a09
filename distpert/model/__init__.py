"""The generative model: likelihood, kernel, initial values and inference."""
