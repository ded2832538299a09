"""Strengths of responses: some perturbations do much and many do little, unlike in a normal distribution."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distpert.model.gaussian_process import explained_variance, leave_one_out, predict_normal

TEMPER = 0.3  # power of a response's length that is divided out before others are predicted from it
SLOPE_SCALE = 0.25  # prior standard deviation of the slope about one
RATIO_POWER = 0.5  # of the ratio of a strength to its prediction, where it multiplies the predicted part of a response
SHRINK_LABELS = 5  # the mean strength for a number of genes is shrunk towards the overall mean by this many labels


def tempering(
    response: Float[np.ndarray, "perturbation factor"], weight: Float[np.ndarray, " factor"]
) -> NDArray[np.float64]:
    r"""Return the length of each response to the power `TEMPER`, over its geometric mean: (perturbation,).

    .. math:: t_p \propto \Big(\sum_k w_k z_{pk}^2\Big)^{0.3 / 2}

    Otherwise a few strong responses would dominate what is learned of all directions. With power 1 only directions
    would count, and the directions of weak responses are mostly noise.
    """
    # A response of exactly zero has no direction, and stays zero for any length.
    squared = np.maximum(response.astype(np.float64) ** 2 @ weight, 1e-12)
    logs = TEMPER / 2 * np.log(squared)
    return np.exp(logs - logs.mean())


def left_out_slope(
    response: Float[np.ndarray, "perturbation factor"],
    mean: Float[np.ndarray, "perturbation factor"],
    variance: Float[np.ndarray, "perturbation factor"],
    weight: Float[np.ndarray, " factor"],
) -> float:
    r"""Slope of responses of strength one on their predictions from the others, with the prior Normal(1, 0.25²).

    .. math::
        b = \frac{\tau + K \sum_{pk} w_k z_{pk} \mu_{pk} / \sigma_{pk}^2}
                 {\tau + K \sum_{pk} w_k \mu_{pk}^2 / \sigma_{pk}^2}, \qquad \tau = 0.25^{-2}

    ``response`` are the responses z, divided by their strengths and less their mean m; ``mean`` and ``variance`` are
    their predictions μ and σ². Because of the prior, a small screen moves the slope little.
    """
    n_factors, precision = len(weight), SLOPE_SCALE**-2
    product = n_factors * ((mean * response / variance) @ weight).sum()
    square = n_factors * ((mean**2 / variance) @ weight).sum()
    return float((precision + product) / (precision + square))


def left_out_strengths(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    mean: Float[np.ndarray, "perturbation factor"],
    variance: Float[np.ndarray, "perturbation factor"],
    weight: Float[np.ndarray, " factor"],
) -> NDArray[np.float64]:
    r"""Strength of each response, of greatest likelihood given its prediction from the others.

    With a weight on each factor, the maximum over s of

    .. math:: \sum_k w_k \, E \log \mathrm{Normal}(z_{pk} \mid s \mu_{pk}, \; s^2 \sigma_{pk}^2)

    is the positive root of :math:`s^2 + B s - A`, :math:`A = \sum_k w_k E z_{pk}^2 / \sigma_{pk}^2`,
    :math:`B = \sum_k w_k E z_{pk} \mu_{pk} / \sigma_{pk}^2`.

    Parameters
    ----------
    response, response_scale
        (perturbation, factor) posterior means and standard deviations.
    mean, variance
        (perturbation, factor) prediction from the others of each response at strength one.
    weight
        (factor,) weights that sum to one.

    Returns
    -------
    ndarray, shape (perturbation,)
        Strengths; they would all be about one if responses were normal.
    """
    a = ((response**2 + response_scale**2) / variance) @ weight
    b = (response * mean / variance) @ weight
    return (np.sqrt(b**2 + 4 * a) - b) / 2


def damped(ratio: Float[np.ndarray, "*values"]) -> Float[np.ndarray, "*values"]:
    r"""Ratios of strengths to predicted strengths, as they multiply the predicted part of a response: (...).

    .. math:: \tilde r_p = \frac{\bar r}{\overline{\sqrt r}} \sqrt{r_p}

    has the mean of the ratios and is less skewed. A perturbation that does more than predicted does so in part in
    directions that were not predicted. With the power ½, `RATIO_POWER`, errors of medians are smaller than with 1, and
    intervals are better than with 0.
    """
    power = ratio**RATIO_POWER
    return power * (ratio.mean() / power.mean())


def expected_strengths(
    strengths: Float[np.ndarray, " perturbation"],
    eigenvalues: Float[np.ndarray, " eigen"],
    eigenvectors: Float[np.ndarray, "perturbation eigen"],
    cross: Float[np.ndarray, "new perturbation"],
    n_genes: Int[np.ndarray, " perturbation"],
    new_n_genes: Int[np.ndarray, " new"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Strengths predicted from embeddings, by a Gaussian process on their logarithms.

    Relatives of genes that do much tend to do much, and pairs do more than single genes. With the kernel K of the
    responses and the share :math:`\rho` of greatest marginal likelihood,

    .. math:: \frac{\log s_p - m_{|p|}}{d} \sim \mathrm{Normal}(0, C), \qquad C = \rho K + (1 - \rho) I

    with m the mean for labels with as many genes, shrunk towards the overall mean by `SHRINK_LABELS`, and d the
    standard deviation about it. The predicted strength is the exponential of the conditional mean (Rasmussen & Williams
    2006, eq. 2.25; eq. 5.12 if it is predicted from the others).

    Parameters
    ----------
    strengths
        (perturbation,) strengths of training perturbations.
    eigenvalues, eigenvectors
        Of the kernel between training perturbations; its diagonal is one.
    cross
        (new, perturbation) kernel between new and training perturbations.
    n_genes, new_n_genes
        (perturbation,) and (new,) numbers of genes perturbed.

    Returns
    -------
    left_out, new
        (perturbation,) predicted from the others; (new,) predicted from all training perturbations.
    """
    logs = np.log(strengths)
    overall = logs.mean()

    def mean_of(number: int) -> float:
        alike = logs[n_genes == number]
        return float((alike.sum() + SHRINK_LABELS * overall) / (len(alike) + SHRINK_LABELS))

    mean, new_mean = (np.array([mean_of(number) for number in numbers.tolist()]) for numbers in (n_genes, new_n_genes))
    spread = (logs - mean).std()
    if spread < 1e-9:  # only rounding error
        return np.exp(mean), np.exp(new_mean)
    standardized = (logs - mean)[:, None] / spread
    share, _ = explained_variance(standardized, eigenvalues, eigenvectors)
    left_out, _ = leave_one_out(share, eigenvalues, eigenvectors, standardized)
    new, _ = predict_normal(share, eigenvalues, eigenvectors, cross, standardized, np.zeros_like(standardized))
    return np.exp(mean + spread * left_out[:, 0]), np.exp(new_mean + spread * new[:, 0])
