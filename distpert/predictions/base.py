"""What every prediction is and does: the base of the contract that scores, calibration, checks and plots rely on.

`BasePrediction` has labels, blocks and a `summary`. `MomentPrediction` adds draws of moments, and `HistogramPrediction`
draws of whole histograms. A model of your own is a subclass of `HistogramPrediction` with the two methods `draw` and
`select_position`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import quantile_levels
from distpert._shared.labels import canonical_label, label_text
from distpert._shared.symbols import check_known
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS
from distpert.histograms.statistics import attributes
from distpert.predictions.blocks import Block, Result, blocks, map_blocks
from distpert.predictions.cell_numbers import numbers_of_cells
from distpert.predictions.layout import collect, labeled

if TYPE_CHECKING:
    import xarray as xr

    from distpert.predictions.cell_numbers import CellNumbers

STATISTICS = ("median", "lower", "upper")


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

    #: Kind of prediction: ``"posterior"``, ``"prior"``, ``"baseline"`` or ``"conformal"``. It only names the prediction
    #: in results and pictures; any text is accepted.
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

        A subclass that is a dataclass returns ``dataclasses.replace(self, perturbations=..., contexts=..., ...)``.

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
        """Return the random generator of a block.

        Its stream depends on the seed, the labels, the purpose and the slice of genes, but not on what else is
        predicted. For draws shared by all genes, fix the indices when the prediction is made.

        Parameters
        ----------
        block : Block
            One perturbation in one context, for a slice of the genes.
        *purpose : int
            Numbers that distinguish streams of the same block.

        Returns
        -------
        numpy.random.Generator
        """
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        return block.generator(self.seed, label, context, *purpose)

    def map_blocks(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block, on all cores."""
        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        return map_blocks(function, blocks(*shape), progress_bar=self.progress_bar)

    def in_contexts(self) -> str:
        """Name the contexts for a print-out; "" if there is no context key."""
        key = self.training.context_key
        return f", {key}: {', '.join(self.contexts)}" if key else ""
