"""What all predictions share: results made block by block, their labels, and the forms that numbers of cells take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpert.cell_numbers import aligned_numbers
from distpert.draws import Block, Result, blocks, map_blocks
from distpert.moments import MOMENTS
from distpert.statistics import attributes

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from distpert.histograms import Histograms

    CellNumbers: TypeAlias = int | Mapping[str, int] | pd.Series | pd.DataFrame | xr.DataArray | ArrayLike | None

STATISTICS = ("median", "lower", "upper")


class Predicted:
    """Perturbations × contexts × genes of which something is predicted.

    A subclass has the attributes ``perturbations``, ``contexts``, ``training`` and ``seed``, and ``_one_group``.
    """

    progress_bar: bool = False

    if TYPE_CHECKING:  # at run time, dataclasses would take these for the defaults of their fields

        @property
        def perturbations(self) -> tuple[str, ...]:
            """What is predicted; every combination with `contexts`."""

        @property
        def contexts(self) -> tuple[str, ...]:
            """Contexts predicted for; ``("all",)`` where there is no context key."""

        @property
        def training(self) -> Histograms:
            """The counts that the model was fitted to."""

        @property
        def seed(self) -> int:
            """All randomness follows from it."""

        def _one_group(self, perturbation: int, context: int) -> Self:
            """Take one perturbation in one context out, with the same draws."""

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes whose distributions are predicted."""
        return self.training.genes

    @property
    def _has_contexts(self) -> bool:
        return bool(self.training.context_key)

    def _generator(self, block: Block, *purpose: int) -> np.random.Generator:
        label, context = self.perturbations[block.perturbation], self.contexts[block.context]
        return block.generator(self.seed, label, context, *purpose)

    def _cells(self, n_cells: CellNumbers) -> NDArray[np.int64] | None:
        """Numbers of cells (perturbation, context)."""
        if n_cells is None:
            return None
        shape = (len(self.perturbations), len(self.contexts))
        numbers = aligned_numbers(n_cells, self.perturbations, self.contexts, self.training.control)
        if numbers is None:
            numbers = np.asarray(n_cells)
            if numbers.shape not in ((), shape[:1], (shape[0], 1), shape):
                raise ValueError(f"n_cells has shape {numbers.shape}, but must be (perturbation, [context]): {shape}")
            numbers = numbers.reshape(len(numbers), -1) if numbers.ndim else numbers
        given = np.broadcast_to(numbers, shape)
        for number in given.ravel().tolist():
            if isinstance(number, bool) or not isinstance(number, int | float) or number % 1:
                raise ValueError(f"n_cells must be whole numbers, not {number!r}")
        if not (given >= 1).all():
            raise ValueError(f"n_cells must be at least 1, but the smallest is {given.min()}")
        return given.astype(np.int64)

    def _map(self, function: Callable[[Block], Result]) -> Iterator[tuple[Block, Result]]:
        """Apply a function to each block."""
        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        return map_blocks(function, blocks(*shape), progress_bar=self.progress_bar)

    def _collect(
        self, function: Callable[[Block], NDArray], tail: tuple[int, ...], *, draws: bool = False
    ) -> NDArray[np.float32]:
        """Results (gene, …) or (draw, gene, …) of all blocks as one array ([draw,] perturbation, context, gene, …)."""
        shape = (len(self.perturbations), len(self.contexts), len(self.genes))
        lead = (slice(None),) if draws else ()
        out = np.empty(0, np.float32)
        for block, values in self._map(function):
            if not out.size:
                out = np.empty((*values.shape[: len(lead)], *shape, *tail), np.float32)
            out[(*lead, block.perturbation, block.context, block.genes)] = values
        return out

    def _labelled(self, values: NDArray, tail: tuple[str, ...], *, draws: bool = False) -> xr.DataArray:
        """Name the dimensions of what `_collect` returns; no context dimension where the training has none."""
        import xarray as xr

        dims = (*(["draw"] if draws else []), "perturbation", "context", "gene", *tail)
        coords: dict[str, Any] = {
            "perturbation": list(self.perturbations),
            "context": list(self.contexts),
            "gene": list(self.genes),
        }
        if draws:
            coords["draw"] = np.arange(len(values))
        array = xr.DataArray(values, dims=dims, coords=coords)
        return array if self._has_contexts else array.isel(context=0, drop=True)

    def _moment(self, name: str, values: NDArray, tail: tuple[str, ...], *, draws: bool = False) -> xr.DataArray:
        """Label values of a moment as `_labelled` does, and say what they are."""
        return self._labelled(values, tail, draws=draws).assign_attrs(attributes(name))

    def _with_bins(self, array: xr.DataArray) -> xr.DataArray:
        """Attach the edges of the bins to probabilities, and say what they are."""
        array = array.assign_coords(self.training.dataset[["bin_left", "bin_right"]].coords)
        return array.assign_attrs(long_name="probability of the bin", units="1")

    def _draw_moments(self, moments: Callable[[Block], Sequence[NDArray]], names: Sequence[str]) -> xr.Dataset:
        """Draws (draw, perturbation, [context,] gene) of named moments, given as (draw, gene) for each block."""
        import xarray as xr

        values = self._collect(lambda block: np.stack(moments(block), axis=-1), (len(names),), draws=True)
        return xr.Dataset({name: self._moment(name, values[..., i], (), draws=True) for i, name in enumerate(names)})

    def _summarise_moments(
        self, moments: Callable[[Block], Sequence[NDArray]], names: Sequence[str], ci_prob: float
    ) -> xr.Dataset:
        """Median and interval (statistic, perturbation, [context,] gene) of named moments; draws are soon forgotten."""
        import xarray as xr

        levels = quantile_levels(ci_prob)

        def quantiles(block: Block) -> NDArray:
            found = quantiles_of_moments(np.stack(moments(block)), levels)
            return np.moveaxis(found, (0, 2), (-1, 0))  # (gene, moment, level)

        values = self._collect(quantiles, (len(names), len(levels)))
        summary = xr.Dataset(
            {name: self._moment(name, values[..., i, :], ("statistic",)) for i, name in enumerate(names)}
        )
        summary = summary.transpose("statistic", ...)
        return summary.assign_coords(statistic=list(STATISTICS)).assign_attrs(ci_prob=ci_prob)


