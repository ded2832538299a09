r"""Scores of predicted histograms against the cells of a perturbation: pure functions of arrays.

In all formulas, p are the predicted probabilities ``probs`` (…, gene, bin), n_b the ``counts`` (…, gene, bin) of the n
observed cells, and w the bin widths ``width`` (gene,). F and F_n are the cumulative sums of p and of counts / n. Scores
are returned for each gene, (…, gene), in double precision, and are NaN where there are no cells. `distpert.score`
averages them over genes. Lower is better, except for `pearson_shift`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Counts = NDArray[np.integer] | NDArray[np.floating]


def negative_log_likelihood(probs: Array, counts: Counts) -> Array:
    r"""Mean negative log probability of the bins of the cells, in nats per cell.

    .. math:: -\tfrac1n \sum_b n_b \log p_b

    Proper (Good 1952). Infinite where cells are in a bin of probability zero; the posterior mean has no such bin.

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    counts : ndarray, shape (…, gene, bin)
        Observed cells in each bin.

    Returns
    -------
    ndarray, shape (…, gene)
        In nats per cell.

    See Also
    --------
    distpert.scores.negative_log_density, distpert.score

    Examples
    --------
    >>> probs, counts = np.array([[0.5, 0.3, 0.2]]), np.array([[6, 3, 1]])
    >>> negative_log_likelihood(probs, counts).round(3).tolist()
    [0.938]
    """
    share = _shares(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(share == 0, 0, share * np.log(_double(probs))).sum(axis=-1)


def negative_log_density(probs: Array, counts: Counts, width: Array) -> Array:
    r"""Mean negative log density of the cells, with each bin's probability spread evenly over its width.

    .. math:: -\tfrac1n \sum_b n_b \log \frac{p_b}{w}

    It differs from `negative_log_likelihood` by log w. It can therefore be compared between bins of different widths,
    and with densities.

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    counts : ndarray, shape (…, gene, bin)
        Observed cells in each bin.
    width : ndarray, shape (gene,)
        Bin widths w.

    Returns
    -------
    ndarray, shape (…, gene)
        In nats per cell; NaN where the width is 0, because a constant gene has no density.

    See Also
    --------
    distpert.scores.negative_log_likelihood, distpert.score

    Examples
    --------
    >>> probs, counts = np.array([[0.5, 0.3, 0.2]]), np.array([[6, 3, 1]])
    >>> negative_log_density(probs, counts, np.array([0.5])).round(3).tolist()
    [0.245]
    """
    width = _double(width)
    log_width = np.log(width, out=np.full_like(width, np.nan), where=width > 0)
    return negative_log_likelihood(probs, counts) + log_width


def cramer(probs: Array, counts: Counts, width: Array, *, n_probs: int | None = None) -> Array:
    r"""Unbiased Cramér distance between the prediction and the distribution from which the cells come.

    .. math:: w \sum_b (F_b - F_{n,b})^2 - \frac{w}{n - 1} \sum_b F_{n,b} (1 - F_{n,b})

    The second term estimates the contribution of the sampling of n cells to the first term. A perfect prediction then
    scores 0 on average for every n; single values can be negative. Proper: it differs from the CRPS by a term that does
    not depend on the prediction (Székely & Rizzo 2013; this is half the energy distance, on bins).

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    counts : ndarray, shape (…, gene, bin)
        Observed cells in each bin.
    width : ndarray, shape (gene,)
        Bin widths w.
    n_probs : int, optional
        Number of cells, if ``probs`` are themselves the shares of cells. The contribution of their sampling is then
        subtracted too, which leaves the distance between the two distributions from which the cells come.

    Returns
    -------
    ndarray, shape (…, gene)
        In the units of the data; NaN for a single cell, which has no spread.

    See Also
    --------
    distpert.scores.crps, distpert.scores.wasserstein, distpert.score

    Examples
    --------
    >>> probs, counts = np.array([[0.5, 0.3, 0.2]]), np.array([[6, 3, 1]])
    >>> cramer(probs, counts, np.array([0.5])).round(4).tolist()
    [-0.0083]
    """
    predicted, observed = _cdf(probs), _cdf(_shares(counts))
    excess = ((predicted - observed) ** 2).sum(axis=-1)
    noise = _sampling(observed, np.asarray(counts).sum(axis=-1))
    if n_probs is not None:
        noise = noise + _sampling(predicted, n_probs)
    return width * (excess - noise)


def crps(probs: Array, counts: Counts, width: Array) -> Array:
    r"""Continuous ranked probability score, averaged over cells.

    .. math:: \tfrac1n \sum_i w \sum_b (F_b - 1\{x_i \le b\})^2
        = w \sum_b \left[(F_b - F_{n,b})^2 + F_{n,b} (1 - F_{n,b})\right]

    Proper (Gneiting & Raftery 2007, eq. 20), on bins.

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    counts : ndarray, shape (…, gene, bin)
        Observed cells in each bin.
    width : ndarray, shape (gene,)
        Bin widths w.

    Returns
    -------
    ndarray, shape (…, gene)
        In the units of the data.

    See Also
    --------
    distpert.scores.cramer, distpert.score

    Examples
    --------
    >>> probs, counts = np.array([[0.5, 0.3, 0.2]]), np.array([[6, 3, 1]])
    >>> crps(probs, counts, np.array([0.5])).round(4).tolist()
    [0.175]
    """
    observed = _cdf(_shares(counts))
    return width * ((_cdf(probs) - observed) ** 2 + observed * (1 - observed)).sum(axis=-1)


def wasserstein(probs: Array, counts: Counts, width: Array) -> Array:
    r"""Wasserstein-1 distance between the predicted and the empirical histogram.

    .. math:: w \sum_b |F_b - F_{n,b}|

    In one dimension the transport cost is the area between the CDFs (Vallender 1974). A perfect prediction does not
    reach 0: see `wasserstein_floor`.

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    counts : ndarray, shape (…, gene, bin)
        Observed cells in each bin.
    width : ndarray, shape (gene,)
        Bin widths w.

    Returns
    -------
    ndarray, shape (…, gene)
        In the units of the data.

    See Also
    --------
    distpert.scores.wasserstein_floor, distpert.scores.cramer, distpert.score

    Examples
    --------
    >>> probs, counts = np.array([[0.5, 0.3, 0.2]]), np.array([[6, 3, 1]])
    >>> wasserstein(probs, counts, np.array([0.5])).round(4).tolist()
    [0.1]
    """
    return width * np.abs(_cdf(probs) - _cdf(_shares(counts))).sum(axis=-1)


def wasserstein_floor(probs: Array, n_cells: Counts, width: Array) -> Array:
    r"""Approximate `wasserstein` distance of a perfect prediction, which comes from the sampling of n cells.

    .. math:: \sqrt{\tfrac{2}{\pi n}} \; w \sum_b \sqrt{F_b (1 - F_b)}

    This is the mean absolute value of the normal limit of each F_n (del Barrio, Giné & Matrán 1999). It is too high
    where few cells are on one side of a bin edge.

    Parameters
    ----------
    probs : ndarray, shape (…, gene, bin)
        Predicted probabilities p.
    n_cells : ndarray
        Numbers n of cells, (…, gene) or anything that broadcasts to it.
    width : ndarray, shape (gene,)
        Bin widths w.

    Returns
    -------
    ndarray, shape (…, gene)
        In the units of the data.

    See Also
    --------
    distpert.scores.wasserstein, distpert.score

    Examples
    --------
    >>> wasserstein_floor(np.array([[0.5, 0.3, 0.2]]), np.array([10]), np.array([0.5])).round(4).tolist()
    [0.1135]
    """
    cdf = np.clip(_cdf(probs), 0, 1)
    return width * np.sqrt(2 / (np.pi * n_cells)) * np.sqrt(cdf * (1 - cdf)).sum(axis=-1)


def relative_absolute_error(predicted: Array, observed: Array) -> Array | np.floating:
    r"""Error of a moment over genes, relative to its size, (…) from (…, gene).

    .. math:: \sum_g |\hat\tau_g - \tau_g| \Big/ \sum_g |\tau_g|

    The RMAE of Ramakrishnan et al. (2025), arXiv:2507.02980.

    Parameters
    ----------
    predicted, observed : ndarray, shape (…, gene)
        A predicted and observed moment of each gene.

    Returns
    -------
    ndarray, shape (…)
        NaN where the observed moment is zero in all genes, or there are no genes.

    See Also
    --------
    distpert.scores.pearson_shift, distpert.score

    Examples
    --------
    >>> round(float(relative_absolute_error(np.array([1.0, 2.0]), np.array([1.5, 2.5]))), 3)
    0.25
    """
    predicted, observed = _double(predicted), _double(observed)
    size = np.abs(observed).sum(axis=-1)
    return np.abs(predicted - observed).sum(axis=-1) / np.where(size > 0, size, np.nan)


def pearson_shift(predicted: Array, observed: Array, reference: Array) -> Array | np.floating:
    r"""Correlation over genes of predicted and observed shifts of the mean from a reference, (…) from (…, gene).

    .. math:: \operatorname{corr}_g(\hat\mu_g - \mu^{\mathrm{ref}}_g, \; \mu_g - \mu^{\mathrm{ref}}_g)

    The reference is the mean in control cells (Roohani et al. 2024), or the mean of training perturbations, which
    removes a shift that all perturbations share (Viñas Torné et al. 2025).

    Parameters
    ----------
    predicted, observed : ndarray, shape (…, gene)
        Predicted and observed means.
    reference : ndarray, shape (…, gene)
        Means from which shifts are measured.

    Returns
    -------
    ndarray, shape (…)
        Higher is better. 0 where either shift is the same for all genes.

    See Also
    --------
    distpert.scores.relative_absolute_error, distpert.score

    Examples
    --------
    >>> predicted, observed, control = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 3.0]), np.ones(3)
    >>> round(float(pearson_shift(predicted, observed, control)), 3)
    0.866
    """
    left, right = _centered_shift(predicted, reference), _centered_shift(observed, reference)
    norm = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    product = (left * right).sum(axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm != 0)


def split_counts(rng: np.random.Generator, counts: NDArray[np.integer]) -> NDArray[np.int64]:
    r"""Draw half of the cells, without replacement, from their counts: ⌊n/2⌋ of the n cells of each gene.

    .. math:: m \sim \mathrm{MultivariateHypergeometric}\big((n_b)_b, \lfloor n/2 \rfloor\big)

    This is the distribution over bins of a random half of the cells. Each gene is halved separately, because counts do
    not show which cells of two genes are the same. The number in bin b is hypergeometric, given the numbers in the bins
    before it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    counts : ndarray, shape (…, gene, bin)
        Cells in each bin.

    Returns
    -------
    ndarray, shape (…, gene, bin)
        Counts of one half. The other half is ``counts`` minus these, with one more cell if n is odd.

    See Also
    --------
    distpert.scores.cramer, distpert.score

    Examples
    --------
    >>> half = split_counts(np.random.default_rng(0), np.array([[6, 3, 2]]))
    >>> half.sum(axis=-1).tolist()
    [5]
    """
    counts = np.asarray(counts, np.int64)
    later = counts.sum(axis=-1)  # cells in bins not yet seen
    wanted = later // 2
    half = np.empty_like(counts)
    for b in range(counts.shape[-1]):
        later = later - counts[..., b]
        half[..., b] = rng.hypergeometric(counts[..., b], later, wanted)
        wanted = wanted - half[..., b]
    return half


def _sampling(cdf: NDArray[np.float64], n_cells: Counts | int) -> NDArray[np.float64]:
    """Estimate the contribution of the sampling of cells to the squared differences of their cumulative shares."""
    n_cells = np.asarray(n_cells)
    return (cdf * (1 - cdf)).sum(axis=-1) / np.where(n_cells > 1, n_cells - 1.0, np.nan)


def _centered_shift(values: Array, reference: Array) -> NDArray[np.float64]:
    """Shifts minus their mean over genes; exactly zero where they differ only by rounding."""
    rounding = 8 * max(np.finfo(array.dtype).eps for array in (values, reference))
    values, reference = _double(values), _double(reference)
    shift = values - reference
    shift = shift - shift.mean(axis=-1, keepdims=True)
    size = np.maximum(np.abs(values), np.abs(reference)).max(axis=-1, keepdims=True)
    return np.where(np.abs(shift).max(axis=-1, keepdims=True) <= rounding * size, 0, shift)


def _shares(counts: Counts) -> NDArray[np.float64]:
    counts = _double(counts)
    n_cells = counts.sum(axis=-1, keepdims=True)
    return counts / np.where(n_cells > 0, n_cells, np.nan)


def _cdf(probs: Array) -> NDArray[np.float64]:
    return _double(probs).cumsum(axis=-1)


def _double(values: Counts) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)
