"""Base classes of all predictions: the contract that scores, calibration, checks and plots rely on.

`BasePrediction` has labels, blocks and a `summary`. `MomentPrediction` also has draws of moments, and
`HistogramPrediction` draws of whole histograms. A model of your own needs only a subclass of `HistogramPrediction` with
two methods, `draw` and `select_position`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert._shared.labels import canonical_label, label_text
from distpert._shared.symbols import check_known
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.histograms.statistics import attributes
from distpert.predictions.blocks import Block, Result, blocks, map_blocks
from distpert.predictions.cell_numbers import numbers_of_cells
from distpert.predictions.layout import collect, labeled, with_bins

if TYPE_CHECKING:
    import xarray as xr

    from distpert.predictions.cell_numbers import CellNumbers

STATISTICS = ("median", "lower", "upper")


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


@dataclass(frozen=True, eq=False, repr=False)
class BasePrediction(ABC):
    """Base class of all predictions, of perturbations × contexts × genes.

    Attributes
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
    distpert.MomentPrediction : with draws of moments.
    distpert.HistogramPrediction : with draws of whole histograms.

    Examples
    --------
    >>> prediction = fit.predict(["SALL4", "NANOG+SOX2"])  # doctest: +SKIP
    >>> isinstance(prediction, distpert.BasePrediction)  # doctest: +SKIP
    True
    """

    training: Histograms
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    seed: int = field(default=0, kw_only=True)
    progress_bar: bool = field(default=False, kw_only=True)

    #: Kind of prediction: ``"posterior"``, ``"prior"``, ``"baseline"`` or ``"conformal"``.
    kind: ClassVar[str]

    @abstractmethod
    def summarizer(self, ci_prob: float, n_cells: NDArray[np.int64] | None) -> Callable[[Block], NDArray]:
        """Return a function from blocks to the median and the ends of the central interval of each moment.

        Parameters
        ----------
        ci_prob : float
            Probability of the interval.
        n_cells : ndarray, shape (perturbation, context), or None
            Numbers of cells: intervals are for the moments that these cells show. None for the moments of the
            distributions.

        Returns
        -------
        callable
            From a block to an array (statistic, moment, gene), in the order of ``median``, ``lower``, ``upper`` and of
            `moment_names`.
        """

    @abstractmethod
    def select_position(self, perturbation: int, context: int) -> Self:
        """Take out one perturbation in one context, by position, with the same draws.

        Parameters
        ----------
        perturbation, context : int
            Positions among the predicted perturbations and contexts.

        Returns
        -------
        The same kind of prediction.
        """

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes whose distributions are predicted."""
        return self.training.genes

    @property
    def moment_names(self) -> tuple[str, ...]:
        """Names of the predicted moments."""
        return MOMENTS

    @property
    def embeddings(self) -> Embeddings | None:
        """Gene embeddings that the prediction uses, or None."""
        return None

    @cached_property
    def centers(self) -> NDArray[np.float64]:
        """Bin centers (gene, bin), in the units of the data."""
        return self.training.centers.to_numpy()

    def select(self, perturbation: str, context: str | None = None) -> Self:
        """Take out one perturbation in one context.

        Parameters
        ----------
        perturbation : str
            Its label; the order of genes does not matter.
        context : str, optional
            Its context; needed only if there are several.

        Returns
        -------
        The same kind of prediction, with the same draws.

        Raises
        ------
        KeyError
            If the perturbation or the context is not predicted, or no context is named and there are several.
        TypeError
            If the perturbation is not a str.

        Examples
        --------
        >>> prediction.select("SALL4", context="5").summary()  # doctest: +SKIP
        """
        if not isinstance(perturbation, str):
            raise TypeError(f"a perturbation is named by its label, a str, not {perturbation!r}")
        perturbation = canonical_label(perturbation, self.training.control)
        check_known(perturbation, self.perturbations, "perturbations")
        context = self.one_context(context)
        return self.select_position(self.perturbations.index(perturbation), self.contexts.index(context))

    def one_context(self, context: str | None) -> str:
        """Return the name of a context, which may be None if there is only one.

        Parameters
        ----------
        context : str or None
            Name of the context.

        Returns
        -------
        str

        Raises
        ------
        KeyError
            If it is not predicted, or it is None and there are several.
        """
        if context is None:
            if len(self.contexts) > 1:
                raise KeyError(f"there are several contexts, choose one with context=: {', '.join(self.contexts)}")
            return self.contexts[0]
        name = label_text(context)
        check_known(name, self.contexts, "contexts")
        return name

    def summary(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Median and central interval of each moment.

        Parameters
        ----------
        ci_prob : float
            Probability of the interval.
        n_cells : int, mapping, Series, DataFrame, DataArray or array, optional
            Without it, intervals are for the moments of the distributions. With it, they are for the moments that this
            many cells will show, and include the sampling of these cells. One number for all, one for each
            perturbation, or a table (perturbation, [context]).

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (statistic, perturbation, [context,]
            gene), float32, with ``statistic`` one of ``median``, ``lower``, ``upper``. Only ``mean`` for a method that
            predicts only means.

        Raises
        ------
        KeyError
            If a perturbation or context has no number of cells.
        ValueError
            If ``ci_prob`` is not between 0 and 1, or a number of cells is not a whole number above 0.

        See Also
        --------
        distpert.plots.plot_moments

        Notes
        -----
        A draw of a single bin has no skewness and no kurtosis. It does not enter the quantiles of these two.

        Examples
        --------
        >>> prediction.summary(n_cells=300)["mean"].sel(gene="SOX2")  # doctest: +SKIP
        """
        import xarray as xr

        quantile_levels(ci_prob)
        names = self.moment_names
        summarize = self.summarizer(ci_prob, numbers_of_cells(self, n_cells))

        def of_block(block: Block) -> NDArray:
            return np.moveaxis(summarize(block), -1, 0)  # (gene, statistic, moment)

        values = collect(self, of_block, (len(STATISTICS), len(names)))
        summary = xr.Dataset(
            {
                name: labeled(self, values[..., i], ("statistic",)).assign_attrs(attributes(name))
                for i, name in enumerate(names)
            }
        )
        summary = summary.transpose("statistic", ...)
        return summary.assign_coords(statistic=list(STATISTICS)).assign_attrs(ci_prob=ci_prob)

    def generator(self, block: Block, *purpose: int) -> np.random.Generator:
        """Return the random generator of a block, which depends only on the seed, the labels and the purpose."""
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        return block.generator(self.seed, label, context, *purpose)

    def map_blocks(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block, on all cores."""
        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        return map_blocks(function, blocks(*shape), progress_bar=self.progress_bar)

    def in_contexts(self) -> str:
        """Name the contexts for a print-out; "" if there is no context key."""
        return f", contexts {', '.join(self.contexts)}" if self.training.context_key else ""


class MomentPrediction(BasePrediction):
    """Base class of predictions with draws of moments.

    A subclass has `draw_moments`, `answers` and `select_position`. Attributes are those of `distpert.BasePrediction`.

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
            One perturbation in one context, for a slice of the genes.
        n_cells : ndarray, shape (perturbation, context), optional
            If given, the moments are those of this many cells from each drawn distribution, otherwise those of the
            distributions themselves.

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


class HistogramPrediction(MomentPrediction):
    """Base class of predictions with draws of whole histograms.

    A subclass needs only `draw` and `select_position`. Attributes are those of `distpert.BasePrediction`.

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

        Parameters
        ----------
        block : Block
            One perturbation in one context, for a slice of the genes.
        n_cells : ndarray, shape (perturbation, context), optional
            If given, the histograms are those of this many cells from each drawn distribution.

        Returns
        -------
        ndarray, shape (draw, gene, bin)
            Histograms that sum to one.
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


def quantile_levels(ci_prob: float) -> list[float]:
    """Return the quantile levels of `STATISTICS`.

    Raises
    ------
    ValueError
        If the probability is not between 0 and 1.
    """
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob must lie between 0 and 1, not {ci_prob}")
    return [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2]
