"""Averages over groups, with bands from resampling perturbations; flatness; strata; risk of the surest predictions.

A group is a perturbation in a context. Genes and contexts of one perturbation are dependent in ways that nobody knows,
so a resample takes or leaves a perturbation as a whole, with all its groups (the cluster bootstrap; Davison & Hinkley
1997, section 3.8).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

INTERVAL = (0.025, 0.975)  # a band's ends, point by point
SIMULTANEOUS = 0.95  # share of resamples that lie in a simultaneous band with all their bars
PRIOR_SIZE = 4  # perturbations that the mean over bars counts for in the variance of each
ROUNDING = 1e-6  # densities that differ by less, and standard deviations below, are rounding


class Band(NamedTuple):
    """An average and the ends of its band; NaN where nothing, or for the band a single perturbation, is there."""

    value: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


class Flatness(NamedTuple):
    """Ends of the simultaneous band (bar,) around a density of 1, and the p-value of one; NaN without resamples."""

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
    r"""Mean over the groups that are present, with the band of that mean.

    .. math:: \bar x = \frac{\sum_p \sum_{r \in R_p} x_r}{\sum_p |R_p|}, \qquad
              \bar x^* = \frac{\sum_p w_p \sum_{r \in R_p} x_r}{\sum_p w_p |R_p|},\;
              w \sim \mathrm{Multinomial}(P, 1/P)

    with the groups :math:`R_p` of perturbation p; the band is from the 2.5 % to the 97.5 % quantile of
    :math:`\bar x^*`. A mean that holds an infinite value, as a width can be, is infinite.

    Parameters
    ----------
    values
        One for each group, with any leading dimensions.
    present, unit
        Whether a group counts, and the number of its perturbation.
    n_resamples, seed
        How often perturbations are resampled, and the seed of it.
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
    r"""Ask whether a mean density is flat, of all its bars at once: the bootstrap of the largest deviation.

    .. math:: M^* = \max_b \frac{|\bar x_b^* - \bar x_b|}{s_b^*}, \qquad
              M = \max_b \frac{|\bar x_b - 1|}{s_b}, \qquad
              p = \frac{1 + \#\{M^* \ge M\}}{1 + \#\text{resamples}}, \qquad
              s_b^{*2} = \frac{P v_b^* + 4 \bar v}{P + 4}, \qquad
              v_b^* = \frac{\sum_p w_p (\sum_{r \in R_p} x_{br} - |R_p| \bar x_b^*)^2}{(\sum_p w_p |R_p|)^2}

    with :math:`\bar x^*` as in `mean_over_groups` and the variance :math:`v^*` of the resample itself (bootstrap-t); v
    and s are those of all P perturbations, with weights of 1, and :math:`\bar v` is the mean of v over bars. The band
    is :math:`1 \pm q s_b`, not below 0, with q the 95 % quantile of :math:`M^*`.

    Few perturbations, or few genes, hardly tell how a single bar varies: a resample that leaves out the only ones that
    fill it, or has one perturbation many times, not at all. Hence the variance is in part that of the other bars, as
    that of a gene is that of others in a moderated t (Smyth 2004, doi:10.2202/1544-6115.1027).

    Parameters
    ----------
    density
        One histogram for each group, 1 in each bar if flat.
    present, unit, n_resamples, seed
        As `mean_over_groups` takes them.
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
    perturbations. Below one where a prediction knows which of its answers are good, one on average where it does not.
    A risk that is free of bias can be negative: NaN where the mean of all is not above zero, and no band where that of
    a resample is not, since no ratio to it means anything.
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
    """Stratum of each value, from 0 for the smallest, -1 for NaN: as many in each as ties, kept together, allow."""
    known = ~np.isnan(values)
    strata = np.full(values.shape, -1)
    if known.any():
        limits = np.quantile(values[known], np.arange(1, n_strata) / n_strata)
        strata[known] = np.searchsorted(limits, values[known])
    return strata


def _by_perturbation(
    values: NDArray[np.floating], present: NDArray[np.bool_], unit: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give sums (…, perturbation) over the groups that are present, and how many these are (perturbation,)."""
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
    return np.where(infinite @ weights > 0, np.inf, means)  # 0 times infinity is none of them


def _interval(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the ends of the band (end, …) of the means of resamples (…, resample)."""
    with np.errstate(invalid="ignore"):
        ends = np.quantile(means, INTERVAL, axis=-1)
    low, high = INTERVAL  # between a number and infinity there is no interpolation
    outward = np.quantile(means, low, axis=-1, method="lower"), np.quantile(means, high, axis=-1, method="higher")
    return np.where(np.isfinite(ends), ends, outward)


def _standardized(deviation: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard deviations: 0 where the deviation is rounding, far above any other where the spread is."""
    size = np.abs(deviation)
    return np.where(size > ROUNDING, size / np.maximum(spread, ROUNDING), 0)


def _weights(n_units: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each perturbation is in each resample (resample, unit)."""
    drawn = np.random.default_rng(seed).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples)
    return drawn.astype(np.float64)
