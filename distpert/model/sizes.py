"""Standard deviations of estimates, by empirical Bayes: where normals of an unknown size start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIZES = np.geomspace(0.003, 3, 60)  # logits a step: an effect below the first of them is none


class Shrunken(NamedTuple):
    """Estimates after shrinkage: size of the prior, posterior means, posterior standard deviations."""

    size: float
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def shrink(estimate: NDArray, variance: NDArray, center: NDArray | float = 0.0) -> Shrunken:
    r"""Shrink estimates towards a center, by as much as they show that they are noise.

    .. math:: \hat u \mid u \sim \mathrm{Normal}(u, v), \qquad u \sim \mathrm{Normal}(m, s^2)

    The size s, one for all, has the greatest marginal likelihood on a grid. Then the posterior is normal, with mean
    :math:`m + (\hat u - m) s^2 / (s^2 + v)` and variance :math:`s^2 v / (s^2 + v)` (Efron & Morris 1973).

    Parameters
    ----------
    estimate, variance
        Estimates and their variances, broadcast against each other; the variance of an estimate without information is
        infinite.
    center
        The mean of the prior.
    """
    precision = 1 / np.asarray(variance)
    excess = estimate - center

    def evidence(size: float) -> float:
        relative = 1 / (1 + size**2 * precision)  # v / (s² + v), also for an infinite v
        return float((np.log(relative) - excess**2 * precision * relative).sum())

    size = float(max(SIZES, key=evidence))
    relative = 1 / (1 + size**2 * precision)
    return Shrunken(size, center + excess * (1 - relative), size * np.sqrt(relative) * np.ones_like(excess))
