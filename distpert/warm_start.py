"""Where the optimisation starts: factors of smoothed log-ratios, and tilts of the perturbed genes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

# Cells' worth of the expected histogram that each group's is shrunk towards before taking logarithms.
SHRINK_CELLS = 80.0
TILT_STEPS = 50  # twice as many change nothing


class Factors(NamedTuple):
    """Common shift (context, gene, bin), loadings (factor, gene, bin), unit responses (perturbation, factor)."""

    common: NDArray[np.float32]
    loading: NDArray[np.float32]
    response: NDArray[np.float32]


def factorise(
    counts: NDArray,
    n_cells: NDArray,
    perturbation: NDArray,
    context: NDArray,
    control: NDArray,
    n_factors: int,
) -> Factors:
    """Singular vectors of the perturbations' smoothed log-ratios to their controls.

    Each group's histogram is shrunk towards its control's as moved by the common shift; the log-ratios are averaged
    over the groups of a perturbation, centred, and weighted by the square root of the pooled probability, so that
    a bin counts for as many cells as it holds. A random start would need several times as many steps of
    optimisation.

    Parameters
    ----------
    counts, n_cells
        (group, gene, bin) and (group,).
    perturbation, context
        (group,) indices of each group's perturbation and context.
    control
        (context, gene, bin) smoothed control histograms.
    n_factors
        At most the number of perturbations.
    """
    n_perturbations = int(perturbation.max()) + 1  # numpy's integers would make single precision double
    cells = np.bincount(context, n_cells, minlength=len(control))[:, None, None]
    total = np.stack([counts[context == c].sum(axis=0) for c in range(len(control))])
    common = np.log((total + SHRINK_CELLS * control) / ((cells + SHRINK_CELLS) * control))
    base = control * np.exp(common)
    base /= base.sum(axis=-1, keepdims=True)
    weight = np.sqrt(base.mean(axis=0)).astype(np.float32)

    ratios = np.zeros((n_perturbations, *weight.shape), np.float32)
    share = n_cells / np.bincount(perturbation, weights=n_cells)[perturbation]
    for group, (p, c) in enumerate(zip(perturbation, context, strict=True)):
        smoothed = (counts[group] + SHRINK_CELLS * base[c]) / (n_cells[group] + SHRINK_CELLS)
        ratios[p] += share[group] * np.log(smoothed / base[c])
    centre = ratios.mean(axis=0)
    ratios = ((ratios - centre) * weight).reshape(n_perturbations, -1)

    # Few perturbations, many gene-bins: the small Gram matrix has the same left singular vectors.
    _, vectors = np.linalg.eigh((ratios @ ratios.T).astype(np.float64))
    vectors = vectors[:, ::-1][:, :n_factors]
    response = vectors * np.sqrt(n_perturbations)
    loading = (response.T.astype(np.float32) / n_perturbations) @ ratios
    loading = loading.reshape(n_factors, *weight.shape) / weight
    return Factors((common + centre).astype(np.float32), loading, response.astype(np.float32))


class Tilts(NamedTuple):
    """Distribution of tilts, mean and scale (tilt,), and their posterior (perturbation, tilt) means and deviations."""

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
    r"""Tilt of each perturbation's own gene, and how tilts are distributed, by empirical Bayes.

    Over the groups and target genes of a perturbation p,

    .. math::
        n \mid t_p \sim \mathrm{Multinomial}\big(N, \; \mathrm{softmax}(\log h + \beta + t_p T)\big), \qquad
        t_{pj} \sim \mathrm{Normal}(m_j, s_j^2).

    Steps of Newton's method on t in turn with those of the EM algorithm on m and s, with the normal approximation at
    the mode. The variances have one perturbation's worth of a prior guess, 1: of few perturbations it is likeliest that
    all have the same tilt. Where no target is measured the posterior is the distribution of the others.

    Parameters
    ----------
    counts, n_cells, perturbation, context, control
        As in `factorise`.
    common
        (context, gene, bin) common shift.
    tilts
        (context, gene, tilt, bin).
    targets
        (perturbation, target) index of each perturbed gene, past the end where not measured.
    """
    n_perturbations, n_genes, n_tilts = len(targets), tilts.shape[1], tilts.shape[2]
    group, target = np.nonzero(targets[perturbation] < n_genes)
    gene, at = targets[perturbation[group], target], context[group]
    seen, base, direction = counts[group, gene], np.log(control[at, gene]) + common[at, gene], tilts[at, gene]
    belongs = (perturbation[group] == np.arange(n_perturbations)[:, None]).astype(np.float64)
    known = belongs.any(axis=1)
    n_known = known.sum()
    mean, variance = np.zeros(n_tilts), np.ones(n_tilts)
    tilt = np.zeros((n_perturbations, n_tilts))
    for _ in range(TILT_STEPS):
        probs = softmax(base + np.einsum("rj,rjb->rb", tilt[perturbation[group]], direction), axis=-1)
        expected = np.einsum("rb,rjb->rj", probs, direction)
        excess = np.einsum("rb,rjb->rj", seen, direction) - n_cells[group, None] * expected
        spread = np.einsum("rb,rjb,rkb->rjk", probs, direction, direction) - expected[:, :, None] * expected[:, None]
        information = np.einsum("pr,r,rjk->pjk", belongs, n_cells[group], spread)
        precision = information + np.diag(1 / variance)
        step = np.linalg.solve(precision, (belongs @ excess - (tilt - mean) / variance)[..., None])[..., 0]
        # Far from its mode the logarithm of a softmax is no parabola, and a whole step may go too far.
        tilt = tilt + step / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1)
        own_variance = np.diagonal(np.linalg.inv(precision), axis1=1, axis2=2)
        mean = tilt[known].sum(axis=0) / max(n_known, 1)
        variance = (((tilt - mean) ** 2 + own_variance)[known].sum(axis=0) + 1) / (n_known + 1)
    return Tilts(mean, np.sqrt(variance), tilt, np.sqrt(own_variance))
