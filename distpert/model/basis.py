"""Coordinates of shifts along the bins, in which prior and likelihood are both nearly independent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shift_basis(histogram: NDArray, smoothness: float) -> NDArray[np.float64]:
    r"""Directions (gene, bin, direction) in which a gene's logits may shift, best informed first.

    A shift x along B bins is a random walk with autoregressive steps,

    .. math:: x_{b+1} = x_b + \delta_b, \qquad \operatorname{cov}(\delta_a, \delta_b) = \rho^{|a - b|} .

    Cells of a gene with histogram h inform it by the Fisher information diag(h) − hh'. The B − 1 directions V of a gene
    diagonalize both: with :math:`x = V u` up to a constant, which no histogram shows,

    .. math:: u \sim \mathrm{Normal}(0, I), \qquad V' (\operatorname{diag}(h) - h h') V \text{ diagonal.}

    Given the responses, the posterior of u therefore has nearly independent coordinates, as independent normals need.
    Steps that resemble each other continue a shift in its direction into bins without cells. The logarithm of a density
    behaves like this when a distribution moves: it changes more, the farther out the bin.

    Parameters
    ----------
    histogram
        (gene, bin) probabilities h.
    smoothness
        Correlation ρ of each step with the next, from 0 to below 1.
    """
    n_bins = histogram.shape[-1]
    lags = np.abs(np.subtract.outer(np.arange(n_bins - 1), np.arange(n_bins - 1)))
    steps = np.linalg.cholesky(smoothness**lags)
    walk = np.concatenate([np.zeros((1, n_bins - 1)), steps.cumsum(axis=0)])
    h = histogram.astype(np.float64)[..., None]
    centered = walk - (h * walk).sum(axis=-2, keepdims=True)
    _, rotation = np.linalg.eigh(np.swapaxes(centered, -1, -2) @ (h * centered))
    return centered @ rotation[..., ::-1]


def information(basis: NDArray, histogram: NDArray) -> NDArray[np.float64]:
    """Fisher information (..., gene, direction) of one cell on each coordinate, at histograms (..., gene, bin)."""
    mean = np.einsum("...gb,gbj->...gj", histogram, basis)
    return np.maximum(np.einsum("...gb,gbj->...gj", histogram, basis**2) - mean**2, 0)


def coordinates(shift: NDArray, basis: NDArray) -> NDArray[np.float64]:
    """Coordinates u (..., gene, direction) of shifts (..., gene, bin), which are ``basis @ u`` up to a constant."""
    inverse = np.linalg.inv(np.diff(basis, axis=-2))
    return np.einsum("gjs,...gs->...gj", inverse, np.diff(shift, axis=-1))
