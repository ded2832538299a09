"""Averages over groups with bands from resampling perturbations, a test of flatness, strata, and selective risk.

A group is a perturbation in a context. Genes and contexts of one perturbation are dependent in unknown ways. A resample
therefore takes a perturbation as a whole, with all its groups (the cluster bootstrap; Davison & Hinkley 1997, section
3.8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

INTERVAL = (0.025, 0.975)  # quantiles at the ends of a pointwise band
SIMULTANEOUS = 0.95  # share of resamples with all bars inside a simultaneous band
PRIOR_SIZE = 4  # weight, in perturbations, of the mean variance over bars in the variance of each bar
ROUNDING = 1e-6  # smaller differences of densities, and smaller standard deviations, are rounding errors


class Band(NamedTuple):
    """An average and the ends of its band. All are NaN without a perturbation, the ends also with a single one."""

    value: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class Flatness(NamedTuple):
    """Ends of the simultaneous band (bar,) around a density of 1, and the p-value; NaN for a single perturbation."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    p_value: float


def mean_over_groups(
    values: Float[np.ndarray, "... group"],
    present: Bool[np.ndarray, " group"],
    unit: Int[np.ndarray, " group"],
    n_resamples: int,
    seed: int,
) -> Band:
    r"""Mean over the groups that are present, with its band.

    .. math:: \bar x = \frac{\sum_p \sum_{r \in R_p} x_r}{\sum_p |R_p|}, \qquad
              \bar x^* = \frac{\sum_p w_p \sum_{r \in R_p} x_r}{\sum_p w_p |R_p|},\;
              w \sim \mathrm{Multinomial}(P, 1/P)

    with the groups :math:`R_p` of perturbation p. The band goes from the 2.5 % to the 97.5 % quantile of
    :math:`\bar x^*`. A mean of values that include an infinite one, for instance a width, is infinite.

    Parameters
    ----------
    values
        A value for each group, with any leading dimensions.
    present, unit
        Whether a group counts, and the number of its perturbation.
    n_resamples, seed
        Number of resamples, and their seed.
    """
    sums, sizes = _by_perturbation(values, present, unit)
    if not len(sizes):
        return Band(*np.full((3, *values.shape[:-1]), np.nan))
    mean = sums.sum(axis=-1) / sizes.sum()
    if len(sizes) < 2:
        return Band(mean, *np.full((2, *mean.shape), np.nan))
    return Band(mean, *_interval(_resampled_means(sums, sizes, n_resamples, seed)))


def flatness(
    density: Float[np.ndarray, "bar group"],
    present: Bool[np.ndarray, " group"],
    unit: Int[np.ndarray, " group"],
    n_resamples: int,
    seed: int,
) -> Flatness:
    r"""Test whether a mean density is flat, with all bars at once, by the bootstrap of the largest deviation.

    .. math:: M^* = \max_b \frac{|\bar x_b^* - \bar x_b|}{s_b^*}, \qquad
              M = \max_b \frac{|\bar x_b - 1|}{s_b}, \qquad
              p = \frac{1 + \#\{M^* \ge M\}}{1 + \#\text{resamples}}, \qquad
              s_b^{*2} = \frac{P v_b^* + 4 \bar v}{P + 4}, \qquad
              v_b^* = \frac{\sum_p w_p (\sum_{r \in R_p} x_{br} - |R_p| \bar x_b^*)^2}{(\sum_p w_p |R_p|)^2}

    with :math:`\bar x^*` as in `mean_over_groups` and the variance :math:`v^*` of the resample itself (bootstrap-t). v
    and s are the same for all P perturbations with weights of 1, and :math:`\bar v` is the mean of v over bars. The
    band is :math:`1 \pm q s_b`, cut at 0, with q the 95 % quantile of :math:`M^*`.

    With few perturbations or few genes, the variance of a single bar is poorly known. In a resample without the few
    perturbations that fill the bar, or with one perturbation many times, it is not known at all. Bars therefore borrow
    strength from each other: the variance of each is shrunk towards the mean, as for genes in a moderated t (Smyth
    2004, doi:10.2202/1544-6115.1027).

    Parameters
    ----------
    density
        A histogram for each group, 1 in each bar if flat.
    present, unit, n_resamples, seed
        As in `mean_over_groups`.
    """
    sums, sizes = _by_perturbation(density, present, unit)
    if len(sizes) < 2:
        nothing = np.full(len(density), np.nan)
        return Flatness(nothing, nothing, np.nan)
    mean, weights = sums.sum(axis=-1) / sizes.sum(), _weights(len(sizes), n_resamples, seed).T
    rest, total = sums - mean[:, None] * sizes, sizes @ weights
    deviation = rest @ weights / total
    squares = rest**2 @ weights - 2 * deviation * ((rest * sizes) @ weights) + deviation**2 * (sizes**2 @ weights)
    variance, resampled = (rest**2).sum(axis=-1) / sizes.sum() ** 2, np.maximum(squares, 0) / total**2
    prior = PRIOR_SIZE * variance.mean()
    error, resampled_error = (
        np.sqrt((len(sizes) * own + prior) / (len(sizes) + PRIOR_SIZE)) for own in (variance, resampled)
    )
    largest = _standardized(deviation, resampled_error).max(axis=0)
    reached = largest >= _standardized(mean - 1, error).max()
    half = np.quantile(largest, SIMULTANEOUS) * error
    return Flatness(np.maximum(1 - half, 0), 1 + half, (1 + int(reached.sum())) / (1 + n_resamples))


