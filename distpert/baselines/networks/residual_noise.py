"""Errors of a network's predictions that a Dirichlet distribution does not explain: shifts of whole histograms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR_GROUPS = 10.0  # groups that the average over genes counts for, in the variance of one gene
LEAST_STRENGTH = 0.2


class ResidualNoise(NamedTuple):
    r"""Random shifts of the logits, about a prediction.

    A Dirichlet distribution lets bins vary independently, up to their sum. The errors of a prediction are not so: a
    histogram that moves a little shifts all its bins. Errors of the mean are then larger than the concentration says.
    The rest is a random shift

    .. math:: V_g u, \qquad u \sim \mathrm{Normal}(0, s^2 \tau_g^2 I)

    with the directions V of `distpert.model.basis.shift_basis`, a scale τ for every gene, and a strength s for every
    perturbation, as large as that of a training perturbation taken at random.

    Attributes
    ----------
    scale
        (gene,) the scales τ.
    strengths
        (group,) the strengths s of training groups; their mean square is one.
    """

    scale: NDArray[np.float32]
    strengths: NDArray[np.float32]

    def draw(self, rng: np.random.Generator, basis: NDArray, genes: slice, strength: NDArray) -> NDArray[np.float32]:
        """Draw shifts (draw, gene, bin) of the logits of an unseen perturbation, given a strength for each draw."""
        size = strength[:, None] * self.scale[genes]
        coordinates = rng.standard_normal((*size.shape, basis.shape[-1]), np.float32) * size[..., None]
        return _along(basis[genes], coordinates)

    def draw_given(
        self,
        rng: np.random.Generator,
        basis: NDArray,
        genes: slice,
        probs: NDArray,
        concentration: NDArray,
        counts: NDArray,
    ) -> NDArray[np.float32]:
        """Draw shifts (draw, gene, bin) given a group's own cells, for strength one.

        The likelihood is approximated by a normal one at the prediction, with the variance of a Dirichlet-multinomial.
        ``probs`` (draw, gene, bin) are predictions, ``concentration`` (gene,) and ``counts`` (gene, bin) of the genes.
        """
        directions, scale = basis[genes].astype(np.float64), self.scale[genes].astype(np.float64)
        n_cells = counts.sum(axis=-1).astype(np.float64)
        excess = 1 + (n_cells - 1) / (1 + concentration)
        centered = directions - np.einsum("mgb,gbj->mgj", probs, directions)[:, :, None]
        fisher = np.einsum("mgbj,mgb,mgbk->mgjk", centered, probs, centered) * (n_cells / excess)[:, None, None]
        score = np.einsum("gbj,mgb->mgj", directions, counts - n_cells[:, None] * probs) / excess[:, None]
        precision = np.eye(directions.shape[-1]) + scale[:, None, None] ** 2 * fisher
        mean = np.linalg.solve(precision, (scale[:, None] * score)[..., None])[..., 0]
        root = np.linalg.cholesky(precision)
        noise = rng.standard_normal(mean.shape)
        spread = np.linalg.solve(np.swapaxes(root, -1, -2), noise[..., None])[..., 0]
        return _along(basis[genes], (scale[:, None] * (mean + spread)).astype(np.float32))


def learn_residual_noise(
    probs: NDArray, counts: NDArray, concentration: NDArray, basis: NDArray, centers: NDArray
) -> ResidualNoise:
    r"""Learn the noise from predictions of groups that were left out, by the squared errors of their means.

    To first order, the error d of a mean, with n cells and bin centers x, has the variance

    .. math:: E d^2 = x' J x \Big(\frac1n + \frac{1 - 1/n}{1 + \kappa}\Big) + s^2 \tau^2 |V' J x|^2,
              \qquad J = \operatorname{diag}(\pi) - \pi \pi' .

    The squared scale of a gene is the ratio of sums over groups, of both sides divided by the first term (the method of
    moments), and at least 0. The average over genes counts as 10 groups.

    Parameters
    ----------
    probs
        (group, gene, bin) predictions.
    counts
        (group, gene, bin) numbers of cells.
    concentration
        (gene,) concentrations κ of the Dirichlet distributions.
    basis
        (gene, bin, direction) directions V.
    centers
        (gene, bin) bin centers x.
    """
    n_cells = counts.sum(axis=-1, dtype=np.float64)
    mean = np.einsum("rgb,gb->rg", probs, centers)
    error = np.einsum("rgb,gb->rg", counts, centers) / n_cells - mean
    weighted = probs * (centers - mean[..., None])
    variance = np.maximum(np.einsum("rgb,gb->rg", weighted, centers), np.finfo(np.float32).tiny)
    explained = variance * (1 / n_cells + (1 - 1 / n_cells) / (1 + concentration))
    surplus = error**2 / explained - 1
    reach = (np.einsum("rgb,gbj->rgj", weighted, basis) ** 2).sum(axis=-1) / explained
    per_gene = reach.mean(axis=0)
    average = max(float(surplus.mean() / reach.mean()), 0.0)
    n_groups = len(probs)
    square = (n_groups * surplus.mean(axis=0) + PRIOR_GROUPS * average * per_gene) / (
        (n_groups + PRIOR_GROUPS) * np.maximum(per_gene, np.finfo(np.float32).tiny)
    )
    square = np.maximum(square, 0)
    noisy = square > 0
    if not noisy.any():
        return ResidualNoise(np.zeros(len(square), np.float32), np.ones(n_groups, np.float32))
    strength = surplus[:, noisy].sum(axis=1) / (reach * square)[:, noisy].sum(axis=1)
    strength = np.sqrt(np.maximum(strength, LEAST_STRENGTH**2))
    strength /= np.sqrt((strength**2).mean())
    return ResidualNoise(np.sqrt(square).astype(np.float32), strength.astype(np.float32))


def _along(basis: NDArray, coordinates: NDArray) -> NDArray[np.float32]:
    shift: NDArray[np.float32] = np.einsum("gbj,mgj->mgb", basis, coordinates, optimize=True)
    return shift
