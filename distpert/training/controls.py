"""Control histograms of each context: as the control cells show them, and smoothed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Weight, in cells, of the pooled histogram of the context in each smoothed control histogram. A bin that a few hundred
# control cells leave empty is not impossible.
PSEUDO_CELLS = 300.0
# Weight, in cells, of a uniform histogram in the pooled one: no bin has probability zero.
UNIFORM_CELLS = 1.0


def observed_controls(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
    """Control histograms (context, gene, bin) as the control cells show them; arguments as in `smoothed_controls`."""
    chosen = [is_control & (context == c) for c in range(context.max() + 1)]
    return np.stack([counts[rows].sum(axis=0, dtype=np.float64) / n_cells[rows].sum() for rows in chosen])


def smoothed_controls(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
    """Smoothed control histograms (context, gene, bin), from which the model's shifts start.

    h_c = (n_c + A h̄_c) / (N_c + A), with n_c the counts of the context's N_c control cells, h̄_c the histogram of
    all the context's cells, perturbed ones included, plus u cells spread evenly, and A, u = `PSEUDO_CELLS`,
    `UNIFORM_CELLS`. The common shift takes up what the smoothing adds; in a context of control cells alone it adds
    next to nothing.

    Parameters
    ----------
    counts
        (group, gene, bin).
    n_cells, context, is_control
        (group,) cells, index of the context, whether the cells are controls.
    """
    n_bins = counts.shape[-1]
    controls = observed_controls(counts, n_cells, context, is_control)
    smoothed = []
    for c, control in enumerate(controls):
        rows = context == c
        total = counts[rows].sum(axis=0, dtype=np.float64) + UNIFORM_CELLS / n_bins
        pooled = total / (n_cells[rows].sum() + UNIFORM_CELLS)
        n_control = n_cells[rows & is_control].sum()
        smoothed.append((n_control * control + PSEUDO_CELLS * pooled) / (n_control + PSEUDO_CELLS))
    return np.stack(smoothed)
