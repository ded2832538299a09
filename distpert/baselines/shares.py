"""Bin shares of training perturbations and their shifts from control, which baselines are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert.embeddings.sources import EmbeddingSources, as_embeddings
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.training.checks import check_controls, check_number
from distpert.training.controls import UNIFORM_CELLS
from distpert.training.groups import TrainingGroups


def check_training(histograms: Histograms, embeddings: EmbeddingSources, *, fewest: int = 1) -> Embeddings:
    """Check that a baseline can learn from its training, and read the embeddings.

    Parameters
    ----------
    histograms : Histograms
        The counts to fit a baseline to.
    embeddings : Embeddings, DataFrame, dict, or list of these
        Any form that `distpert.fit` takes, except keys of an AnnData.
    fewest : int
        Smallest number of training perturbations that the baseline can use.

    Returns
    -------
    Embeddings

    Raises
    ------
    TypeError
        If ``histograms`` are not `Histograms`, or the embeddings are of another type.
    ValueError
        If a context has no control cells, there are too few perturbations, or the embeddings cannot be used.

    See Also
    --------
    distpert.baselines.TrainingShares, distpert.baselines.Baseline

    Examples
    --------
    >>> embeddings = distpert.baselines.check_training(histograms, embeddings, fewest=3)  # doctest: +SKIP
    """
    check_type("histograms", histograms, Histograms, made_by="distpert.count_histograms(adata)")
    check_controls(histograms)
    check_number(histograms.perturbations, fewest)
    return as_embeddings(embeddings, genes=[*histograms.perturbations, *histograms.genes])


@dataclass(frozen=True, eq=False)
class TrainingShares:
    """Bin shares in the training cells, for baselines of your own. Only names with ``smoothed`` are smoothed.

    Attributes
    ----------
    histograms : Histograms
        The training counts, with control cells in every context.

    See Also
    --------
    distpert.baselines.check_training, distpert.baselines.LabelPredictor

    Examples
    --------
    >>> shares = distpert.baselines.TrainingShares(histograms)  # doctest: +SKIP
    >>> shares.control + shares.shift("NANOG")  # doctest: +SKIP
    """

    histograms: Histograms

    @cached_property
    def groups(self) -> TrainingGroups:
        """The training counts as arrays."""
        return TrainingGroups(self.histograms)

    @property
    def control(self) -> NDArray[np.float64]:
        """Shares in control cells (context, gene, bin)."""
        return self.groups.control

    @property
    def smoothed_control(self) -> NDArray[np.float64]:
        """Control histograms (context, gene, bin), smoothed as in the model."""
        return self.groups.smoothed_control

    @property
    def n_control(self) -> NDArray[np.int64]:
        """Numbers of control cells (context)."""
        return self.groups.n_control

    @property
    def n_pooled(self) -> NDArray[np.int64]:
        """Numbers of perturbed cells (context)."""
        return self.groups.n_perturbed

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """Shares in the pooled cells of all perturbations (context, gene, bin)."""
        present = self.n_pooled > 0
        shift = np.zeros_like(self.control)
        for c in np.flatnonzero(present):
            rows = ~self.groups.is_control & (self.groups.context == c)
            total = self.groups.counts[rows].sum(axis=0, dtype=np.float64)
            shift[c] = total / self.n_pooled[c] - self.control[c]
        return add_shift(self.control, stand_in(shift, present))

    @cached_property
    def smoothed_pooled(self) -> NDArray[np.float64]:
        """`pooled` plus one cell spread evenly over bins; without perturbed cells, it weighs as much as control."""
        return smooth(self.pooled, np.where(self.n_pooled > 0, self.n_pooled, self.n_control))

    def n_cells(self, label: str) -> NDArray[np.int64]:
        """Numbers of cells of a training perturbation (context).

        Examples
        --------
        >>> shares = distpert.baselines.TrainingShares(histograms)  # doctest: +SKIP
        >>> shares.n_cells("NANOG").sum()  # doctest: +SKIP
        """
        n_cells = np.zeros(len(self.histograms.contexts), np.int64)
        for context, row in self._rows[label].items():
            n_cells[context] = self.groups.n_cells[row]
        return n_cells

    def shift(self, label: str) -> NDArray[np.float64]:
        """Shares of a training perturbation minus those of control (context, gene, bin); zero where it has no cells.

        Examples
        --------
        >>> shares = distpert.baselines.TrainingShares(histograms)  # doctest: +SKIP
        >>> (shares.control + shares.shift("NANOG")).sum(axis=-1)  # doctest: +SKIP
        """
        shift = np.zeros_like(self.control)
        for context, row in self._rows[label].items():
            shift[context] = self.groups.counts[row] / self.groups.n_cells[row] - self.control[context]
        return shift

    def mean_shift(self, label: str) -> NDArray[np.float64]:
        """Shift of the mean (context, gene), in the units of the data; a context without cells gets the mean shift.

        Examples
        --------
        >>> shares = distpert.baselines.TrainingShares(histograms)  # doctest: +SKIP
        >>> shares.mean_shift("NANOG")[0, histograms.genes.index("SOX2")]  # doctest: +SKIP
        """
        shift = (self.shift(label) * self.histograms.centers.to_numpy()).sum(axis=-1)
        return stand_in(shift, self.n_cells(label) > 0)

    @cached_property
    def _rows(self) -> dict[str, dict[int, int]]:
        """Position of the group of each perturbation in each context where it has cells."""
        rows: dict[str, dict[int, int]] = {}
        for (label, context), row in self.groups.rows.items():
            rows.setdefault(label, {})[self.groups.contexts.index(context)] = row
        return rows


def stand_in(shift: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Shifts (context, …), where a context without cells gets the mean of the others."""
    mean = shift[present].mean(axis=0)
    return np.where(present.reshape(-1, *[1] * mean.ndim), shift, mean)


def add_shift(shares: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares moved by a shift, clipped at zero and scaled to sum to one again."""
    moved = np.maximum(shares + shift, 0)
    return moved / moved.sum(axis=-1, keepdims=True)


def smooth(shares: NDArray[np.float64], n_cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares (context, gene, bin) with one cell added, spread evenly over bins, to keep every bin possible.

    ``n_cells`` (context) are the numbers of cells behind the shares.
    """
    n = n_cells[:, None, None].astype(np.float64)
    return (n * shares + UNIFORM_CELLS / shares.shape[-1]) / (n + UNIFORM_CELLS)
