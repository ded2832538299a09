"""Random parts of the control cells, which show how much histograms vary where nothing differs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.cell_groups import Groups
from distpert.histograms.screen import Screen

MOST_PARTS = 128  # of all contexts together: a variance over them is known to 13 %


class ControlParts(NamedTuple):
    """Cells by group, where the cells of each control group are split at random into parts.

    Attributes
    ----------
    of_cell
        Group of each cell; for control cells its part instead, counted on from the last group; −1 for cells without a
        label (cell,).
    group
        Control group of each part (part,).
    n_cells
        Numbers of cells of the parts (part,).
    """

    of_cell: NDArray[np.intp]
    group: NDArray[np.intp]
    n_cells: NDArray[np.int64]

    def add_up(self, counts: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """Write the sums over parts into the rows of the control groups, and return the rows of the groups."""
        n_groups = len(counts) - len(self.group)
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        if len(starts):
            np.add.reduceat(counts[n_groups:], starts, dtype=counts.dtype, out=counts[: len(starts)])
        return counts[:n_groups]


def split_controls(groups: Groups, screen: Screen) -> ControlParts:
    """Split the control cells of each context into parts of at least two cells, as equal in size as can be.

    Each context gets some of the 128 parts, in proportion to its cells. Hashes of the names of the cells decide, so the
    order of the cells makes no difference.
    """
    from pandas.util import hash_array

    n_groups = len(groups.n_cells)
    n_control = int((groups.perturbation == screen.control).sum())  # control groups come first
    total = groups.n_cells[:n_control].sum()
    of_cell = groups.of_cell.copy()
    sizes: list[int] = []
    for row in range(n_control):
        cells = np.flatnonzero(groups.of_cell == row)
        names = screen.names[cells].astype(str).to_numpy(object)
        cells = cells[np.argsort(hash_array(names, categorize=False), kind="stable")]
        n_parts = max(1, min(round(MOST_PARTS * len(cells) / total), len(cells) // 2))
        of_cell[cells] = n_groups + sum(sizes) + np.arange(len(cells)) % n_parts
        sizes.append(n_parts)
    n_cells = np.bincount(of_cell[of_cell >= n_groups] - n_groups, minlength=sum(sizes)).astype(np.int64)
    return ControlParts(of_cell, np.repeat(np.arange(n_control), sizes), n_cells)
