r"""Coverage and width of predictive intervals: pure functions of arrays.

``draws`` (draw, …) are a sample of a predictive distribution, ``observed`` (…) are the observations, and ``levels``
(level,) are the nominal probabilities of central intervals. Moments of cells have few distinct values, so ties between
draws and observations are common. No result depends on how rounding would break them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating] | NDArray[np.integer]
Levels: TypeAlias = Sequence[float] | NDArray[np.floating]
SAME = 4e-6  # relative difference up to which statistics in single precision count as equal


def central_intervals(draws: Array, levels: Levels) -> tuple[Array, Array]:
    r"""Return the ends of central predictive intervals, each (level, …).

    The quantile of order q of m draws is at rank (m + 1) q, linear between ranks (Weibull 1939; type 6 of Hyndman & Fan
    1996). An interval then covers a further draw with probability equal to its level, on average, for any number of
    draws, up to level (m - 1) / (m + 1).
    """
    tail = (1 - np.asarray(levels)) / 2
    ends = np.quantile(draws, np.concatenate([tail, 1 - tail]), axis=0, method="weibull")
    return ends[: len(tail)], ends[len(tail) :]


def interval_score(lower: Array, upper: Array, observed: Array, levels: Levels) -> Array:
    r"""Interval score (level, …) of intervals (level, …); lower is better.

    .. math:: (u - l) + \tfrac2\alpha (l - x)\,1\{x < l\} + \tfrac2\alpha (x - u)\,1\{x > u\}, \qquad
              \alpha = 1 - \text{level}

    The width plus a penalty for observations outside. Proper for the central interval (Gneiting & Raftery 2007, eq.
    43). In the units of x.
    """
    alpha = (1 - np.asarray(levels)).reshape(-1, *[1] * np.ndim(observed))
    return (upper - lower) + 2 / alpha * (np.maximum(lower - observed, 0) + np.maximum(observed - upper, 0))


def pit_bounds(draws: Array, observed: Array) -> tuple[Array, Array]:
    r"""Start and end of the probability integral transform of each observation, each (…).

    .. math:: F(x^-) = \frac{\#\{y_i < x\}}{m + 1}, \qquad F(x) = \frac{\#\{y_i \le x\} + 1}{m + 1}

    for m draws y, with the observation counted among them. The randomized transform F(x⁻) + v (F(x) - F(x⁻)), v
    uniform, is then exactly uniform if draws and observation are exchangeable, for any m and any ties. Values that
    differ only by rounding count as ties, because different cells can have the same mean.
    """
    size = len(draws) + 1
    rounding = SAME * np.maximum(np.abs(draws).max(axis=0), np.abs(observed))
    below, upto = (draws < observed - rounding).sum(axis=0), (draws <= observed + rounding).sum(axis=0)
    return below / size, (upto + 1) / size


def covered(start: Array, end: Array, levels: Levels) -> Array:
    r"""Share (level, …) of each observation's transform inside the central interval of a level.

    .. math:: \frac{\big(\min(F(x), 1 - \tfrac\alpha2) - \max(F(x^-), \tfrac\alpha2)\big)_+}{F(x) - F(x^-)}, \qquad
              \alpha = 1 - \text{level}

    from `pit_bounds`. This is the probability that the randomized transform is in the interval. For a calibrated
    prediction its mean equals the level, for any number of draws and any ties.
    """
    tail = (1 - np.asarray(levels).reshape(-1, *[1] * np.ndim(start))) / 2
    inside = np.minimum(end, 1 - tail) - np.maximum(start, tail)
    return np.maximum(inside, 0) / (end - start)


def pit_masses(start: Array, end: Array, edges: Array) -> Array:
    r"""Share (…, bin) of each observation's transform between edges (bin + 1,) from 0 to 1.

    .. math:: \bar F(u) = \operatorname{clip}\Big(\frac{u - F(x^-)}{F(x) - F(x^-)}, 0, 1\Big), \qquad
              \bar F(u_{j+1}) - \bar F(u_j)

    This is the randomized transform F(x⁻) + v (F(x) - F(x⁻)), averaged over v instead of drawn once (Czado, Gneiting &
    Held 2009, eq. 2). The histogram is the same on average, but has no noise from v.
    """
    length = np.maximum(end - start, np.finfo(np.float64).tiny)[..., None]
    with np.errstate(over="ignore"):  # a bin of probability zero has all its mass at the start
        below = np.clip((edges - start[..., None]) / length, 0, 1)
    below[..., 0], below[..., -1] = 0, 1  # removes the rounding errors of the cumulative sums
    return np.diff(below, axis=-1)


def cell_pit(
    probs: Float[np.ndarray, "gene bin"], counts: Integer[np.ndarray, "gene bin"], edges: Float[np.ndarray, " edge"]
) -> Float[np.ndarray, "gene pit_bin"]:
    """Share of the cells of each gene with a transform between two edges: `pit_masses` of a histogram."""
    end = probs.cumsum(axis=-1)
    masses = pit_masses(end - probs, end, edges)
    return np.einsum("gb,gbj->gj", counts / counts.sum(axis=-1, keepdims=True), masses)
