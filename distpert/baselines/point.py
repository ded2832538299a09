"""What a baseline predicts: one histogram, or one mean, for every gene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpert.arguments import check_count, check_seed
from distpert.draws import REPLICATE, Block, sample_replicates
from distpert.histograms import Histograms
from distpert.moments import MOMENTS, histogram_moments
from distpert.predicted import Drawn, check_loss

if TYPE_CHECKING:
    import xarray as xr

    from distpert.predicted import CellNumbers

NUM_DRAWS = 200  # replicates, where nobody says how many


@dataclass(frozen=True, eq=False, repr=False)
class PointPrediction(Drawn):
    """One histogram for every gene under some perturbations, or for mean-only methods one mean; no uncertainty.

    A baseline's ``predict`` makes it, by `from_probs` or `from_means`. It has ``histogram``, ``histogram_interval``,
    ``moments`` and ``summary`` as `distpert.Prediction` has them, and scores, calibration, checks and plots take it.

    Attributes
    ----------
    training : Histograms
        What the method was fitted to: its bins, genes, contexts and controls.
    perturbations, contexts : tuple of str
        What is predicted; every combination of the two.
    probs : ndarray, shape (perturbation, context, gene, bin), or None
        Bin probabilities; None for a mean-only method.
    means : ndarray, shape (perturbation, context, gene)
        In the units of the data; those of ``probs`` where there are any.
    seed : int
        All randomness of replicates follows from it.
    """

    training: Histograms
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    probs: NDArray[np.float64] | None
    means: NDArray[np.float64]
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        shape = (len(self.perturbations), len(self.contexts), len(self.training.genes))
        if np.shape(self.means) != shape:
            raise ValueError(f"means must be {shape}, (perturbation, context, gene), not {np.shape(self.means)}")
        if not np.isfinite(self.means).all():
            raise ValueError("means are not all finite numbers")
        if self.probs is None:
            return
        expected = (*shape, self.training.n_bins)
        if np.shape(self.probs) != expected:
            raise ValueError(
                f"probs must be {expected}, (perturbation, context, gene, bin), not {np.shape(self.probs)}"
            )
        if not (np.min(self.probs) >= 0 and np.abs(np.sum(self.probs, axis=-1) - 1).max() < 1e-5):
            raise ValueError("probs must be at least 0 and sum to one over bins")

    @classmethod
    def from_probs(
        cls,
        training: Histograms,
        perturbations: Sequence[str],
        contexts: Sequence[str],
        probs: ArrayLike,
        *,
        seed: int = 0,
    ) -> PointPrediction:
        """Make it from bin probabilities (perturbation, context, gene, bin), which fix the means."""
        given = np.asarray(probs, np.float64)
        means = (given * training.centers.to_numpy()).sum(axis=-1)
        return cls(training, tuple(perturbations), tuple(contexts), given, means, seed)

    @classmethod
    def from_means(
        cls,
        training: Histograms,
        perturbations: Sequence[str],
        contexts: Sequence[str],
        means: ArrayLike,
        *,
        seed: int = 0,
    ) -> PointPrediction:
        """Make it from means (perturbation, context, gene) alone."""
        return cls(training, tuple(perturbations), tuple(contexts), None, np.asarray(means, np.float64), seed)

    def __repr__(self) -> str:
        seen = set(self.training.perturbations).intersection(self.perturbations)
        what = "a mean" if self.probs is None else f"a histogram of {self.training.n_bins} bins"
        contexts = f", in contexts {', '.join(self.contexts)}" if self._has_contexts else ""
        return (
            f"PointPrediction: {what} for each of {len(self.perturbations)} perturbations ({len(seen)} of them in "
            f"training) × {len(self.genes)} genes{contexts}"
        )

    def histogram(self, loss: Literal["log", "wasserstein"] = "log") -> xr.DataArray:
        """Give the predicted histogram, which is the same for every loss.

        Parameters
        ----------
        loss
            ``"log"`` or ``"wasserstein"``, as in `Prediction.histogram`.

        Returns
        -------
        DataArray
            (perturbation, [context,] gene, bin) probabilities that sum to one; coordinates ``bin_left`` and
            ``bin_right`` (gene, bin).

        Raises
        ------
        ValueError
            If the method predicts means alone, or the loss is another.
        """
        check_loss(loss)
        return self._with_bins(self._labelled(self._require_probs("there are no histograms"), ("bin",)))

    def moments(self, *, n_cells: CellNumbers = None, num_draws: int = NUM_DRAWS) -> xr.Dataset:
        """Moments of the predicted histograms, or of cells drawn from them.

        Parameters
        ----------
        n_cells
            If given, each draw has the moments that this many cells drawn from the histogram would show; in the forms
            that `Prediction.moments` takes.
        num_draws
            Number of such draws.

        Returns
        -------
        Dataset
            ``mean``, ``variance``, ``skewness``, ``kurtosis`` (excess), each (draw, perturbation, [context,] gene),
            float32; one draw without ``n_cells``. Only ``mean`` for a method that predicts means alone.

        Raises
        ------
        ValueError
            If the method predicts means alone and ``n_cells`` is given, or either number is below 1.
        """
        cells = self._cells(n_cells)
        return self._draw_moments(lambda block: self._moments(block, cells, num_draws), self._names(cells, num_draws))

    def summary(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Median and central interval of each moment.

        Parameters
        ----------
        ci_prob
            Probability that the interval holds.
        n_cells
            As in `moments`: with it, the interval is that in which the moments of so many cells would lie if the
            histogram were exact. Without, it has no width.

        Returns
        -------
        Dataset
            As `moments`, with ``statistic`` (``median``, ``lower``, ``upper``) in place of ``draw``.

        Raises
        ------
        ValueError
            If ``ci_prob`` is not between 0 and 1, or as in `moments`.
        """
        cells = self._cells(n_cells)
        return self._summarise_moments(lambda block: self._moments(block, cells), self._names(cells), ci_prob)

    def _one_group(self, perturbation: int, context: int) -> PointPrediction:
        here = np.ix_([perturbation], [context])
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            probs=None if self.probs is None else self.probs[here],
            means=self.means[here],
        )

    def _require_probs(self, lack: str) -> NDArray[np.float64]:
        if self.probs is None:
            raise ValueError(f"this method predicts means alone: {lack}")
        return self.probs

    def _names(self, cells: NDArray[np.int64] | None, num_draws: int = NUM_DRAWS) -> tuple[str, ...]:
        """Names of the moments there are."""
        check_count("num_draws", num_draws)
        if cells is not None:
            self._require_probs("what so many cells would show is not told, so leave n_cells out")
        return MOMENTS[:1] if self.probs is None else MOMENTS

    def _draw(
        self, block: Block, n_cells: NDArray[np.int64] | None = None, num_draws: int = NUM_DRAWS
    ) -> NDArray[np.floating]:
        """Give the histogram (draw, gene, bin) as the only draw, or draw those of so many cells."""
        probs = self._require_probs("there are no histograms to draw from")
        histogram = probs[block.perturbation, block.context, block.genes]
        if n_cells is None:
            return histogram[None]
        repeated = np.broadcast_to(histogram, (num_draws, *histogram.shape))
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self._generator(block, REPLICATE), repeated, cells)

    def _moments(
        self, block: Block, n_cells: NDArray[np.int64] | None, num_draws: int = NUM_DRAWS
    ) -> tuple[NDArray[np.floating], ...]:
        """Moments (draw, gene), of the histogram or of replicates of so many cells."""
        if self.probs is None:
            return (self.means[block.perturbation, block.context, block.genes][None],)
        return histogram_moments(self._draw(block, n_cells, num_draws), self.training.centers.to_numpy()[block.genes])
