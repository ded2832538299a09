"""Draws of histograms, in numpy.

Its gamma sampler is a hundred times faster than that of JAX on a CPU, and draws are the same on every device.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Integer
from numpy.typing import NDArray

# Purposes of random numbers: each has a generator of its own.
HISTOGRAM, REPLICATE, LEVEL, DRAW_OF_CELL, SHIFT, STRENGTH = range(6)
_SMALLEST = 1e-8  # gamma shapes below this give zeros anyway


def softmax(logits: NDArray) -> NDArray:
    """Probabilities along the last axis, in place."""
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def expected_histograms(
    probs: Float32[np.ndarray, "draw gene bin"],
    concentration: Float32[np.ndarray, "*draw_gene"],
    counts: Integer[np.ndarray, "gene bin"] | None = None,
) -> Float32[np.ndarray, "draw gene bin"]:
    """E[h | π, κ, n] = (κ π + n) / (κ + N): the mean of the Dirichlet, given the group's own cells, if any."""
    if counts is None:
        return probs
    counts = counts.astype(np.float32)
    total = concentration + counts.sum(axis=-1)
    return (concentration[..., None] * probs + counts) / total[..., None]


def sample_histograms(
    rng: np.random.Generator,
    probs: Float32[np.ndarray, "draw gene bin"],
    concentration: Float32[np.ndarray, "*draw_gene"],
    counts: Integer[np.ndarray, "gene bin"] | None = None,
) -> Float32[np.ndarray, "draw gene bin"]:
    """Draw h ~ Dirichlet(κ π + n), from independent gammas."""
    shape = concentration[..., None] * probs
    if counts is not None:
        shape += counts
    np.maximum(shape, _SMALLEST, out=shape)
    gammas = rng.standard_gamma(shape, dtype=np.float32)
    total = gammas.sum(axis=-1, keepdims=True)
    # If the concentration is far below one, all gammas can underflow. The histogram then has all its mass in one bin,
    # which is drawn with probability proportional to its shape.
    empty = total[..., 0] == 0
    if empty.any():
        cdf = shape[empty].cumsum(axis=-1)
        chosen = (rng.random((len(cdf), 1)) * cdf[:, -1:] > cdf[:, :-1]).sum(axis=-1)
        gammas[empty] = np.arange(cdf.shape[-1]) == chosen[:, None]
        total = gammas.sum(axis=-1, keepdims=True)
    gammas /= total
    return gammas


def sample_replicates(
    rng: np.random.Generator, histograms: Float[np.ndarray, "draw gene bin"], n_cells: int
) -> Float32[np.ndarray, "draw gene bin"]:
    """Draw histograms of ``n_cells`` cells from each given histogram."""
    exact = histograms.astype(np.float64)
    exact /= exact.sum(axis=-1, keepdims=True)
    return (rng.multinomial(n_cells, exact) / n_cells).astype(np.float32)
