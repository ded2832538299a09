"""Sampling noise of responses, beyond what independent genes would have: genes of a cell vary together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

LEAST_PARTS = 8  # of the controls, beyond one in each context; with fewer, nothing is learned


def program_noise(
    parts: Int[np.ndarray, "part gene bin"],
    part_n_cells: Int[np.ndarray, " part"],
    part_context: Int[np.ndarray, " part"],
    loading: Float[np.ndarray, "factor gene bin"],
    control: Float[np.ndarray, "context gene bin"],
    n_cells: Float[np.ndarray, " perturbation"],
) -> NDArray[np.float64]:
    r"""Variance of each response that comes from genes varying together between cells (perturbation, factor).

    The model takes genes as independent, given the response. In a cell they are not: programs such as the cell cycle
    move many genes at once, and a sample of n cells has a few more or fewer of the cells in a program. In the direction
    of the loadings this looks like a response. Random parts of the controls show how large it is. A part of m cells has
    the score

    .. math:: u_k = \sum_{gb} \tilde\Lambda_{kgb} \Big(\frac{n_{gb}}{m} - h_{gb}\Big), \qquad
              \operatorname{var} u = C / m ,

    with loadings centered by the histogram h of the controls. With independent genes, C would be the Fisher information
    :math:`A_{kl} = \sum_{gb} h_{gb} \tilde\Lambda_{kgb} \tilde\Lambda_{lgb}` of one cell. A response that is estimated
    from n cells, with the prior of variance one, has in addition the variance

    .. math:: D = \operatorname{diag}\big(n M (C - A) M\big), \qquad M = (n A + I)^{-1},

    and at least 0. It is the correction of the variance for a composite likelihood (Varin, Reid & Firth 2011,
    Statistica Sinica 21, 5).

    Parameters
    ----------
    parts, part_n_cells, part_context
        Numbers of cells in bins, numbers of cells, and positions of the contexts of random parts of the controls.
    loading
        Loadings Λ.
    control
        Control histograms h.
    n_cells
        Numbers of cells of the perturbations.
    """
    n_factors = len(loading)
    information = np.zeros((n_factors, n_factors))
    scatter, freedom = np.zeros((n_factors, n_factors)), 0
    for context, histogram in enumerate(control.astype(np.float64)):
        chosen = part_context == context
        centered = loading - (loading * histogram).sum(axis=-1, keepdims=True)
        rooted = (centered * np.sqrt(histogram)).reshape(n_factors, -1)
        weight = part_n_cells[chosen].sum() / part_n_cells.sum()
        information += weight * rooted @ rooted.T
        if chosen.sum() < 2:
            continue
        m = part_n_cells[chosen].astype(np.float64)
        total = parts[chosen].reshape(len(m), -1) @ centered.reshape(n_factors, -1).T
        mean = total.sum(axis=0) / m.sum()
        scores = (total - m[:, None] * mean) / np.sqrt(m)[:, None]
        scatter += scores.T @ scores
        freedom += len(m) - 1
    noise = np.zeros((len(n_cells), n_factors))
    if freedom < LEAST_PARTS:
        return noise
    excess = scatter / freedom - information
    for row, n in zip(noise, n_cells, strict=True):
        shrunk = np.linalg.inv(n * information + np.eye(n_factors))
        row[:] = np.maximum(n * np.einsum("kl,lm,mk->k", shrunk, excess, shrunk), 0)
    return noise


def widen(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    predicted: Float[np.ndarray, "perturbation factor"],
    variance: Float[np.ndarray, "perturbation factor"],
    strength: Float[np.ndarray, " perturbation"],
    noise: Float[np.ndarray, "perturbation factor"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Posterior means and standard deviations of responses whose sampling noise is larger than the model says.

    With the prior Normal(μ, σ²) given the other perturbations, the posterior Normal(m, s²) has seen the response
    :math:`\hat z` with noise of the variance v,

    .. math:: \frac{1}{v} = \frac{1}{s^2} - \frac{1}{\sigma^2}, \qquad
              \frac{\hat z}{v} = \frac{m}{s^2} - \frac{\mu}{\sigma^2} .

    With noise of the variance v + D, and a prior of the variance :math:`\max(1, s_p^2) \sigma^2` for a perturbation of
    the strength :math:`s_p`, so that strong responses are not shrunk, the posterior follows.

    Parameters
    ----------
    response, response_scale
        Posterior means m and standard deviations s.
    predicted, variance
        Mean μ and variance σ² of each response given the others.
    strength
        Strengths of the responses.
    noise
        Additional variances D, see `program_noise`.
    """
    precision = np.maximum(1 / response_scale**2 - 1 / variance, 1e-3 / variance)
    seen = (response / response_scale**2 - predicted / variance) / precision
    prior = np.maximum(1, strength**2)[:, None] * variance
    spread = 1 / (1 / (1 / precision + noise) + 1 / prior)
    mean = spread * (seen / (1 / precision + noise) + predicted / prior)
    wider = noise > 0
    return np.where(wider, mean, response), np.where(wider, np.sqrt(spread), response_scale)
