"""Groups of cells. A group is the cells with the same perturbation and context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.screen import Screen


class Groups(NamedTuple):
    """The groups of a screen: controls first, then sorted by perturbation and context.

    Attributes
    ----------
    perturbation, context
        Labels of the groups (group,).
    n_cells
        Numbers of cells (group,).
    of_cell
        Group of each cell (cell,); −1 for cells without a label.
    """

    perturbation: NDArray[np.str_]
    context: NDArray[np.str_]
    n_cells: NDArray[np.int64]
    of_cell: NDArray[np.intp]

    def with_one_cell(self) -> list[str]:
        """Return the perturbations with a single cell in all contexts together."""
        names, inverse = np.unique(self.perturbation, return_inverse=True)
        return names[np.bincount(inverse, weights=self.n_cells) < 2].tolist()


def group_cells(screen: Screen) -> Groups:
    """Group the labeled cells of a screen.

    Raises
    ------
    ValueError
        If no cell has a label.
    """
    import pandas as pd

    labeled = screen.perturbation != ""
    if not labeled.any():
        raise ValueError(
            "no cell has a perturbation label. Label the cells in the column perturbation_key= of adata.obs"
        )
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
