"""Arrays that the model conditions on: directions of tilts, positions of perturbed genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import genes_of


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
