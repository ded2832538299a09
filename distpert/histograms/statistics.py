r"""What a histogram of cells is summarized by in predictive checks: pure functions of arrays.

Each takes ``probs`` (..., bin), which sum to one, and ``centers`` (..., bin), evenly spaced and broadcast against them,
and returns (...). A distribution on one point has no shape: its skewness, kurtosis and bimodality are NaN.
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
Statistic: TypeAlias = Callable[[Probs, Centers], NDArray[np.floating]]

_ROUNDING = 1e-5  # of a bin's width


def zero_fraction(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    """Share of cells in the bin that holds expression zero, 0 where no bin does.

    Where the smallest value of a gene is zero, as in nearly all, it is the center of the first bin.
    """
    half = (centers[..., 1:2] - centers[..., :1]) / 2
    slack = _ROUNDING * half
    # Bins hold their left edge; those of a gene that never varies have no width and all one center.
    holds_zero = (centers - half <= slack) & ((centers + half > slack) | (centers == 0))
    return (probs * holds_zero).sum(-1)


def mean(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    """Mean, in the units of the centers."""
    return histogram_moments(probs, centers)[0]


def variance(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    """Variance, in the square of the units of the centers; that of the distribution, without Bessel's correction."""
    return histogram_moments(probs, centers)[1]


def skewness(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    """Skewness; NaN for a point."""
    _, v, s, _ = histogram_moments(probs, centers)
    return np.where(v > 0, s, np.nan)


def kurtosis(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    """Excess kurtosis; NaN for a point."""
    _, v, _, k = histogram_moments(probs, centers)
    return np.where(v > 0, k, np.nan)


def bimodality(probs: Probs, centers: Centers) -> NDArray[np.floating]:
    r"""Sarle's bimodality coefficient; NaN for a point.

    .. math:: b = \frac{s^2 + 1}{k + 3}

    with skewness s and excess kurtosis k of the distribution itself. SAS corrects both for the number of cells
    [1]_; here replicates and observations have the same number, and the correction would cancel.

    Returns
    -------
    ndarray
        (...) between 0 and 1, since :math:`k + 3 \ge s^2 + 1`; 1/3 for a normal distribution, 5/9 for a uniform one,
        and 1 for any distribution on two points.

    Notes
    -----
    More than 5/9 suggests two modes, and no more than that: an exponential distribution reaches 5/9 and heavier skew
    more, while two unequal modes can stay below [1]_. A gene that is seen in few cells is near a distribution on two
    points and has nearly 1. As a statistic of a predictive check it is compared with what replicates have, so that no
    threshold is needed.

    References
    ----------
    .. [1] Pfister, Schwarz, Janczyk, Dale & Freeman (2013), Good things peak in pairs: a note on the bimodality
       coefficient, Frontiers in Psychology 4:700; SAS Institute (1990), SAS/STAT User's Guide, version 6, which credits
       W. Sarle.
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
    """Attributes ``long_name`` and ``units`` of a variable that holds a statistic."""
    return dict(zip(("long_name", "units"), LABELS[name], strict=True))


def named_statistic(statistic: str | Statistic) -> tuple[Statistic, str, str]:
    """Give a statistic's function, long name and units; those of a user's own are its name and none.

    Raises
    ------
    KeyError
        If there is none of this name.
    TypeError
        If it is neither a name nor callable.
    """
    if isinstance(statistic, str):
        if statistic not in STATISTICS:
            raise KeyError(f"no statistic {statistic!r}: there are {', '.join(STATISTICS)}, or pass f(probs, centers)")
        return STATISTICS[statistic], *LABELS[statistic]
    if not callable(statistic):
        raise TypeError(f"statistic must be a name or a function f(probs, centers), not {statistic!r}")
    return statistic, getattr(statistic, "__name__", type(statistic).__name__), ""
