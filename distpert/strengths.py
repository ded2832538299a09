"""How strongly perturbations respond beyond what their embeddings tell: some do much and many do little."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distpert.warm_start import explained_variance


def left_out_strengths(
    error: Float[np.ndarray, "perturbation factor"],
    variance: Float[np.ndarray, "perturbation factor"],
    weight: Float[np.ndarray, " factor"],
) -> NDArray[np.float64]:
    r"""Error of each response when the others tell it, in standard deviations that it should have.

    .. math:: s_p^2 = \frac{1}{1 - K / P} \sum_{k=1}^K w_k \frac{E\,(z_{pk} - \mu_{-p,k})^2}{\sigma_{-p,k}^2}

    The K loadings were fitted to the very P responses, which makes their errors too small; the first factor makes up
    for it as the degrees of freedom of a residual variance do.

    Parameters
    ----------
    error, variance
        (perturbation, factor) squared error and its expectation, as `distpert.gaussian_process.leave_one_out` has them.
    weight
        (factor,) weights that sum to one.

    Returns
    -------
    ndarray, shape (perturbation,)
        About one for all if responses were normal.
    """
    n_perturbations, n_factors = error.shape
    return np.sqrt((error / variance) @ weight / (1 - n_factors / n_perturbations))


def expected_strengths(
    strengths: Float[np.ndarray, " perturbation"],
    eigenvalues: Float[np.ndarray, " perturbation"],
    eigenvectors: Float[np.ndarray, "perturbation perturbation"],
    cross: Float[np.ndarray, "new perturbation"],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Strengths that embeddings tell, by a Gaussian process on their logarithms.

    Relatives of genes that do much tend to do much themselves. With the kernel K of the responses, and the share
    :math:`\rho` that has the greatest marginal likelihood,

    .. math:: \frac{\log s - m}{d} \sim \mathrm{Normal}(0, C), \qquad C = \rho K + (1 - \rho) I

    for the mean m and standard deviation d of the logarithms. What is expected is the exponential of the conditional
    mean (Rasmussen & Williams 2006, eq. 2.25, and eq. 5.12 for the one without itself).

    Parameters
    ----------
    strengths
        (perturbation,) of the training.
    eigenvalues, eigenvectors
        Of the kernel between training perturbations; its diagonal is one.
    cross
        (new, perturbation) kernel between new and training perturbations.

    Returns
    -------
    left_out, new
        (perturbation,) what the others tell of each; (new,) what all tell of new ones.
    """
    logs = np.log(strengths)
    spread = logs.std()
    if spread == 0:
        return strengths.copy(), np.full(len(cross), strengths[0])
    standardised = (logs - logs.mean()) / spread
    share = explained_variance(standardised[:, None], eigenvalues, eigenvectors)[0][0]
    precision = (eigenvectors / (share * eigenvalues + 1 - share)) @ eigenvectors.T
    weighted = precision @ standardised
    left_out = standardised - weighted / np.diag(precision)
    return tuple(np.exp(logs.mean() + spread * told) for told in (left_out, share * cross @ weighted))
