"""Mean, variance, skewness and kurtosis of a histogram, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOMENTS = ("mean", "variance", "skewness", "kurtosis")
EXPRESSION = "log1p expression"  # what all values are in


def histogram_moments(probs: Any, centers: Any) -> tuple[Any, Any, Any, Any]:
    r"""Moments of a distribution that puts probability p_b on bin center x_b.

    .. math::
        \mu = \sum_b p_b x_b, \quad v = \sum_b p_b (x_b - \mu)^2, \quad
        s = v^{-3/2} \sum_b p_b (x_b - \mu)^3, \quad
        k = v^{-2} \sum_b p_b (x_b - \mu)^4 - 3

    Parameters
    ----------
    probs
        (..., bin) probabilities that sum to one; a numpy or jax array.
    centers
        (..., bin) bin centers, broadcast against ``probs``.

    Returns
    -------
    tuple of four arrays
        (...) mean, in the units of the centers; variance, in their square; skewness and excess kurtosis, without
        unit. A distribution on one point has no shape: its skewness and kurtosis are given as 0.

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980, use the same closed forms.
    """
    mean = (probs * centers).sum(-1)
    deviation = centers - mean[..., None]
    weighted = probs * deviation * deviation
    variance = weighted.sum(-1)
    # A standard deviation at the rounding level of the values is that of a point.
    rounding = 8 * np.finfo(variance.dtype).eps * abs(centers).max(-1) + np.finfo(np.float32).tiny
    is_point = variance <= rounding**2
    # Dividing before the powers are taken keeps them within the range of single precision.
    scaled = deviation / (variance + is_point)[..., None] ** 0.5
    squared = scaled * scaled  # numpy's powers take a hundred times as long as its products
    third = (probs * squared * scaled).sum(-1)
    fourth = (probs * squared * squared).sum(-1)
    has_shape = ~is_point  # 1 - is_point would make single precision double
    # Adding zero turns -0.0, which prints badly, into 0.0.
    return mean, has_shape * variance, has_shape * third + 0, has_shape * (fourth - 3) + 0


def moments_of_cells(counts: NDArray[np.integer], centers: NDArray[np.floating]) -> NDArray[np.floating]:
    """Moments (moment, …) of cells from their counts (…, gene, bin), with the arithmetic of drawn replicates.

    Replicates with the same counts have the same moments to the last bit, if ``centers`` (gene, bin) have their
    precision. Cells that are all in one bin have skewness and kurtosis 0, as replicates have. NaN where there are no
    cells.
    """
    n_cells = counts.sum(axis=-1, keepdims=True)
    shares = (counts / np.maximum(n_cells, 1)).astype(np.float32)
    moments = np.stack(histogram_moments(shares, centers))
    return np.where(n_cells[..., 0] > 0, moments, np.float32(np.nan))
