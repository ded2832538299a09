"""Arrays that the model conditions on: units of the bins, directions of tilts, positions of perturbed genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of

# Bins with this share of a gene's cells or more are optimized in units of one logit, rarer ones in longer units.
COMMON_SHARE, LONGEST_STRIDE = 0.1, 8.0


def bin_strides(counts: NDArray) -> NDArray[np.float64]:
    r"""Units (gene, bin) in which shifts are optimized, in logits.

    Adam moves all parameters by about the same, so it is slow in directions that only a few cells inform. The unit of
    a bin goes with the standard deviation of its logit,

    .. math:: \max\Big(1, \min\Big(\sqrt{.1 / h_b}, 8\Big)\Big)

    with h_b the share of the perturbed cells in bin b, after half a cell is added to each bin.

    Parameters
    ----------
    counts
        (group, gene, bin) numbers of perturbed cells.
    """
    total = counts.sum(axis=0, dtype=np.float64) + 0.5
    share = total / total.sum(axis=-1, keepdims=True)
    return np.clip(np.sqrt(COMMON_SHARE / share), 1, LONGEST_STRIDE)


def on_target_tilts(control: NDArray) -> NDArray[np.float64]:
    """Directions in which a perturbed gene's own histogram may shift: (context, gene, tilt, bin).

    They are the rank of a bin in the control distribution, u_b = F(b−1) + F(b) − 1 between −1 and 1, and its square.
    Ranks have no unit, so all genes can share one distribution of tilts. A negative tilt along u lowers the gene.
    """
    rank = 2 * control.cumsum(axis=-1) - control - 1
    return np.stack([rank, rank**2], axis=-2)


def target_indices(perturbations: Sequence[str], genes: Sequence[str]) -> NDArray[np.int32]:
    """Index of each perturbed gene among the measured ones: (perturbation, target), ``len(genes)`` if not measured."""
    position = {gene: i for i, gene in enumerate(genes)}
    targets = [[position.get(gene, len(genes)) for gene in dict.fromkeys(genes_of(p))] for p in perturbations]
    width = max(map(len, targets), default=1)
    return np.array([row + [len(genes)] * (width - len(row)) for row in targets], dtype=np.int32)
