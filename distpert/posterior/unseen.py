"""What training perturbations, each left out in turn, tell of the responses of unseen ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from distpert.model.gaussian_process import explained_variance, leave_one_out, predict_normal
from distpert.posterior.strengths import damped, expected_strengths, left_out_slope, left_out_strengths, tempering

SMOOTHING = 0.5  # of residuals, in units of their deviation: see `Unseen.draw`
STEPS = 20  # strengths, mean and slope are maximized in turn; more steps change none of them


class KernelEigen(NamedTuple):
    """Of the kernel between training perturbations, whose diagonal is one.

    Attributes
    ----------
    eigenvalues, eigenvectors
        (perturbation,) and (perturbation, perturbation).
    """

    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]


class Unseen(NamedTuple):
    r"""A distribution of unseen responses, learned from those of training.

    The story of a response z, with o the one that shifts nothing,

    .. math:: z_{pk} = o_k + d_k \hat s_p \big(r_p m_k + \tilde r_p b \mu_{pk} + r_p \sigma_{pk} \varepsilon_{pk}\big),

    where :math:`\mu_p`, :math:`\sigma_p` and the strength :math:`\hat s_p` are told by the other perturbations, the
    first two through a Gaussian process on tempered responses :math:`(z_{pk} - o_k) / (d_k t_p)` about their mean. The
    ratio r of the perturbation's own strength to the one told counts less in what is told of this one alone, as
    :math:`\tilde r` (see `damped`); strengths, m and b are learned as if it counted in full, and the residual is what
    is then left. A perturbation that does nothing has :math:`\hat s = 0`.

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
        (factor,) of the variance of tempered responses that follows the embedding.
    mean
        (factor,) the mean m of responses of strength one, beyond what is told, in units of the size.
    slope
        The slope b, see `left_out_slope`.
    strength
        (perturbation,) the strengths :math:`\hat s r`, see `left_out_strengths`.
    ratio
        (perturbation,) the ratios r of strengths to those that the others tell, see `expected_strengths`.
    residual
        (perturbation, factor) what is left, ε, divided by the root of 1 − K / P: the K loadings were fitted to these
        very P responses, so that what others do outside their span is not in them. Of variance a little above one.
    n_genes
        (perturbation,) numbers of genes perturbed.
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

    def told(
        self,
        response: Float[np.ndarray, "perturbation factor"],
        response_scale: Float[np.ndarray, "perturbation factor"],
        kernel: KernelEigen,
        cross: Float[np.ndarray, "new perturbation"],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation (new, factor) of unseen responses of strength one, beyond the mean of all.

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

        Each draw takes ratio and residual of one training perturbation, which keeps whatever shape they have
        together: a smoothed bootstrap that keeps the mean square of :math:`r \varepsilon` (Silverman & Young 1987),

        .. math:: \varepsilon = \sqrt{1 - a^2} \, \varepsilon_p
                  + a \sqrt{\frac{\sum_p r_p^2 \varepsilon_p^2}{\sum_p r_p^2}} \, g, \qquad g \sim \mathrm{Normal}(0, I)

        with a = `SMOOTHING`. Training perturbations are taken in turn, in random order.

        Parameters
        ----------
        rng
            Random numbers.
        mean, scale
            (factor,) of a response of strength one, beyond the mean of all, from `told`.
        strength
            The strength that is expected, from `strengths_of`.
        num_draws
            How many.
        """
        chosen = np.resize(rng.permutation(len(self.ratio)), num_draws)
        ratio, told_ratio = self.ratio[chosen, None], damped(self.ratio)[chosen, None]
        # Weighted, as large residuals go with small ratios.
        spread = np.sqrt(np.average(self.residual**2, axis=0, weights=self.ratio**2))
        noise = spread * rng.standard_normal((num_draws, len(mean)))
        residual = np.sqrt(1 - SMOOTHING**2) * self.residual[chosen] + SMOOTHING * noise
        return self.origin + strength * (ratio * (self.size * self.mean + scale * residual) + told_ratio * mean)

    def strengths_of(
        self,
        kernel: KernelEigen,
        cross: Float[np.ndarray, "new perturbation"],
        n_genes: Int[np.ndarray, " new"],
    ) -> Float[np.ndarray, " new"]:
        """Strengths that are expected of unseen perturbations, of so many genes each."""
        return expected_strengths(self.strength, *kernel, cross, self.n_genes, n_genes)[1]


def learn_unseen(
    response: Float[np.ndarray, "perturbation factor"],
    response_scale: Float[np.ndarray, "perturbation factor"],
    kernel: KernelEigen,
    weight: Float[np.ndarray, " factor"],
    origin: Float[np.ndarray, " factor"],
    n_genes: Int[np.ndarray, " perturbation"],
) -> Unseen:
    """Learn from training perturbations how unseen ones may respond.

    Parameters
    ----------
    response, response_scale
        (perturbation, factor) posterior means and standard deviations.
    kernel
        Between training perturbations.
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
    told, variance = leave_one_out(share, *kernel, tempered - center)
    mean, slope = center, 1.0
    for _ in range(STEPS):
        strength = left_out_strengths(response, response_scale, mean + slope * told, variance, weight)
        mean = (response / strength[:, None] - slope * told).mean(axis=0)
        slope = left_out_slope(response / strength[:, None] - mean, told, variance, weight)
    nobody = np.zeros((0, len(response)))
    expected, _ = expected_strengths(strength, *kernel, nobody, n_genes, n_genes[:0])
    ratio = strength / expected
    shift = expected[:, None] * (ratio[:, None] * mean + damped(ratio)[:, None] * slope * told)
    residual = (response - shift) / (strength[:, None] * np.sqrt(variance))
    residual /= np.sqrt(1 - response.shape[1] / len(response))
    return Unseen(origin, size, length, center, share, mean, slope, strength, ratio, residual, n_genes)


def null_response(
    common: Float[np.ndarray, "context gene bin"],
    loading: Float[np.ndarray, "factor gene bin"],
    control: Float[np.ndarray, "context gene bin"],
    n_cells: int,
) -> NDArray[np.float64]:
    r"""Response that shifts nothing, as nearly as there is one: what a perturbation without any effect would have.

    .. math:: \min_o \; \frac{n}{C} \sum_{cgb} h_{cgb} \Big(\beta_{cgb} + \sum_k o_k \Lambda_{kgb}\Big)^2 + \sum_k o_k^2

    over C contexts, with :math:`\beta` and :math:`\Lambda` free of what shifts all bins of a gene alike. To second
    order, and but for the concentration, that is the posterior mode for n cells whose histograms are the smoothed ones
    of controls. What all perturbations do in the same measure stays, as do effects of being perturbed at all that no
    response can undo.

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
