"""The groups of a training screen, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distpert.histograms.histograms import Histograms
from distpert.training.controls import observed_controls, pooled_histograms, smoothed_controls


@dataclass(frozen=True, eq=False)
class TrainingGroups:
    """The training counts as arrays, for the model, baselines, scores and calibration.

    A group is the cells with the same perturbation and context.

    Attributes
    ----------
    histograms : Histograms
        Counted training cells.
    """

    histograms: Histograms

    @cached_property
    def perturbations(self) -> tuple[str, ...]:
        """Sorted labels of the perturbations, without the control."""
        return self.histograms.perturbations

    @cached_property
    def contexts(self) -> tuple[str, ...]:
        """Sorted contexts."""
        return self.histograms.contexts

    @cached_property
    def counts(self) -> NDArray[np.integer]:
        """Numbers of cells in bins (group, gene, bin)."""
        return self.histograms.counts.to_numpy()

    @cached_property
    def n_cells(self) -> NDArray[np.integer]:
        """Numbers of cells (group,)."""
        return self.histograms.n_cells.to_numpy()

    @cached_property
    def label(self) -> NDArray[Any]:
        """Label of each group (group,), also of controls."""
        return self.histograms.dataset["perturbation"].to_numpy().astype(str)

    @cached_property
    def context(self) -> NDArray[np.intp]:
        """Position of each group's context among `contexts` (group,)."""
        return np.searchsorted(self.contexts, self.histograms.dataset["context"].to_numpy().astype(str))

    @cached_property
    def is_control(self) -> NDArray[np.bool_]:
        """Whether a group is of control cells (group,)."""
        return self.label == self.histograms.control

    @cached_property
    def perturbed(self) -> NDArray[np.intp]:
        """Positions of the groups of perturbed cells (perturbed group,)."""
        return np.flatnonzero(~self.is_control)

    @cached_property
    def perturbation(self) -> NDArray[np.intp]:
        """Position among `perturbations` of each group in `perturbed` (perturbed group,)."""
        return np.searchsorted(self.perturbations, self.label[self.perturbed])

    @cached_property
    def control(self) -> NDArray[np.float64]:
        """Observed control histograms (context, gene, bin)."""
        return observed_controls(self.counts, self.n_cells, self.context, self.is_control)

    @cached_property
    def smoothed_control(self) -> NDArray[np.float64]:
        """Smoothed control histograms (context, gene, bin); no bin is zero."""
        return smoothed_controls(self.counts, self.n_cells, self.context, self.is_control)

    @cached_property
    def control_counts(self) -> NDArray[np.integer]:
        """Numbers of control cells in bins (context, gene, bin)."""
        chosen = [self.is_control & (self.context == c) for c in range(len(self.contexts))]
        return np.stack([self.counts[rows].sum(axis=0) for rows in chosen])

    @cached_property
    def part_counts(self) -> NDArray[np.integer] | None:
        """Numbers of cells in bins of random parts of the controls (part, gene, bin); None if they were not counted."""
        dataset = self.histograms.dataset
        return dataset["part_counts"].to_numpy() if "part_counts" in dataset else None

    @cached_property
    def part_n_cells(self) -> NDArray[np.integer]:
        """Numbers of cells of these parts (part,)."""
        return self.histograms.dataset["part_n_cells"].to_numpy()

    @cached_property
    def part_context(self) -> NDArray[np.intp]:
        """Position of the context of each part among `contexts` (part,)."""
        return np.searchsorted(self.contexts, self.histograms.dataset["part_context"].to_numpy().astype(str))

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """Histograms of all cells, with one cell spread evenly over the bins (context, gene, bin)."""
        return pooled_histograms(self.counts, self.n_cells, self.context)

    @cached_property
    def n_control(self) -> NDArray[np.int64]:
        """Numbers of control cells (context,)."""
        return self._cells_by_context(self.is_control)

    @cached_property
    def n_perturbed(self) -> NDArray[np.int64]:
        """Numbers of perturbed cells (context,)."""
        return self._cells_by_context(~self.is_control)

    @cached_property
    def rows(self) -> dict[tuple[str, str], int]:
        """Position of each group, by label and context."""
        names = zip(self.label.tolist(), self.context.tolist(), strict=True)
        return {(label, self.contexts[context]): row for row, (label, context) in enumerate(names)}

    def counts_of(self, label: str, context: str) -> NDArray[np.integer] | None:
        """Return the counts (gene, bin) of a group, and None if it is not in the training."""
        row = self.rows.get((label, context))
        return None if row is None else self.counts[row]

    def _cells_by_context(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        totals = np.bincount(self.context[chosen], self.n_cells[chosen], minlength=len(self.contexts))
        return totals.astype(np.int64)
