"""Predictions with draws of whole histograms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type, quantile_levels
from distpert.histograms.moments import histogram_moments
from distpert.predictions.base import STATISTICS
from distpert.predictions.blocks import Block
from distpert.predictions.cell_numbers import numbers_of_cells
from distpert.predictions.layout import collect, labeled, with_bins
from distpert.predictions.moment_prediction import Answers, MomentPrediction

if TYPE_CHECKING:
    import xarray as xr

    from distpert.predictions.cell_numbers import CellNumbers


class HistogramPrediction(MomentPrediction):
    """Base class of predictions with draws of whole histograms.

    A subclass needs only `draw` and `select_position`, and ``kind``, any text that names it. The documentation page on
    baselines has a complete example, under "A model with draws".

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
    distpert.baselines.PointPrediction : one histogram for every gene.

    Examples
    --------
    >>> class Mine(distpert.HistogramPrediction):  # doctest: +SKIP
    ...     kind = "baseline"
    ...
    ...     def draw(self, block, n_cells=None): ...
    ...
    ...     def select_position(self, perturbation, context): ...
    """

    @abstractmethod
    def draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
        """Draw histograms of a block.

        It is called for each block, in any order and more than once, and must return the same draws each time. Draw k
        of one block belongs to draw k of every other block of the same perturbation and context.

        Parameters
        ----------
        block : Block
            One perturbation in one context, for a slice of the genes. Positions are among the predicted perturbations
            and contexts.
        n_cells : ndarray, shape (perturbation, context), optional
            If given, the histograms are those of this many cells from each drawn distribution. It is the whole array;
            the entry of the block is ``n_cells[block.perturbation, block.context]``.

        Returns
        -------
        ndarray, shape (draw, gene, bin)
            Histograms that sum to one. With ``n_cells``, return float32, the precision of observed moments: ties
            between drawn and observed moments are then exact.
        """

    def histogram_of_block(self, block: Block, loss: Literal["log", "wasserstein"]) -> NDArray[np.floating]:
        """Return the best histogram of a block for a loss: the mean of draws, or the pointwise median of their CDFs.

        Parameters
        ----------
        block : Block
            One perturbation in one context, for a slice of the genes.
        loss : {"log", "wasserstein"}
            The loss; see `histogram`.

        Returns
        -------
        ndarray, shape (gene, bin)
        """
        draws = self.draw(block)
        if loss == "log":
            return draws.mean(axis=0)
        cdf = np.median(draws.cumsum(axis=-1), axis=0)
        return np.diff(cdf / cdf[..., -1:], axis=-1, prepend=0)

    def draw_moments(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
        """Return moments of drawn histograms; see `MomentPrediction.draw_moments`."""
        histograms = self.draw(block, n_cells)
        centers = self.centers[block.genes].astype(histograms.dtype)
        return np.stack(histogram_moments(histograms, centers))

    def histogram(self, loss: Literal["log", "wasserstein"] = "log") -> xr.DataArray:
        """Return the histogram that is best for a loss.

        Parameters
        ----------
        loss : {"log", "wasserstein"}
            ``"log"``: the mean of the bin probabilities over draws, best for the log score, the CRPS and the Cramér
            distance. ``"wasserstein"``: the pointwise median of the CDF over draws, best for the Wasserstein-1
            distance. Both are the same for a baseline that predicts one histogram.

        Returns
        -------
        DataArray
            (perturbation, [context,] gene, bin) probabilities that sum to one; coordinates ``bin_left`` and
            ``bin_right`` (gene, bin).

        Raises
        ------
        ValueError
            If the loss is neither of these.

        See Also
        --------
        distpert.plots.plot_histogram

        Examples
        --------
        >>> prediction.histogram().sel(perturbation="SALL4", gene="SOX2")  # doctest: +SKIP
        """
        if loss not in ("log", "wasserstein"):
            raise ValueError(f"loss must be 'log' or 'wasserstein', not {loss!r}")
        values = self._histograms(loss, np.float32)
        return with_bins(self, labeled(self, values, ("bin",)))

    def histogram_interval(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.DataArray:
        """Median and central interval of the probability of each bin.

        Parameters
        ----------
        ci_prob : float
            Probability of the interval, bin by bin.
        n_cells : int, mapping, Series, DataFrame, DataArray or array, optional
            If given, intervals are for the share of this many cells in the bin. Without it, intervals of a baseline
            have width 0. It has the same forms as in `summary`.

        Returns
        -------
        DataArray
            (statistic, perturbation, [context,] gene, bin), with ``statistic`` one of ``median``, ``lower``,
            ``upper``. Medians of bins need not sum to one; the probabilities of `histogram` do.

        Raises
        ------
        KeyError
            If a perturbation or context has no number of cells.
        ValueError
            If ``ci_prob`` is not between 0 and 1, or a number of cells is not a whole number above 0.

        Examples
        --------
        >>> prediction.histogram_interval(n_cells=300)  # doctest: +SKIP
        """
        levels, cells = quantile_levels(ci_prob), numbers_of_cells(self, n_cells)

        def quantiles(block: Block) -> NDArray:
            return np.moveaxis(np.quantile(self.draw(block, cells), levels, axis=0), 0, -1)

        values = collect(self, quantiles, (self.training.n_bins, len(levels)))
        array = labeled(self, values, ("bin", "statistic")).transpose("statistic", ...)
        return with_bins(self, array.assign_coords(statistic=list(STATISTICS)).assign_attrs(ci_prob=ci_prob))

    def answers(self, n_cells: NDArray[np.int64]) -> Callable[[int, int], Answers]:
        """Return histograms and medians of moments; see `MomentPrediction.answers`."""
        centers = self.centers
        log, wasserstein = (self._histograms(loss, np.float64) for loss in ("log", "wasserstein"))
        log, wasserstein = (probs / probs.sum(axis=-1, keepdims=True) for probs in (log, wasserstein))
        summary = self.summary(n_cells=n_cells).sel(statistic="median")
        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        medians = np.stack([summary[name].to_numpy().reshape(shape) for name in self.moment_names])

        def of_group(p: int, c: int) -> Answers:
            probs = log[p, c]
            return Answers((probs * centers).sum(axis=-1), medians[:, p, c], probs, probs, wasserstein[p, c])

        return of_group

    def _histograms(self, loss: Literal["log", "wasserstein"], dtype: type) -> NDArray:
        def of_block(block: Block) -> NDArray:
            return self.histogram_of_block(block, loss)

        return collect(self, of_block, (self.training.n_bins,), dtype=dtype)


def check_histograms(prediction: object) -> None:
    """Refuse a prediction without histograms.

    Raises
    ------
    ValueError
        If the method predicts only means.
    TypeError
        If it is not a prediction of histograms.
    """
    if isinstance(prediction, MomentPrediction) and not isinstance(prediction, HistogramPrediction):
        raise ValueError("this method predicts means alone: there are no histograms to draw from")
    check_type("prediction", prediction, HistogramPrediction, made_by="fit.predict(labels)")
