"""What embeddings tell about responses: shares of variance, and R² of responses that are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distpert._shared.labels import genes_of
from distpert.embeddings.vectors import Embeddings
from distpert.model.gaussian_process import leave_out
from distpert.model.kernel_choice import MOST_LABELS, POWERS, diagonalize
from distpert.model.kernels import Kernel

STRETCHES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0, 2.8, 4.0, 6.0)  # of the length scales of the chosen kernel
LEAST_WEIGHT = 0.02  # of a factor, relative to the largest, to count
SHARES = np.linspace(0.005, 0.995, 100)


def draw_explained_share(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    weight: Float[np.ndarray, " factor"],
    perturbations: Sequence[str],
    embeddings: Embeddings,
    kernel: Kernel,
    prior: tuple[float, float],
    num_draws: int = 2000,
) -> NDArray[np.float64]:
    r"""Draw the share of the variance of responses that follows the kernel (draw,).

    A factor with the posterior mean m and standard deviations s under the prior of variance 1 has seen the response
    :math:`\hat z = m / (1 - s^2)` with noise of the variance :math:`v = s^2 / (1 - s^2)`. Then

    .. math:: \hat z \sim \mathrm{Normal}\big(0, a (\rho K + (1 - \rho + \bar v) I)\big)

    for the chosen kernel K with length scales from half to six times as long and both powers, each :math:`\rho` of a
    grid, and the amplitude a of greatest likelihood. All kernels enter by their marginal likelihood. Shares of factors
    are averaged by their weights; those of less than 2 % of the largest weight are left out. Of more than 600
    perturbations, as many are taken at random.
    """
    from scipy.special import logsumexp, softmax
    from scipy.stats import beta

    if len(perturbations) > MOST_LABELS:
        rows = np.sort(np.random.default_rng(0).choice(len(perturbations), MOST_LABELS, replace=False))
        perturbations = [perturbations[row] for row in rows]
        response, response_scale = response[rows], response_scale[rows]
    # Factors of noise would blur the choice between kernels.
    real = weight >= LEAST_WEIGHT * weight.max()
    response, response_scale, weight = response[:, real], response_scale[:, real], weight[real] / weight[real].sum()
    spread = np.minimum(response_scale**2, 0.99)
    seen = response / (1 - spread)
    noise = (spread / (1 - spread)).mean(axis=0)
    log_prior = beta.logpdf(SHARES, *prior)
    log_posterior = []
    for stretch, power in product(STRETCHES, POWERS):
        scales = tuple(stretch * scale for scale in kernel.length_scales)
        joint_scale = stretch * kernel.joint_scale
        one = replace(kernel, length_scales=scales, joint_scale=joint_scale, power=power)
        eigenvalues, eigenvectors = diagonalize(perturbations, embeddings, one)
        squared = (eigenvectors.T @ seen) ** 2  # (eigen, factor)
        spectrum = SHARES[:, None, None] * eigenvalues[:, None] + (1 - SHARES[:, None, None]) + noise
        amplitude = (squared / spectrum).mean(axis=1)
        fit = -0.5 * (len(eigenvalues) * np.log(amplitude) + np.log(spectrum).sum(axis=1))  # (share, factor)
        log_posterior.append(fit + log_prior[:, None])
    each = np.stack(log_posterior)  # (kernel, share, factor)
    of_kernel = softmax(logsumexp(each, axis=1).sum(axis=-1))
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(each), num_draws, p=of_kernel)
    cdf = softmax(each, axis=1).cumsum(axis=1)[chosen]  # (draw, share, factor)
    drawn = SHARES[np.minimum((rng.random((num_draws, 1, len(weight))) > cdf).sum(axis=1), len(SHARES) - 1)]
    return drawn @ weight


def left_out_r2(
    response: Float[np.ndarray, "perturbation factor"],
    share: Float[np.ndarray, " factor"],
    eigenvalues: Float[np.ndarray, " eigen"],
    eigenvectors: Float[np.ndarray, "perturbation eigen"],
    weight: Float[np.ndarray, " factor"],
    perturbations: Sequence[str],
) -> dict[str, float]:
    r"""R² of responses that are left out, for single genes and for pairs.

    .. math:: R^2 = 1 - \frac{\sum_{pk} w_k (z_{pk} - \hat z_{pk})^2}{\sum_{pk} w_k z_{pk}^2}

    with :math:`\hat z_p` predicted without p. For a single gene, all labels with this gene are left out with it, as for
    a gene that was never perturbed. For a pair only the pair is, as for a new pair of genes that were.

    Parameters
    ----------
    response
        (perturbation, factor) responses, centered, with unit variance.
    share, eigenvalues, eigenvectors
        Of the Gaussian process.
    weight
        (factor,) weights.
    perturbations
        Labels.
    """
    genes = [frozenset(genes_of(label)) for label in perturbations]
    singles = [i for i, one in enumerate(genes) if len(one) == 1]
    found = {}
    for name, chosen in (("single genes", singles), ("pairs", sorted(set(range(len(genes))) - set(singles)))):
        if not chosen:
            continue
        without = [
            [j for j, other in enumerate(genes) if genes[i] & other] if name == "single genes" else [i] for i in chosen
        ]
        predicted = leave_out(share, eigenvalues, eigenvectors, response, chosen, without)
        error = ((response[chosen] - predicted) ** 2) @ weight
        found[name] = float(1 - error.sum() / ((response[chosen] ** 2) @ weight).sum())
    return found
