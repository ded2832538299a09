"""Whether a perturbation does anything at all: the posterior probability that it is inactive."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

STEPS = 200  # of expectation maximization for the share of inactive perturbations


class Inactive(NamedTuple):
    """Posterior probability of each training perturbation to be inactive (perturbation,), and their share."""

    probability: NDArray[np.float64]
    share: float


def find_inactive(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    predicted: Float[np.ndarray, "perturbation factor"],
    variance: Float[np.ndarray, "perturbation factor"],
    origin: Float[np.ndarray, " factor"],
    tilt: Float[np.ndarray, "perturbation tilt"],
    tilt_scale: Float[np.ndarray, "perturbation tilt"],
    prior_tilt: tuple[Float[np.ndarray, " tilt"], Float[np.ndarray, " tilt"]],
    measured: Bool[np.ndarray, " perturbation"],
) -> Inactive:
    r"""Posterior probability that a perturbation leaves cells as the controls are.

    The model gives every perturbation a response of a normal distribution. In many screens, some do nothing. A
    mixture says so: with probability :math:`\omega` a perturbation has the response o that shifts nothing, and no tilt.
    The Bayes factor of doing nothing is the ratio of posterior to prior density there (Savage & Dickey; Verdinelli &
    Wasserman 1995),

    .. math:: B_p = \frac{q(z_p = o, t_p = 0)}{p(z_p = o, t_p = 0)}, \qquad
              P(\text{inactive}) = \frac{\omega B_p}{\omega B_p + 1 - \omega} ,

    with the prior of :math:`z_p` given the other perturbations. :math:`\omega` has a uniform prior, and its most likely
    value by expectation maximization, with one active and one inactive perturbation added.

    Parameters
    ----------
    response, response_scale
        Posterior means and standard deviations.
    predicted, variance
        Mean and variance of each response given the others.
    origin
        The response o, see `null_response`.
    tilt, tilt_scale, prior_tilt
        Posterior means and standard deviations of tilts, and those of their prior.
    measured
        Whether the perturbation targets a measured gene. If not, its tilt is not known.
    """

    def log_density(at: NDArray | float, mean: NDArray, scale: NDArray) -> NDArray[np.float64]:
        return -0.5 * ((at - mean) / scale) ** 2 - np.log(scale)

    log_factor = (
        log_density(origin, response, response_scale) - log_density(origin, predicted, np.sqrt(variance))
    ).sum(axis=1)
    of_tilts = (log_density(0.0, tilt, tilt_scale) - log_density(0.0, *prior_tilt)).sum(axis=1)
    log_factor += np.where(measured, of_tilts, 0)
    share, factor = 0.5, np.exp(np.clip(log_factor, -700, 700))
    for _ in range(STEPS):
        probability = share * factor / (share * factor + 1 - share)
        share = (probability.sum() + 1) / (len(probability) + 2)
    return Inactive(probability, float(share))
