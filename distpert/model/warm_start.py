"""Initial values of the optimization: factors of smoothed log-ratios, and tilts of the perturbed genes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

# Each group's histogram is shrunk towards the expected one by this many cells before logarithms are taken.
SHRINK_CELLS = 80.0
MOST_EXACT = 4000  # perturbations, of whose Gram matrix all eigenvectors are computed
BLOCK_VALUES = 2**26  # log-ratios that stand in memory at a time
TILT_STEPS, TILT_SETTLED = 1000, 1e-4  # most steps; change of mean and variance when settled
TILT_PRIOR = 2.0  # scale of the priors of mean and scale of tilts, as in the model


class Factors(NamedTuple):
    """Common shift (context, gene, bin), loadings (factor, gene, bin), unit responses (perturbation, factor)."""

    common: NDArray[np.float32]
    loading: NDArray[np.float32]
    response: NDArray[np.float32]


def factorize(
    counts: NDArray,
    n_cells: NDArray,
    perturbation: NDArray,
    context: NDArray,
    control: NDArray,
    n_factors: int,
) -> Factors:
    """Singular vectors of the perturbations' smoothed log-ratios to their controls.

    Each group's histogram is shrunk towards the control after the common shift. The log-ratios are averaged over the
    groups of a perturbation and centered. Bins are weighted by the square root of the pooled probability, so that a bin
    counts for as many cells as it holds. A random start would need several times as many steps of optimization.

    Parameters
    ----------
    counts, n_cells
        (group, gene, bin) and (group,).
    perturbation, context
        (group,) indices of each group's perturbation and context.
    control
        (context, gene, bin) smoothed control histograms.
    n_factors
        Number of factors, at most the number of perturbations.
    """
    n_perturbations = int(perturbation.max()) + 1  # a numpy integer would turn single precision into double
    cells = np.bincount(context, n_cells, minlength=len(control))[:, None, None]
    total = np.stack([counts[context == c].sum(axis=0) for c in range(len(control))])
    common = np.log((total + SHRINK_CELLS * control) / ((cells + SHRINK_CELLS) * control))
    base = control * np.exp(common)
    base /= base.sum(axis=-1, keepdims=True)
    weight = np.sqrt(base.mean(axis=0)).astype(np.float32)

    share = n_cells / np.bincount(perturbation, weights=n_cells)[perturbation]
    center = np.zeros(weight.shape, np.float32)
    step = max(1, BLOCK_VALUES // (n_perturbations * weight.shape[1]))
    blocks = [slice(start, start + step) for start in range(0, len(weight), step)]

    def weighted_ratios(genes: slice) -> NDArray[np.float32]:
        """Ratios (perturbation, gene-bin) of some genes: those of all would not fit in memory."""
        ratios = np.zeros((n_perturbations, *weight[genes].shape), np.float32)
        for group, (p, c) in enumerate(zip(perturbation, context, strict=True)):
            smoothed = (counts[group, genes] + SHRINK_CELLS * base[c, genes]) / (n_cells[group] + SHRINK_CELLS)
            ratios[p] += share[group] * np.log(smoothed / base[c, genes])
        center[genes] = ratios.mean(axis=0)
        ratios -= center[genes]
        ratios *= weight[genes]
        return ratios.reshape(n_perturbations, -1)

    # Few perturbations, many gene-bins: the small Gram matrix has the same left singular vectors.
    gram = np.zeros((n_perturbations, n_perturbations), np.float32)
    for genes in blocks:
        ratios = weighted_ratios(genes)
        gram += ratios @ ratios.T
    vectors = _leading_vectors(gram, n_factors)
    response = vectors * np.sqrt(n_perturbations)
    loading = np.empty((n_factors, *weight.shape), np.float32)
    for genes in blocks:
        if len(blocks) > 1:
            ratios = weighted_ratios(genes)
        of_genes = (response.T.astype(np.float32) / n_perturbations) @ ratios
        loading[:, genes] = of_genes.reshape(n_factors, *weight[genes].shape) / weight[genes]
    return Factors((common + center).astype(np.float32), loading, response.astype(np.float32))


def _leading_vectors(gram: NDArray[np.float32], number: int) -> NDArray[np.float64]:
    """Eigenvectors (perturbation, number) with the largest eigenvalues, largest first."""
    if len(gram) <= MOST_EXACT:
        _, vectors = np.linalg.eigh(gram.astype(np.float64))
        leading: NDArray[np.float64] = vectors[:, ::-1][:, :number]
        return leading
    from sklearn.utils.extmath import randomized_svd

    vectors, *_ = randomized_svd(gram, number, n_oversamples=40, n_iter=8, random_state=0)
    return vectors.astype(np.float64)


class Tilts(NamedTuple):
    """Mean and scale (tilt,) of the distribution of tilts; posterior means and deviations (perturbation, tilt)."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    on_target: NDArray[np.float64]
    on_target_scale: NDArray[np.float64]


