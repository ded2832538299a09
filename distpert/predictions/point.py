"""Predictions of baselines: one histogram, or one mean, for every gene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed
from distpert.predictions.blocks import Block
from distpert.predictions.draws import REPLICATE, sample_replicates
from distpert.predictions.histogram_prediction import HistogramPrediction
from distpert.predictions.moment_prediction import Answers, MomentPrediction


@dataclass(frozen=True, eq=False, repr=False)
class PointPrediction(HistogramPrediction):
    """One histogram for every gene under some perturbations, without uncertainty.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    probs : ndarray, shape (perturbation, context, gene, bin)
        Bin probabilities.
    num_draws : int
        Number of replicates if ``n_cells`` is given, for example to `summary`.

    Raises
    ------
    ValueError
        If probabilities have another shape, are negative, or do not sum to one.

    See Also
    --------
    MeanPrediction : for methods that predict only means.

    Examples
    --------
    >>> PointPrediction(histograms, ("A", "B"), histograms.contexts, probs)  # doctest: +SKIP
    """

    probs: NDArray[np.float64]
    num_draws: int = field(default=200, kw_only=True)

    kind: ClassVar[str] = "baseline"

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_count("num_draws", self.num_draws)
        _as_tuples(self)
        object.__setattr__(self, "probs", np.asarray(self.probs, np.float64))
        expected = (len(self.perturbations), len(self.contexts), len(self.training.genes), self.training.n_bins)
        if self.probs.shape != expected:
            raise ValueError(f"probs must be {expected}, (perturbation, context, gene, bin), not {self.probs.shape}")
        if not (self.probs.min() >= 0 and np.abs(self.probs.sum(axis=-1) - 1).max() < 1e-5):
            raise ValueError("probs must be at least 0 and sum to one over bins")

    def __repr__(self) -> str:
        return _describe(self, "PointPrediction", f"a histogram of {self.training.n_bins} bins")

    def select_position(self, perturbation: int, context: int) -> PointPrediction:
        """Take out one group; see `BasePrediction.select_position`."""
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            probs=self.probs[np.ix_([perturbation], [context])],
        )

    def draw(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
        """Return the histogram as the only draw, or replicates; see `HistogramPrediction.draw`."""
        histogram = self.probs[block.perturbation, block.context, block.genes]
        if n_cells is None:
            return histogram[None]
        repeated = np.broadcast_to(histogram, (self.num_draws, *histogram.shape))
        cells = int(n_cells[block.perturbation, block.context])
        return sample_replicates(self.generator(block, REPLICATE), repeated, cells)

    def histogram_of_block(self, block: Block, loss: Literal["log", "wasserstein"]) -> NDArray[np.floating]:
        """Return the histogram, the same for both losses."""
        return self.probs[block.perturbation, block.context, block.genes]


@dataclass(frozen=True, eq=False, repr=False)
class MeanPrediction(MomentPrediction):
    """One mean for every gene under some perturbations: no histogram, no uncertainty.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    means : ndarray, shape (perturbation, context, gene)
        Means, in the units of the data.

    Raises
    ------
    ValueError
        If means have another shape or are not finite.

    See Also
    --------
    PointPrediction : for methods that predict histograms.

    Examples
    --------
    >>> MeanPrediction(histograms, ("A", "B"), histograms.contexts, means)  # doctest: +SKIP
    """

    means: NDArray[np.float64]

    kind: ClassVar[str] = "baseline"

    def __post_init__(self) -> None:
        check_seed(self.seed)
        _as_tuples(self)
        object.__setattr__(self, "means", np.asarray(self.means, np.float64))
        expected = (len(self.perturbations), len(self.contexts), len(self.training.genes))
        if self.means.shape != expected:
            raise ValueError(f"means must be {expected}, (perturbation, context, gene), not {self.means.shape}")
        if not np.isfinite(self.means).all():
            raise ValueError("means are not all finite numbers")

    def __repr__(self) -> str:
        return _describe(self, "MeanPrediction", "a mean")

    @property
    def moment_names(self) -> tuple[str, ...]:
        """Only the mean."""
        return ("mean",)

    def select_position(self, perturbation: int, context: int) -> MeanPrediction:
        """Take out one group; see `BasePrediction.select_position`."""
        return replace(
            self,
            perturbations=(self.perturbations[perturbation],),
            contexts=(self.contexts[context],),
            means=self.means[np.ix_([perturbation], [context])],
        )

    def draw_moments(self, block: Block, n_cells: NDArray[np.int64] | None = None) -> NDArray[np.floating]:
        """Return the mean as the only draw of the only moment.

        Raises
        ------
        ValueError
            If ``n_cells`` is given.
        """
        if n_cells is not None:
            raise ValueError("this method predicts means alone, without the variation between cells: leave n_cells out")
        return self.means[block.perturbation, block.context, block.genes][None, None]

    def answers(self, n_cells: NDArray[np.int64]) -> Callable[[int, int], Answers]:
        """Return the means; see `MomentPrediction.answers`."""
        return lambda p, c: Answers(mean=self.means[p, c], moments=self.means[p, c][None])


def _as_tuples(prediction: PointPrediction | MeanPrediction) -> None:
    """Turn labels, given as any sequence, into tuples."""
    for name in ("perturbations", "contexts"):
        object.__setattr__(prediction, name, tuple(getattr(prediction, name)))


def _describe(prediction: PointPrediction | MeanPrediction, name: str, what: str) -> str:
    n_seen = len(set(prediction.training.perturbations).intersection(prediction.perturbations))
    return (
        f"{name}: {what} for each of {len(prediction.perturbations)} perturbations ({n_seen} in training) × "
        f"{len(prediction.genes)} genes{prediction.in_contexts()}"
    )