class Drawn(Predicted):
    """Predictions that draw histograms: those of the distributions, or of replicates of so many cells."""

    if TYPE_CHECKING:

        def _draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
            """Histograms (draw, gene, bin), or those of so many cells (perturbation, context)."""

    def histogram_interval(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.DataArray:
        """Median and central interval of each bin's probability.

        Parameters
        ----------
        ci_prob
            Probability that the interval holds, bin by bin.
        n_cells
            As in `moments`: with it, the interval is that of the share of so many cells that a bin would hold. Without,
            that of a baseline has no width.

        Returns
        -------
        DataArray
            (statistic, perturbation, [context,] gene, bin), with ``statistic`` one of ``median``, ``lower``,
            ``upper``. Medians of bins need not sum to one; `histogram` gives probabilities that do.

        Raises
        ------
        ValueError
            If ``ci_prob`` is not between 0 and 1, or the method predicts means alone.
        """
        levels, cells = quantile_levels(ci_prob), self._cells(n_cells)

        def quantiles(block: Block) -> NDArray:
            return np.moveaxis(np.quantile(self._draw(block, cells), levels, axis=0), 0, -1)

        values = self._collect(quantiles, (self.training.n_bins, len(levels)))
        array = self._labelled(values, ("bin", "statistic")).transpose("statistic", ...)
        return self._with_bins(array.assign_coords(statistic=list(STATISTICS)).assign_attrs(ci_prob=ci_prob))


def quantiles_of_moments(draws: NDArray, levels: Sequence[float]) -> NDArray:
    """Quantiles (level, moment, gene) of the moments (moment, draw, gene) of histograms.

    A draw of a single point has no skewness and no kurtosis, and is left out of the quantiles of these two; they are
    what those draws show that have any, as the moments of observed cells are. They are 0 where no draw has.
    """
    found = np.quantile(draws, levels, axis=1)
    is_point = draws[1] == 0 if len(draws) == len(MOMENTS) else np.zeros_like(draws[0], bool)
    for_some = is_point.any(axis=0) & ~is_point.all(axis=0)
    if for_some.any():
        shapes = np.where(is_point[:, for_some], np.nan, draws[2:, :, for_some])
        found[:, 2:, for_some] = np.nanquantile(shapes, levels, axis=1)
    return found


def quantile_levels(ci_prob: float) -> list[float]:
    """Quantile levels of `STATISTICS`."""
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob must lie between 0 and 1, not {ci_prob}")
    return [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2]


def check_loss(loss: str) -> None:
    """Refuse a loss for which no prediction has a best histogram."""
    if loss not in ("log", "wasserstein"):
        raise ValueError(f"loss must be 'log' or 'wasserstein', not {loss!r}")