def selective_risk(
    uncertainty: Float[np.ndarray, " perturbation"],
    risk: Float[np.ndarray, " perturbation"],
    shares: Float[np.ndarray, " share"],
    n_resamples: int,
    seed: int,
) -> Band:
    r"""Mean risk of the least uncertain share of perturbations, relative to the mean of all.

    The risk–coverage curve of selective prediction (El-Yaniv & Wiener 2010), linear between whole numbers of
    perturbations. It is below one if the uncertainty predicts the risk, and one on average if perturbations are in
    random order. An unbiased risk can be negative, and a ratio to a mean that is not above zero has no meaning: the
    curve is NaN for such a mean of all perturbations, and the band is NaN if a resample has such a mean.
    """
    if not len(risk):
        return Band(*np.full((3, len(shares)), np.nan))
    order = np.argsort(uncertainty, kind="stable")

    def curve(weight: NDArray) -> NDArray[np.float64]:
        taken, total = weight[order].cumsum(), (weight * risk)[order].cumsum()
        part = np.interp(shares * taken[-1], np.append(0, taken), np.append(0, total))
        return part / shares / (total[-1] if total[-1] > 0 else np.nan)

    value = curve(np.ones(len(risk)))
    if len(risk) < 2:
        return Band(value, *np.full((2, len(shares)), np.nan))
    weights = _weights(len(risk), n_resamples, seed)
    lower, upper = np.quantile([curve(weight) for weight in weights], INTERVAL, axis=0)
    return Band(value, lower, upper)


def quantile_strata(values: NDArray[np.floating], n_strata: int) -> NDArray[np.int64]:
    """Stratum of each value, from 0 for the smallest; -1 for NaN. Equal in size, but ties stay together."""
    known = ~np.isnan(values)
    strata = np.full(values.shape, -1)
    if known.any():
        limits = np.quantile(values[known], np.arange(1, n_strata) / n_strata)
        strata[known] = np.searchsorted(limits, values[known])
    return strata


def _by_perturbation(
    values: NDArray[np.floating], present: NDArray[np.bool_], unit: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over the groups that are present, (…, perturbation), and count these groups, (perturbation,)."""
    order = np.argsort(unit[present], kind="stable")
    _, first, sizes = np.unique(unit[present][order], return_index=True, return_counts=True)
    if not len(sizes):
        return np.empty((*values.shape[:-1], 0)), np.empty(0)
    return np.add.reduceat(values[..., present][..., order], first, axis=-1), sizes.astype(np.float64)


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Mean over the groups of each resample (…, resample)."""
    weights, infinite = _weights(len(sizes), n_resamples, seed).T, np.isinf(sums)
    means = np.where(infinite, 0, sums) @ weights / (sizes @ weights)
    return np.where(infinite @ weights > 0, np.inf, means)  # infinite values with weight 0 do not count


def _interval(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ends of the band (end, …) from the means of resamples (…, resample)."""
    with np.errstate(invalid="ignore"):
        ends = np.quantile(means, INTERVAL, axis=-1)
    low, high = INTERVAL  # no interpolation between a number and infinity
    outward = np.quantile(means, low, axis=-1, method="lower"), np.quantile(means, high, axis=-1, method="higher")
    return np.where(np.isfinite(ends), ends, outward)


def _standardized(deviation: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations in standard deviations: 0 for a rounding error, and very large if only the spread is one."""
    size = np.abs(deviation)
    return np.where(size > ROUNDING, size / np.maximum(spread, ROUNDING), 0)


def _weights(n_units: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Count how often each perturbation is in each resample (resample, unit)."""
    drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples)
    return drawn.astype(np.float64)
