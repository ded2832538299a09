r"""Scores of predicted histograms against the cells of a perturbation: pure functions of arrays.

Throughout, ``probs`` (…, gene, bin) are predicted probabilities p, ``counts`` (…, gene, bin) the cells that were seen,
n of them, ``width`` (gene,) the bin widths w; F and F_n are the cumulative sums of p and of counts / n. Scores are
returned for each gene, (…, gene); averages over genes are the caller's. Lower is better but for `pearson_shift`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def negative_log_likelihood(probs: Array, counts: Array) -> Array:
    r"""Mean negative log probability of the bins of the cells, in nats a cell.

    .. math:: -\tfrac1n \sum_b n_b \log p_b

    Proper (Good 1952). Infinite where cells are in a bin of probability zero; the posterior mean has none.
    """
    share = _shares(counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(share > 0, share * np.log(probs), 0).sum(axis=-1)


def cramer(probs: Array, counts: Array, width: Array) -> Array:
    r"""Cramér distance to the distribution that the cells come from, free of bias.

    .. math:: w \sum_b (F_b - F_{n,b})^2 - \frac{w}{n - 1} \sum_b F_{n,b} (1 - F_{n,b})

    The second term estimates what the sampling of n cells adds to the first, so that a perfect prediction scores 0 on
    average, whatever n; single values can be negative. Proper: it differs from the CRPS by what does not depend on the
    prediction (Székely & Rizzo 2013; the binned form of the energy distance, halved). Needs two cells.
    """
    observed = _shares(counts).cumsum(axis=-1)
    n_cells = counts.sum(axis=-1)
    excess = ((probs.cumsum(axis=-1) - observed) ** 2).sum(axis=-1)
    noise = (observed * (1 - observed)).sum(axis=-1) / (n_cells - 1)
    return width * (excess - noise)


def crps(probs: Array, counts: Array, width: Array) -> Array:
    r"""Continuous ranked probability score, averaged over cells.

    .. math:: \tfrac1n \sum_i w \sum_b (F_b - 1\{x_i \le b\})^2
        = w \sum_b \left[(F_b - F_{n,b})^2 + F_{n,b} (1 - F_{n,b})\right]

    Proper (Gneiting & Raftery 2007, eq. 20), on bins.
    """
    observed = _shares(counts).cumsum(axis=-1)
    return width * ((probs.cumsum(axis=-1) - observed) ** 2 + observed * (1 - observed)).sum(axis=-1)


def wasserstein(probs: Array, counts: Array, width: Array) -> Array:
    r"""Wasserstein-1 distance between the predicted and the empirical histogram.

    .. math:: w \sum_b |F_b - F_{n,b}|

    In one dimension the transport cost is the area between the CDFs (Vallender 1974). It has a floor, see
    `wasserstein_floor`.
    """
    return width * np.abs(probs.cumsum(axis=-1) - _shares(counts).cumsum(axis=-1)).sum(axis=-1)


def wasserstein_floor(probs: Array, n_cells: Array, width: Array) -> Array:
    r"""About what `wasserstein` is for a perfect prediction, from the sampling of n cells alone.

    .. math:: \sqrt{\tfrac{2}{\pi n}} \; w \sum_b \sqrt{F_b (1 - F_b)}

    the mean absolute value of the normal limit of each F_n.
    """
    cdf = np.clip(probs.cumsum(axis=-1), 0, 1)
    return width * np.sqrt(2 / (np.pi * n_cells)) * np.sqrt(cdf * (1 - cdf)).sum(axis=-1)


def relative_absolute_error(predicted: Array, observed: Array) -> Array:
    r"""Error of a moment over genes, relative to its size, (…) from (…, gene).

    .. math:: \sum_g |\hat\tau_g - \tau_g| \Big/ \sum_g |\tau_g|

    The RMAE of Ramakrishnan et al. (2025).
    """
    return np.abs(predicted - observed).sum(axis=-1) / np.abs(observed).sum(axis=-1)


def pearson_shift(predicted: Array, observed: Array, reference: Array) -> Array:
    """Correlation over genes of predicted and observed shifts of the mean from a reference, (…) from (…, gene).

    The reference is the mean in control cells, or the mean of training perturbations, which takes away a shift that
    all perturbations share. 0 where either shift is the same for all genes.
    """
    left, right = _centred_shift(predicted, reference), _centred_shift(observed, reference)
    norm = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    product = (left * right).sum(axis=-1)
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0)


def _centred_shift(values: Array, reference: Array) -> Array:
    """Shifts less their mean over genes; exactly zero where they differ by no more than rounding."""
    shift = values - reference
    shift = shift - shift.mean(axis=-1, keepdims=True)
    size = np.maximum(np.abs(values), np.abs(reference)).max(axis=-1, keepdims=True)
    rounding = 8 * max(np.finfo(values.dtype).eps, np.finfo(reference.dtype).eps) * size
    return np.where(np.abs(shift).max(axis=-1, keepdims=True) <= rounding, 0, shift)


def _shares(counts: Array) -> Array:
    counts = np.asarray(counts, np.float64)
    return counts / counts.sum(axis=-1, keepdims=True)
