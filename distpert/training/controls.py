"""Control histograms of each context: the observed ones, and smoothed ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Weight, in cells, of the pooled histogram of the context in a smoothed control histogram. A bin without any of a few
# hundred control cells is still possible.
PSEUDO_CELLS = 300.0
# Weight, in cells, of a uniform histogram in the pooled one. It keeps all probabilities above 0.
UNIFORM_CELLS = 1.0


def observed_controls(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
    """Return the observed control histograms (context, gene, bin); arguments as in `smoothed_controls`."""
    chosen = [is_control & (context == c) for c in range(context.max() + 1)]
    return np.stack([counts[rows].sum(axis=0, dtype=np.float64) / n_cells[rows].sum() for rows in chosen])


def smoothed_controls(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
    """Return smoothed control histograms (context, gene, bin): where fits start, and the base of tilts and baselines.

    h_c = (n_c + A h̄_c) / (N_c + A). Here n_c are the counts of the N_c control cells of the context. h̄_c is the
    histogram of all cells of the context, controls and perturbed cells, with u cells spread evenly added. A and u are
    `PSEUDO_CELLS` and `UNIFORM_CELLS`. In a context that has only control cells, the smoothing adds almost nothing.

    Parameters
    ----------
    counts
        (group, gene, bin).
    n_cells
        (group,) numbers of cells.
    context
        (group,) positions of the contexts.
    is_control
        (group,) whether the cells are controls.
    """
    controls, pooled = (
        observed_controls(counts, n_cells, context, is_control),
        pooled_histograms(counts, n_cells, context),
    )
    n_control = np.bincount(context, n_cells * is_control)[:, None, None]
    return (n_control * controls + PSEUDO_CELLS * pooled) / (n_control + PSEUDO_CELLS)


def pooled_histograms(counts: NDArray, n_cells: NDArray, context: NDArray) -> NDArray[np.float64]:
    """Return the histograms of all cells of each context (context, gene, bin); arguments as in `smoothed_controls`."""
    pooled = []
    for c in range(context.max() + 1):
        rows = context == c
        total = counts[rows].sum(axis=0, dtype=np.float64) + UNIFORM_CELLS / counts.shape[-1]
        pooled.append(total / (n_cells[rows].sum() + UNIFORM_CELLS))
    return np.stack(pooled)
