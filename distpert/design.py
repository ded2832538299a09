"""From counted histograms and embeddings to the arrays that the model conditions on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distpert.labels import genes_of

# Cells' worth of its context's pooled histogram that each control histogram is shrunk towards. What a few hundred
# control cells happen not to show in a bin would else count as impossible without a perturbation.
PSEUDO_CELLS = 300.0
# Cells' worth of a uniform histogram that the pooled one is shrunk towards: no bin is impossible.
UNIFORM_CELLS = 1.0
# A bin with this share of a gene's cells or more is optimised in units of one logit; others in longer ones, up to this.
COMMON_SHARE, LONGEST_STRIDE = 0.1, 8.0


def observed_controls(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
    """Control histograms (context, gene, bin) as the control cells show them; arguments as in `base_histograms`."""
    chosen = [is_control & (context == c) for c in range(context.max() + 1)]
    return np.stack([counts[rows].sum(axis=0, dtype=np.float64) / n_cells[rows].sum() for rows in chosen])


def base_histograms(counts: NDArray, n_cells: NDArray, context: NDArray, is_control: NDArray) -> NDArray[np.float64]:
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


def bin_strides(counts: NDArray) -> NDArray[np.float64]:
    r"""Units (gene, bin) in which shifts are optimised, in logits.

    Adam moves all parameters alike, in a direction that is the less certain the fewer cells tell it. The standard
    deviation of a bin's logit goes with the root of one over the cells that it holds, and so does its stride,

    .. math:: \max\Big(1, \min\Big(\sqrt{.1 / h_b}, 8\Big)\Big)

    with h the histogram of all perturbed cells, to whose counts half a cell is added in each bin.

    Parameters
    ----------
    counts
        (group, gene, bin).
    """
    total = counts.sum(axis=0, dtype=np.float64) + 0.5
    share = total / total.sum(axis=-1, keepdims=True)
    return np.clip(np.sqrt(COMMON_SHARE / share), 1, LONGEST_STRIDE)


def on_target_tilts(control: NDArray) -> NDArray[np.float64]:
    """Directions in which a perturbed gene's own histogram may shift: (context, gene, tilt, bin).

    The rank of a bin in the control distribution, u_b = F(b−1) + F(b) − 1 between −1 and 1, and its square: in units of
    the gene's own distribution, so that one tilt can be shared by all genes. A negative tilt along u lowers the gene.
    """
    rank = 2 * control.cumsum(axis=-1) - control - 1
    return np.stack([rank, rank**2], axis=-2)


def target_indices(perturbations: Sequence[str], genes: Sequence[str]) -> NDArray[np.int32]:
    """Index of each perturbed gene among the measured ones: (perturbation, target), ``len(genes)`` if not measured."""
    position = {gene: i for i, gene in enumerate(genes)}
    targets = [[position.get(gene, len(genes)) for gene in dict.fromkeys(genes_of(p))] for p in perturbations]
    width = max(map(len, targets), default=1)
    return np.array([row + [len(genes)] * (width - len(row)) for row in targets], dtype=np.int32)
