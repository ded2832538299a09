"""Responses of unseen perturbations, learned from training perturbations that are left out in turn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distpert.model.gaussian_process import explained_variance, leave_one_out, predict_normal
from distpert.posterior.strengths import damped, expected_strengths, left_out_slope, left_out_strengths, tempering

SMOOTHING = 0.5  # a in `Unseen.draw`: standard deviation of the noise, in units of that of residuals
LEARNED = 5  # numbers that are learned of each factor's responses: mean, slope, share, length scale and power
STEPS = 20  # in which strengths, mean and slope are maximized in turn; more steps do not change them


class KernelEigen(NamedTuple):
    """Eigenvalues and eigenvectors of the kernel between training perturbations, with a diagonal of one.

    Attributes
    ----------
    eigenvalues, eigenvectors
        (perturbation,) and (perturbation, perturbation).
    """

    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]


class Unseen(NamedTuple):
    r"""Distribution of unseen responses, learned from training responses.

    A response z has a strength, about the response o that shifts nothing:

    .. math:: z_{pk} = o_k + d_k \hat s_p \big(r_p m_k + \tilde r_p b \mu_{pk} + r_p \sigma_{pk} \varepsilon_{pk}\big) .

    :math:`\mu_p`, :math:`\sigma_p` and the strength :math:`\hat s_p` are predicted from the other perturbations, the
    first two by a Gaussian process on tempered responses, :math:`(z_{pk} - o_k) / (d_k t_p)` about their mean. r is the
    ratio of the perturbation's own strength to the predicted one. In the predicted part it counts less, as
    :math:`\tilde r` (see `damped`). Strengths, m and b are learned as if it counted in full; the rest is in the
    residual ε. A perturbation that does nothing has :math:`\hat s = 0`.

    Attributes
    ----------
    origin
        (factor,) the response o that shifts nothing, see `null_response`.
    size
        (factor,) the size d of each factor: standard deviation of its tempered responses.
    length
        (perturbation,) the lengths t, see `tempering`.
    center
        (factor,) mean of tempered responses, in units of the size.
    share
        (factor,) share of the variance of tempered responses that follows the kernel.
    mean
        (factor,) the mean m of responses of strength one, beyond the predicted part, in units of the size.
    slope
        The slope b, see `left_out_slope`.
    strength
        (perturbation,) the strengths :math:`\hat s r`, see `left_out_strengths`.
    ratio
        (perturbation,) the ratios r of strengths to their predictions from the others, see `expected_strengths`.
    residual
        (perturbation, factor) the residuals ε, divided by the root of 1 − 5 / P: `LEARNED` numbers were learned of
        each factor's P responses. Their variance is a little above one.
    n_genes
        (perturbation,) numbers of genes perturbed.
    residual_scale
        (perturbation, factor) posterior standard deviations v of the responses, in the units of residuals.
    """

    origin: NDArray[np.float64]
    size: NDArray[np.float64]
    length: NDArray[np.float64]
    center: NDArray[np.float64]
    share: NDArray[np.float64]
    mean: NDArray[np.float64]
    slope: float
    strength: NDArray[np.float64]
    ratio: NDArray[np.float64]
    residual: NDArray[np.float64]
    n_genes: NDArray[np.int64]
    residual_scale: NDArray[np.float64]

    def predict(
        self,
        response: Float[np.ndarray, "perturbation factor"],
        response_scale: Float[np.ndarray, "perturbation factor"],
        kernel: KernelEigen,
        cross: Float[np.ndarray, "new perturbation"],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict mean and standard deviation (new, factor) of unseen responses of strength one, beyond the mean m.

        Arguments as in `learn_unseen`; ``cross`` is the kernel between new and training perturbations.
        """
        divisor = self.length[:, None] * self.size
        tempered = (response - self.origin) / divisor - self.center
        mean, scale = predict_normal(self.share, *kernel, cross, tempered, response_scale / divisor)
        return self.size * self.slope * mean, self.size * scale

    def draw(
        self,
        rng: np.random.Generator,
        mean: Float[np.ndarray, " factor"],
        scale: Float[np.ndarray, " factor"],
        strength: float,
        num_draws: int,
    ) -> NDArray[np.float64]:
        r"""Draw responses (draw, factor) of an unseen perturbation.

        Each draw takes ratio and residual of the same training perturbation, so draws are as skewed, and as dependent
        between factors, as responses are. It is a smoothed bootstrap (Silverman & Young 1987) that keeps the mean
        square of :math:`r \varepsilon` where responses are known, and adds their posterior variance,

        .. math:: \varepsilon = \sqrt{1 - a^2} \, \varepsilon_p + \sqrt{a^2
                  \frac{\sum_q r_q^2 \varepsilon_q^2}{\sum_q r_q^2} + v_p^2} \; g, \qquad g \sim \mathrm{Normal}(0, I)

        with a = `SMOOTHING`. Training perturbations are taken in turn, in random order.

        Parameters
        ----------
        rng
            Random number generator.
        mean, scale
            (factor,) of a response of strength one, beyond the mean m, from `predict`.
        strength
            The predicted strength, from `predict_strengths`.
        num_draws
            Number of draws.
        """
        chosen = np.resize(rng.permutation(len(self.ratio)), num_draws)
        ratio, damped_ratio = self.ratio[chosen, None], damped(self.ratio)[chosen, None]
        # Weighted, because large residuals go with small ratios.
        spread = np.sqrt(np.average(self.residual**2, axis=0, weights=self.ratio**2))
        noise = np.sqrt((SMOOTHING * spread) ** 2 + self.residual_scale[chosen] ** 2) * rng.standard_normal(
            (num_draws, len(mean))
        )
        residual = np.sqrt(1 - SMOOTHING**2) * self.residual[chosen] + noise
        return self.origin + strength * (ratio * (self.size * self.mean + scale * residual) + damped_ratio * mean)

    def predict_strengths(
        self,
        kernel: KernelEigen,
        cross: Float[np.ndarray, "new perturbation"],
        n_genes: Int[np.ndarray, " new"],
    ) -> Float[np.ndarray, " new"]:
        """Predict the strengths of unseen perturbations with ``n_genes`` genes each."""
        return expected_strengths(self.strength, *kernel, cross, self.n_genes, n_genes)[1]