def learn_tilts(
    counts: NDArray,
    n_cells: NDArray,
    perturbation: NDArray,
    context: NDArray,
    control: NDArray,
    common: NDArray,
    tilts: NDArray,
    targets: NDArray,
) -> Tilts:
    r"""Tilt of each perturbation's own gene, and the distribution of tilts, by empirical Bayes.

    Over the groups and target genes of a perturbation p,

    .. math::
        n \mid t_p \sim \mathrm{Multinomial}\big(N, \; \mathrm{softmax}(\log h + \beta + t_p T)\big), \qquad
        t_{pj} \sim \mathrm{Normal}(m_j, s_j^2),

    with the priors of the model, :math:`m_j \sim \mathrm{Normal}(0, 2^2)`, :math:`s_j \sim \mathrm{HalfNormal}(2)`: the
    model without its responses and concentrations. Newton steps on t alternate with EM steps on m and s until m and
    s have settled; the posterior of t is approximated by a normal at its mode. For a perturbation without a measured
    target, the posterior is the distribution of tilts.

    The variances count one additional tilt, at a distance of 1 from the mean. Without it, the most likely variance of
    few tilts is 0.

    Parameters
    ----------
    counts, n_cells, perturbation, context, control
        As in `factorize`.
    common
        (context, gene, bin) common shift.
    tilts
        (context, gene, tilt, bin).
    targets
        (perturbation, target) index of each perturbed gene, the number of genes if it is not measured.
    """
    n_perturbations, n_genes, n_tilts = len(targets), tilts.shape[1], tilts.shape[2]
    group, target = np.nonzero(targets[perturbation] < n_genes)
    owner, at = perturbation[group], context[group]
    gene, cells = targets[owner, target], n_cells[group].astype(np.float64)
    seen, base, direction = counts[group, gene], np.log(control[at, gene]) + common[at, gene], tilts[at, gene]
    known = np.bincount(owner, minlength=n_perturbations) > 0
    n_known = known.sum()

    def by_perturbation(values: NDArray) -> NDArray[np.float64]:
        total = np.zeros((n_perturbations, *values.shape[1:]))
        np.add.at(total, owner, values)
        return total

    mean, variance = np.zeros(n_tilts), np.ones(n_tilts)
    tilt = np.zeros((n_perturbations, n_tilts))
    for _ in range(TILT_STEPS):
        probs = softmax(base + np.einsum("rj,rjb->rb", tilt[owner], direction), axis=-1)
        expected = np.einsum("rb,rjb->rj", probs, direction)
        excess = np.einsum("rb,rjb->rj", seen, direction) - cells[:, None] * expected
        spread = np.einsum("rb,rjb,rkb->rjk", probs, direction, direction) - expected[:, :, None] * expected[:, None]
        precision = by_perturbation(cells[:, None, None] * spread) + np.diag(1 / variance)
        step = np.linalg.solve(precision, (by_perturbation(excess) - (tilt - mean) / variance)[..., None])[..., 0]
        # Far from the mode the log-likelihood is not quadratic, and a whole step may go too far.
        tilt = tilt + step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1)
        own_variance = np.diagonal(np.linalg.inv(precision), axis1=1, axis2=2)
        before = mean, variance
        mean = tilt[known].sum(axis=0) / (n_known + variance / TILT_PRIOR**2)
        squares = ((tilt - mean) ** 2 + own_variance)[known].sum(axis=0) + 1
        # The positive root of s⁴ / 2² + (n + 1) s² - squares, where the derivative with respect to s is 0.
        variance = TILT_PRIOR**2 / 2 * (np.sqrt((n_known + 1) ** 2 + 4 * squares / TILT_PRIOR**2) - (n_known + 1))
        if max(abs(mean - before[0]).max(), abs(variance - before[1]).max()) < TILT_SETTLED:
            break
    return Tilts(mean, np.sqrt(variance), tilt, np.sqrt(own_variance))
