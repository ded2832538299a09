"""Statistics of histograms for predictive checks: pure functions of arrays.

Each takes ``probs`` (..., bin), which sum to 1, and evenly spaced ``centers`` (..., bin), which are broadcast against
them, and returns (...). For a distribution at one point, skewness, kurtosis and bimodality are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distpert.histograms.moments import EXPRESSION, histogram_moments

Probs: TypeAlias = Float[np.ndarray, "... bin"]
Centers: TypeAlias = Float[np.ndarray, "... bin"]
Values: TypeAlias = NDArray[np.floating] | np.floating  # a number for a single histogram
Statistic: TypeAlias = Callable[[Probs, Centers], Values]

_ROUNDING = 1e-5  # of a bin's width


def zero_fraction(probs: Probs, centers: Centers) -> Values:
    """Return the share of cells in the bin that contains expression 0, and 0 if no bin does.

    For almost all genes the smallest value is 0, which is then the center of the first bin.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        Between 0 and 1.

    See Also
    --------
    distpert.statistics.mean, distpert.predictive_check

    Examples
    --------
    >>> zero_fraction(np.array([[0.25, 0.5, 0.25]]), np.array([0.0, 1.0, 2.0])).tolist()
    [0.25]
    """
    half = (centers[..., 1:2] - centers[..., :1]) / 2
    slack = _ROUNDING * half
    # A bin contains its left edge. The bins of a constant gene have no width, and the same center.
    holds_zero = (centers - half <= slack) & ((centers + half > slack) | (centers == 0))
    return (probs * holds_zero).sum(-1)


def mean(probs: Probs, centers: Centers) -> Values:
    """Return the mean.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        In the units of the centers.

    See Also
    --------
    distpert.statistics.variance, distpert.predictive_check

    Examples
    --------
    >>> mean(np.array([[0.25, 0.5, 0.25]]), np.array([0.0, 1.0, 2.0])).tolist()
    [1.0]
    """
    return histogram_moments(probs, centers)[0]


def variance(probs: Probs, centers: Centers) -> Values:
    """Return the variance of the distribution, without Bessel's correction.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        In the square of the units of the centers.

    See Also
    --------
    distpert.statistics.mean, distpert.predictive_check

    Examples
    --------
    >>> variance(np.array([[0.25, 0.5, 0.25]]), np.array([0.0, 1.0, 2.0])).tolist()
    [0.5]
    """
    return histogram_moments(probs, centers)[1]


def skewness(probs: Probs, centers: Centers) -> Values:
    r"""Return the skewness.

    .. math:: s = v^{-3/2} \sum_b p_b (x_b - \mu)^3

    with mean :math:`\mu` and variance v.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        Without unit; NaN for a distribution at one point.

    See Also
    --------
    distpert.statistics.kurtosis, distpert.statistics.bimodality, distpert.predictive_check

    Examples
    --------
    >>> skewness(np.array([[0.8, 0.2]]), np.array([0.0, 1.0])).tolist()
    [1.5]
    """
    _, v, s, _ = histogram_moments(probs, centers)
    return np.where(v > 0, s, np.nan)


def kurtosis(probs: Probs, centers: Centers) -> Values:
    r"""Return the excess kurtosis.

    .. math:: k = v^{-2} \sum_b p_b (x_b - \mu)^4 - 3

    with mean :math:`\mu` and variance v.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        Without unit; NaN for a distribution at one point.

    See Also
    --------
    distpert.statistics.skewness, distpert.statistics.bimodality, distpert.predictive_check

    Examples
    --------
    >>> kurtosis(np.array([[0.5, 0.5]]), np.array([0.0, 2.0])).tolist()
    [-2.0]
    """
    _, v, _, k = histogram_moments(probs, centers)
    return np.where(v > 0, k, np.nan)


def bimodality(probs: Probs, centers: Centers) -> Values:
    r"""Return Sarle's bimodality coefficient.

    .. math:: b = \frac{s^2 + 1}{k + 3}

    with skewness s and excess kurtosis k of the distribution. SAS corrects both for the number of cells [1]_. Here
    replicates and observations have the same number of cells, and the correction would cancel.

    Parameters
    ----------
    probs : ndarray, shape (..., bin)
        Probabilities that sum to 1.
    centers : ndarray, shape (..., bin)
        Evenly spaced bin centers, broadcast against `probs`.

    Returns
    -------
    ndarray, shape (...)
        Between 0 and 1, because :math:`k + 3 \ge s^2 + 1`: 1/3 for a normal distribution, 5/9 for a uniform one, and 1
        for every distribution on two points. NaN for a distribution at one point.

    See Also
    --------
    distpert.statistics.skewness, distpert.statistics.kurtosis, distpert.predictive_check

    Notes
    -----
    More than 5/9 suggests two modes, but does not prove them. An exponential distribution reaches 5/9, and stronger
    skew more, while a distribution with two unequal modes can stay below [1]_. A gene seen in few cells has almost a
    distribution on two points, and nearly 1. A predictive check compares the coefficient with its value in replicates,
    and needs no threshold.

    References
    ----------
    .. [1] Pfister, Schwarz, Janczyk, Dale & Freeman (2013), Good things peak in pairs: a note on the bimodality
       coefficient, Frontiers in Psychology 4:700; SAS Institute (1990), SAS/STAT User's Guide, version 6, which credits
       W. Sarle.

    Examples
    --------
    >>> bimodality(np.array([[0.5, 0.0, 0.5]]), np.array([0.0, 1.0, 2.0])).tolist()
    [1.0]
    """
    _, v, s, k = histogram_moments(probs, centers)
    has_shape = v > 0
    return np.where(has_shape, (s * s + 1) / np.where(has_shape, k + 3, 1), np.nan)


STATISTICS: dict[str, Statistic] = {
    "zero_fraction": zero_fraction,
    "mean": mean,
    "variance": variance,
    "skewness": skewness,
    "kurtosis": kurtosis,
    "bimodality": bimodality,
}
LABELS = {  # long names and units
    "zero_fraction": ("share of cells at zero", "1"),
    "mean": ("mean", EXPRESSION),
    "variance": ("variance", f"{EXPRESSION}²"),
    "skewness": ("skewness", "1"),
    "kurtosis": ("excess kurtosis", "1"),
    "bimodality": ("bimodality coefficient", "1"),
}


def attributes(name: str) -> dict[str, str]:
    """Return the attributes ``long_name`` and ``units`` for a variable with the values of a statistic."""
    return dict(zip(("long_name", "units"), LABELS[name], strict=True))


def named_statistic(statistic: object) -> tuple[Statistic, str, str]:
    """Return the function, long name and units of a statistic. For a function of the user, the units are empty.

    Raises
    ------
    KeyError
        If there is no statistic of this name.
    TypeError
        If it is neither a name nor callable.
    """
    if isinstance(statistic, str):
        if statistic not in STATISTICS:
            raise KeyError(
                f"no statistic {statistic!r}. Pass one of {', '.join(STATISTICS)}, or a function f(probs, centers)"
            )
        return STATISTICS[statistic], *LABELS[statistic]
    if not callable(statistic):
        raise TypeError(f"statistic must be a name or a function f(probs, centers), not {statistic!r}")
    return statistic, getattr(statistic, "__name__", type(statistic).__name__), ""
