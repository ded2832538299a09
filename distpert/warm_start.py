"""Where the optimisation starts: factors of smoothed log-ratios, and tilts of the perturbed genes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Cells' worth of the expected histogram that each group's is shrunk towards before taking logarithms.
SHRINK_CELLS = 80.0
FEW_CELLS = 5.0


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


def regress_tilts(
    counts: NDArray,
    n_cells: NDArray,
    perturbation: NDArray,
    context: NDArray,
    control: NDArray,
    common: NDArray,
    tilts: NDArray,
    targets: NDArray,
) -> NDArray[np.float32]:
    """Tilt of each perturbation's own gene, by least squares: (perturbation, tilt).

    The log-ratio of the gene's histogram to what is expected without a tilt is regressed on the tilts and a constant,
    with bins weighted by their expected probability, and averaged over the perturbation's groups and genes. The
    average over perturbations stands for those whose gene is not measured, and zero if none is.

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
    n_tilts, n_genes = tilts.shape[2], tilts.shape[1]
    found: list[list[NDArray]] = [[] for _ in targets]
    for group, (p, c) in enumerate(zip(perturbation, context, strict=True)):
        for gene in targets[p][targets[p] < n_genes]:
            base = control[c, gene] * np.exp(common[c, gene])
            base /= base.sum()
            # A few cells' worth of the expected histogram: enough for logarithms, too little to hide a knock-down.
            ratio = np.log((counts[group, gene] / base + FEW_CELLS) / (n_cells[group] + FEW_CELLS))
            weight = np.sqrt(base)
            predictors = np.vstack([tilts[c, gene], np.ones_like(base)])
            # The small ridge settles genes that have fewer bins in use than there are tilts.
            gram = (predictors * weight**2) @ predictors.T + 1e-3 * np.eye(n_tilts + 1)
            found[p].append(np.linalg.solve(gram, predictors @ (weight**2 * ratio))[:n_tilts])
    known = [np.mean(values, axis=0) for values in found if values]
    average = np.mean(known, axis=0) if known else np.zeros(n_tilts)
    return np.array([np.mean(values, axis=0) if values else average for values in found], dtype=np.float32)
