"""Where the optimisation starts: factors of smoothed log-ratios, and what embeddings tell of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Cells' worth of the expected histogram that each group's is shrunk towards before taking logarithms.
SHRINK_CELLS = 80.0


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
    a bin counts for as many cells as it holds. Three hundred steps of optimisation from a random start do not
    reach what sixty reach from here.

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
    n_perturbations = perturbation.max() + 1
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


def explained_variance(
    response: NDArray, eigenvalues: NDArray, eigenvectors: NDArray
) -> tuple[NDArray[np.float64], float]:
    """Share of each factor's variance that a kernel explains, by maximum marginal likelihood.

    Under z ~ Normal(0, ρ K + (1 − ρ) I), with K = U diag(l) U', log p(z) is a sum over the entries of U'z, so that each
    ρ of a grid costs next to nothing (Rasmussen & Williams 2006, §5.4.1).

    Parameters
    ----------
    response
        (perturbation, factor), unit variance.
    eigenvalues, eigenvectors
        (perturbation,) and (perturbation, perturbation), of K.

    Returns
    -------
    share, log_evidence
        (factor,) shares, and the sum over factors of the greatest log p(z).
    """
    grid = np.linspace(0.01, 0.95, 48)
    spectrum = grid[:, None] * eigenvalues + (1 - grid[:, None])
    rotated = (eigenvectors.T @ response) ** 2
    evidence = -0.5 * ((1 / spectrum) @ rotated + np.log(spectrum).sum(axis=1, keepdims=True))
    return grid[evidence.argmax(axis=0)], float(evidence.max(axis=0).sum())
