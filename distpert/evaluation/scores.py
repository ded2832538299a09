r"""Scores of predicted histograms against the cells of a perturbation: pure functions of arrays.

Throughout, ``probs`` (…, gene, bin) are predicted probabilities p, ``counts`` (…, gene, bin) the cells that were seen,
n of them, ``width`` (gene,) the bin widths w; F and F_n are the cumulative sums of p and of counts / n. Scores are
returned for each gene, (…, gene), in double precision whatever is given, and NaN where there are no cells. Averages
over genes are the caller's: `distpert.score` takes them. Lower is better but for `pearson_shift`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Counts = NDArray[np.integer] | NDArray[np.floating]


def negative_log_likelihood(probs: Array, counts: Counts) -> Array:
    r"""Mean negative log probability of the bins of the cells, in nats a cell.

    .. math:: -\tfrac1n \sum_b n_b \log p_b

    Proper (Good 1952). Infinite where cells are in a bin of probability zero; the posterior mean has none.
    """
    share = _shares(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(share == 0, 0, share * np.log(_double(probs))).sum(axis=-1)


def negative_log_density(probs: Array, counts: Counts, width: Array) -> Array:
    r"""Mean negative log density of the cells, with each bin's probability spread evenly over its width.

    .. math:: -\tfrac1n \sum_b n_b \log \frac{p_b}{w}

    It differs from `negative_log_likelihood` by log w, and so allows a comparison between bins of other widths and with
    densities. NaN where the width is 0: a constant gene has no density.
    """
    width = _double(width)
    log_width = np.log(width, out=np.full_like(width, np.nan), where=width > 0)
    return negative_log_likelihood(probs, counts) + log_width


def cramer(probs: Array, counts: Counts, width: Array, *, n_probs: int | None = None) -> Array:
    r"""Cramér distance to the distribution that the cells come from, free of bias.

    .. math:: w \sum_b (F_b - F_{n,b})^2 - \frac{w}{n - 1} \sum_b F_{n,b} (1 - F_{n,b})

    The second term estimates what the sampling of n cells adds to the first, so that a perfect prediction scores 0 on
    average, whatever n; single values can be negative. Proper: it differs from the CRPS by what does not depend on the
    prediction (Székely & Rizzo 2013; the binned form of the energy distance, halved). NaN for a single cell, whose
    spread nobody knows.

    Where ``probs`` are themselves the shares of ``n_probs`` cells, what their sampling adds is taken away as well: the
    distance between the two distributions that the cells come from.
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
    """
    observed = _cdf(_shares(counts))
    return width * ((_cdf(probs) - observed) ** 2 + observed * (1 - observed)).sum(axis=-1)


def wasserstein(probs: Array, counts: Counts, width: Array) -> Array:
    r"""Wasserstein-1 distance between the predicted and the empirical histogram.

    .. math:: w \sum_b |F_b - F_{n,b}|

    In one dimension the transport cost is the area between the CDFs (Vallender 1974). It has a floor, see
    `wasserstein_floor`.
    """
    return width * np.abs(_cdf(probs) - _cdf(_shares(counts))).sum(axis=-1)


def wasserstein_floor(probs: Array, n_cells: Counts, width: Array) -> Array:
    r"""About what `wasserstein` is for a perfect prediction, from the sampling of n cells alone.

    .. math:: \sqrt{\tfrac{2}{\pi n}} \; w \sum_b \sqrt{F_b (1 - F_b)}

    the mean absolute value of the normal limit of each F_n (del Barrio, Giné & Matrán 1999). Where few cells are on one
    side of a bin edge it is too high.
    """
    cdf = np.clip(_cdf(probs), 0, 1)
    return width * np.sqrt(2 / (np.pi * n_cells)) * np.sqrt(cdf * (1 - cdf)).sum(axis=-1)


def relative_absolute_error(predicted: Array, observed: Array) -> Array:
    r"""Error of a moment over genes, relative to its size, (…) from (…, gene).

    .. math:: \sum_g |\hat\tau_g - \tau_g| \Big/ \sum_g |\tau_g|

    The RMAE of Ramakrishnan et al. (2025). NaN where the moment is zero in all genes, or there are no genes.
    """
    predicted, observed = _double(predicted), _double(observed)
    size = np.abs(observed).sum(axis=-1)
    return np.abs(predicted - observed).sum(axis=-1) / np.where(size > 0, size, np.nan)


def pearson_shift(predicted: Array, observed: Array, reference: Array) -> Array:
    r"""Correlation over genes of predicted and observed shifts of the mean from a reference, (…) from (…, gene).

    .. math:: \operatorname{corr}_g(\hat\mu_g - \mu^{\mathrm{ref}}_g, \; \mu_g - \mu^{\mathrm{ref}}_g)

    The reference is the mean in control cells (Roohani et al. 2024), or the mean of training perturbations, which takes
    away a shift that all perturbations share (Viñas Torné et al. 2025). 0 where either shift is the same for all genes.
    """
    left, right = _centered_shift(predicted, reference), _centered_shift(observed, reference)
    norm = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    product = (left * right).sum(axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm != 0)


def split_counts(rng: np.random.Generator, counts: NDArray[np.integer]) -> NDArray[np.int64]:
    r"""Draw half of the cells, without replacement, from their counts: ⌊n/2⌋ of the n cells of each gene.

    .. math:: m \sim \mathrm{MultivariateHypergeometric}\big((n_b)_b, \lfloor n/2 \rfloor\big)

    This is how half of the cells falls into bins when it is chosen at random. Each gene is halved by itself: counts do
    not tell which cells of two genes are the same. Bin by bin, the number that falls into bin b is hypergeometric given
    those before it.

    Parameters
    ----------
    rng
        Random numbers.
    counts
        (…, gene, bin).

    Returns
    -------
    ndarray
        (…, gene, bin) counts of one half; ``counts`` less these are the other, with one cell more if n is odd.
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
    """Estimate what the sampling of so many cells adds to the squared differences of their cumulative shares."""
    n_cells = np.asarray(n_cells)
    return (cdf * (1 - cdf)).sum(axis=-1) / np.where(n_cells > 1, n_cells - 1.0, np.nan)


def _centered_shift(values: Array, reference: Array) -> NDArray[np.float64]:
    """Shifts less their mean over genes; exactly zero where they differ by no more than rounding."""
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
