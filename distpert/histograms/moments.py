"""Mean, variance, skewness and kurtosis of a histogram, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOMENTS = ("mean", "variance", "skewness", "kurtosis")
EXPRESSION = "log1p expression"  # unit of all values


def histogram_moments(probs: Any, centers: Any) -> tuple[Any, Any, Any, Any]:
    r"""Return the moments of a distribution with probability p_b at bin center x_b.

    .. math::
        \mu = \sum_b p_b x_b, \quad v = \sum_b p_b (x_b - \mu)^2, \quad
        s = v^{-3/2} \sum_b p_b (x_b - \mu)^3, \quad
        k = v^{-2} \sum_b p_b (x_b - \mu)^4 - 3

    Parameters
    ----------
    probs
        (..., bin) probabilities that sum to 1; a numpy or jax array.
    centers
        (..., bin) bin centers, broadcast against ``probs``.

    Returns
    -------
    tuple of four arrays
        (...) mean, in the units of the centers; variance, in their square; skewness and excess kurtosis, without
        unit. A distribution at one point has no skewness and no kurtosis, and both are returned as 0.

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980, use the same closed forms.

    Examples
    --------
    >>> [moment.tolist() for moment in histogram_moments(np.array([[0.5, 0.5]]), np.array([0.0, 2.0]))]
    [[1.0], [1.0], [0.0], [-2.0]]
    """
    mean = (probs * centers).sum(-1)
    deviation = centers - mean[..., None]
    weighted = probs * deviation * deviation
    variance = weighted.sum(-1)
    # A standard deviation within the rounding of the values counts as 0.
    rounding = 8 * np.finfo(variance.dtype).eps * abs(centers).max(-1) + np.finfo(np.float32).tiny
    is_point = variance <= rounding**2
    # Division before the powers keeps them within the range of single precision.
    scaled = deviation / (variance + is_point)[..., None] ** 0.5
    squared = scaled * scaled  # a product is a hundred times as fast as a power in numpy
    third = (probs * squared * scaled).sum(-1)
    fourth = (probs * squared * squared).sum(-1)
    has_shape = ~is_point  # 1 - is_point would turn single precision into double
    # Adding 0 turns -0.0 into 0.0.
    return mean, has_shape * variance, has_shape * third + 0, has_shape * (fourth - 3) + 0


def moments_of_cells(counts: NDArray[np.integer], centers: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the moments (moment, …, gene) of cells from their counts (…, gene, bin), as those of drawn replicates.

    Replicates with the same counts have the same moments to the last bit, if ``centers`` (gene, bin) have the same
    precision. If all cells are in one bin, skewness and kurtosis are 0, as for replicates. NaN where there are no
    cells.
    """
    n_cells = counts.sum(axis=-1, keepdims=True)
    shares = (counts / np.maximum(n_cells, 1)).astype(np.float32)
    moments = np.stack(histogram_moments(shares, centers))
    return np.where(n_cells[..., 0] > 0, moments, np.float32(np.nan))