def learn_unseen(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    kernel: KernelEigen,
    weight: Float[np.ndarray, " factor"],
    origin: Float[np.ndarray, " factor"],
    n_genes: Int[np.ndarray, " perturbation"],
) -> Unseen:
    """Learn from training perturbations how unseen ones respond.

    Parameters
    ----------
    response, response_scale
        (perturbation, factor) posterior means and standard deviations.
    kernel
        The kernel between training perturbations.
    weight
        (factor,) weights that sum to one.
    origin
        (factor,) the response that shifts nothing.
    n_genes
        (perturbation,) numbers of genes perturbed.
    """
    response = response - origin
    length = tempering(response, weight)
    tempered = response / length[:, None]
    size = tempered.std(axis=0)
    tempered, response, response_scale = tempered / size, response / size, response_scale / size
    center = tempered.mean(axis=0)
    share, _ = explained_variance(tempered - center, *kernel)
    predicted, variance = leave_one_out(share, *kernel, tempered - center)
    mean, slope = center, 1.0
    for _ in range(STEPS):
        strength = left_out_strengths(response, response_scale, mean + slope * predicted, variance, weight)
        mean = (response / strength[:, None] - slope * predicted).mean(axis=0)
        slope = left_out_slope(response / strength[:, None] - mean, predicted, variance, weight)
    no_new = np.zeros((0, len(response)))
    expected, _ = expected_strengths(strength, *kernel, no_new, n_genes, n_genes[:0])
    ratio = strength / expected
    shift = expected[:, None] * (ratio[:, None] * mean + damped(ratio)[:, None] * slope * predicted)
    residual = (response - shift) / (strength[:, None] * np.sqrt(variance))
    residual /= np.sqrt(max(1 - LEARNED / len(response), 1 / len(response)))
    scale = response_scale / (strength[:, None] * np.sqrt(variance))
    return Unseen(origin, size, length, center, share, mean, slope, strength, ratio, residual, n_genes, scale)


def null_response(
    common: Float[np.ndarray, "context gene bin"],
    loading: Float[np.ndarray, "factor gene bin"],
    control: Float[np.ndarray, "context gene bin"],
    n_cells: int,
) -> NDArray[np.float64]:
    r"""Response that shifts nothing, as nearly as a response can: that of a perturbation without any effect.

    .. math:: \min_o \; \frac{n}{C} \sum_{cgb} h_{cgb} \Big(\beta_{cgb} + \sum_k o_k \Lambda_{kgb}\Big)^2 + \sum_k o_k^2

    over the C contexts, with :math:`\beta` and :math:`\Lambda` freed of what shifts all bins of a gene alike. To second
    order, and without the concentration, this is the posterior mode of a perturbation with n cells and the control
    histograms h. The part of the common shift that no response can undo stays.

    Parameters
    ----------
    common
        (context, gene, bin) common shift β.
    loading
        (factor, gene, bin) loadings Λ.
    control
        (context, gene, bin) control histograms h.
    n_cells
        The number n of control cells.
    """
    n_factors = len(loading)
    gram: NDArray[np.float64] = np.eye(n_factors) / n_cells
    projection = np.zeros(n_factors)
    for shift, histogram in zip(common.astype(np.float64), control.astype(np.float64), strict=True):
        root = np.sqrt(histogram)
        both = np.concatenate([loading, shift[None]])
        both = (both - (both * histogram).sum(axis=-1, keepdims=True)) * root
        both = both.reshape(n_factors + 1, -1)
        gram = gram + both[:-1] @ both[:-1].T / len(common)
        projection = projection + both[:-1] @ both[-1] / len(common)
    return np.linalg.solve(gram, -projection).astype(np.float64)
