"""Groups of cells: those that share a perturbation and a context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.screen import Screen


class Groups(NamedTuple):
    """The groups that occur in a screen: controls first, then sorted by perturbation and context.

    Attributes
    ----------
    perturbation, context
        Labels of each group, shape (group,).
    n_cells
        Cells of each group, shape (group,).
    of_cell
        Group of each cell, -1 for cells without a label, shape (cell,).
    """

    perturbation: NDArray[np.str_]
    context: NDArray[np.str_]
    n_cells: NDArray[np.int64]
    of_cell: NDArray[np.intp]

    def with_one_cell(self) -> list[str]:
        """Name the perturbations that have a single cell over all contexts."""
        names, inverse = np.unique(self.perturbation, return_inverse=True)
        return names[np.bincount(inverse, weights=self.n_cells) < 2].tolist()


def group_cells(screen: Screen) -> Groups:
    """Group the labeled cells of a screen.

    Parameters
    ----------
    screen
        As from `distpert.histograms.screen.read_screen`.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        If no cell has a label.
    """
    import pandas as pd

    labeled = screen.perturbation != ""
    if not labeled.any():
        raise ValueError("no cell has a perturbation label")
    p, perturbations = pd.factorize(screen.perturbation[labeled], sort=True)
    c, contexts = pd.factorize(screen.context[labeled], sort=True)
    names = np.array([screen.control, *perturbations])
    rank = np.where(perturbations == screen.control, 0, 1 + np.arange(len(perturbations)))
    key, group = np.unique(rank[p] * len(contexts) + c, return_inverse=True)
    of_cell = np.full(len(labeled), -1, dtype=np.intp)
    of_cell[labeled] = group
    return Groups(
        perturbation=names[key // len(contexts)],
        context=contexts[key % len(contexts)].astype(str),
        n_cells=np.bincount(group).astype(np.int64),
        of_cell=of_cell,
    )
