"""Predictions with draws of moments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert.histograms.moments import MOMENTS
from distpert.histograms.statistics import attributes
from distpert.predictions.base import BasePrediction
from distpert.predictions.blocks import Block
from distpert.predictions.cell_numbers import numbers_of_cells
from distpert.predictions.layout import collect, labeled

if TYPE_CHECKING:
    import xarray as xr

    from distpert.predictions.cell_numbers import CellNumbers


class Answers(NamedTuple):
    """The best answer of a prediction to each score, for one group.

    Attributes
    ----------
    mean
        Expected mean (gene,).
    moments
        Medians (moment, gene) of the moments of as many cells as were observed, in the order of `MOMENTS`; only the
        mean for a method that predicts only means.
    log, cramer, wasserstein
        Histograms (gene, bin): for the log score, for the Cramér distance and CRPS, for the Wasserstein distance. None
        for a method that predicts only means.
    """

    mean: NDArray[np.floating]
    moments: NDArray[np.floating]
    log: NDArray[np.float64] | None = None
    cramer: NDArray[np.float64] | None = None
    wasserstein: NDArray[np.float64] | None = None


class MomentPrediction(BasePrediction):
    """Base class of predictions with draws of moments.

    A subclass has `draw_moments`, `answers` and `select_position`.

    Parameters
    ----------
    training : Histograms
        The counts that the method was fitted to: its bins, genes, contexts and controls.
    perturbations : tuple of str
        The predicted perturbations.
    contexts : tuple of str
        The predicted contexts; ``("all",)`` if there is no context key. Every combination of a perturbation and a
        context is predicted.
    seed : int
        Seed of all random numbers.
    progress_bar : bool
        Whether to show progress when something takes longer than two seconds.

    See Also
    --------
    distpert.HistogramPrediction : with draws of whole histograms.

    Examples
    --------
    >>> prediction.moments()["mean"].std("draw")  # doctest: +SKIP
    """

    @abstractmethod
    def draw_moments(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
        """Draw the moments of a block.

        Parameters
        ----------
        block : Block
            One perturbation in one context, for a slice of the genes. Positions are among the predicted perturbations
            and contexts.
        n_cells : ndarray, shape (perturbation, context), optional
            If given, the moments are those of this many cells from each drawn distribution, otherwise those of the
            distributions themselves. It is the whole array; the entry of the block is
            ``n_cells[block.perturbation, block.context]``.

        Returns
        -------
        ndarray, shape (moment, draw, gene)
            Moments in the order of `moment_names`.
        """

    @abstractmethod
    def answers(self, n_cells: NDArray[np.int64]) -> Callable[[int, int], Answers]:
        """Return a function from positions (perturbation, context) to the best answer to each score.

        Parameters
        ----------
        n_cells : ndarray, shape (perturbation, context)
            Numbers of observed cells, at least 1.

        Returns
        -------
        callable
            From the positions of a perturbation and a context to `Answers`.
        """

    def moments(self, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Draws of the moments of each distribution.

        Parameters
        ----------
        n_cells : int, mapping, Series, DataFrame, DataArray or array, optional
            If given, the moments that this many cells from each distribution would show: the predictive distribution
            for an experiment of that size. It has the same forms as in `summary`.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (draw, perturbation, [context,] gene),
            float32. Only ``mean`` for a method that predicts only means.

        Raises
        ------
        KeyError
            If a perturbation or context has no number of cells.
        ValueError
            If a number of cells is not a whole number above 0.

        Examples
        --------
        >>> prediction.moments()["variance"].quantile([0.05, 0.95], "draw")  # doctest: +SKIP
        """
        import xarray as xr

        cells, names = numbers_of_cells(self, n_cells), self.moment_names

        def of_block(block: Block) -> NDArray:
            return np.moveaxis(self.draw_moments(block, cells), 0, -1)

        values = collect(self, of_block, (len(names),), draws=True)
        return xr.Dataset(
            {
                name: labeled(self, values[..., i], draws=True).assign_attrs(attributes(name))
                for i, name in enumerate(names)
            }
        )

    def summarizer(self, ci_prob: float, n_cells: NDArray[np.int64] | None) -> Callable[[Block], NDArray]:
        """Return quantiles of the draws of each moment; see `BasePrediction.summarizer`."""
        levels = quantile_levels(ci_prob)
        return lambda block: quantiles_of_moments(self.draw_moments(block, n_cells), levels)


def quantiles_of_moments(draws: NDArray, levels: Sequence[float]) -> NDArray:
    """Quantiles (level, moment, gene) of the moments (moment, draw, gene) of histograms.

    A draw of a single bin has no skewness and no kurtosis. It does not enter the quantiles of these two, like observed
    cells in a single bin. If no draw has them, their quantiles are 0.
    """
    found = np.quantile(draws, levels, axis=1)
    is_point = draws[1] == 0 if len(draws) == len(MOMENTS) else np.zeros_like(draws[0], bool)
    for_some = is_point.any(axis=0) & ~is_point.all(axis=0)
    if for_some.any():
        shapes = np.where(is_point[:, for_some], np.nan, draws[2:, :, for_some])
        found[:, 2:, for_some] = np.nanquantile(shapes, levels, axis=1)
    return found
