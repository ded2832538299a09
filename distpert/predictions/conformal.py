r"""Split-conformal intervals around a prediction: what calibration costs a method that has none of its own.

The residuals that a fitted method leaves on perturbations it was not fitted to tell how wide intervals for others must
be. Genes of one perturbation are dependent, so the perturbation is what is exchangeable, and each counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert._shared.labels import listed
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.moments import moments_of_cells
from distpert.histograms.observed import observed_cells
from distpert.predictions.base import BasePrediction, MomentPrediction
from distpert.predictions.blocks import Block, blocks, map_blocks

if TYPE_CHECKING:
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms

    Ends = tuple[NDArray[np.floating], NDArray[np.floating]]

_ROUNDING = 1e-12  # of sums of weights


@dataclass(frozen=True, eq=False, repr=False)
class ConformalPrediction(BasePrediction):
    """Split-conformal intervals of moments around another prediction; made by `conformalize`.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    point : MomentPrediction
        The prediction that intervals are put around: around the median of the moment of so many cells, or for a method
        that predicts means alone around its mean.
    scores : ndarray, shape (moment, pair)
        Absolute residuals of the perturbations that calibrate, where a pair is one of their contexts and genes; in
        units of the predicted standard deviation for so many cells if ``scaled``.
    weights : ndarray, shape (pair,)
        Of the pairs: those of one perturbation sum to 1 / (K + 1), with K perturbations.
    n_calibration : int
        Number K of perturbations that calibrate.
    scaled : bool
        Whether intervals are wider where fewer cells or a wider histogram make the moment vary more.

    See Also
    --------
    distpert.conformalize, distpert.calibration

    Examples
    --------
    >>> intervals = distpert.conformalize(prediction, calibrating, training)  # doctest: +SKIP
    >>> distpert.calibration(intervals, held_out)  # doctest: +SKIP
    """

    point: MomentPrediction = field(kw_only=True)
    scores: Float[np.ndarray, "moment pair"] = field(kw_only=True)
    weights: Float[np.ndarray, " pair"] = field(kw_only=True)
    n_calibration: int = field(kw_only=True)
    scaled: bool = field(kw_only=True)

    kind: ClassVar[str] = "conformal"

    def __repr__(self) -> str:
        scale = "predicted standard deviations" if self.scaled else "units of the moment"
        return (
            f"ConformalPrediction: intervals from the residuals, in {scale}, of {self.n_calibration} perturbations, "
            f"around\n  {self.point!r}"
        )

    @property
    def moment_names(self) -> tuple[str, ...]:
        """Moments that have intervals."""
        return self.point.moment_names

    @property
    def of_cells(self) -> bool:
        """Whether intervals are for the moments of so many cells; not for a method that predicts means alone."""
        return len(self.moment_names) > 1

    @property
    def embeddings(self) -> Embeddings | None:
        """Gene embeddings of the prediction that the intervals are around."""
        return self.point.embeddings

    def radius(self, level: float) -> Float[np.ndarray, " moment"]:
        r"""Quantile of the residuals that makes intervals hold.

        .. math:: \min\Big\{q : \sum_{k=1}^K \frac{1}{(K + 1) |G_k|} \sum_{i \in G_k} 1\{s_{ki} \le q\}
                  \ge \text{level}\Big\}

        with the scores s of the pairs :math:`G_k` of perturbation k (Lee, Barber & Willett 2023, hierarchical conformal
        prediction; with one pair each, split conformal prediction, Lei et al. 2018). Infinite where it takes residuals
        of moments that were predicted not to vary at all.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1, or above K / (K + 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"a level must lie between 0 and 1, not {level}")
        needed = int(np.ceil(level / (1 - level) - _ROUNDING * 1e3))
        if self.n_calibration < needed:
            raise ValueError(
                f"intervals of level {level} need {needed} perturbations to calibrate, there are {self.n_calibration}: "
                "give more, or ask for a lower level"
            )
        order = self.scores.argsort(axis=1)
        reached = self.weights[order].cumsum(axis=1) >= level - _ROUNDING
        # The last one is enough by the check above, whatever rounding says.
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), order.shape[1] - 1)
        rows = np.arange(len(order))
        return self.scores[rows, order[rows, first]]

    def summarizer(self, ci_prob: float, n_cells: NDArray[np.int64] | None) -> Callable[[Block], NDArray]:
        """Center and ends of the conformal intervals; see `BasePrediction.summarizer`.

        Raises
        ------
        ValueError
            If the level needs more perturbations to calibrate, or ``n_cells`` is missing where the method predicts
            histograms.
        """
        if n_cells is None and self.of_cells:
            raise ValueError("conformal intervals are for the moments of so many cells: give n_cells")
        intervals = self.intervals([ci_prob], n_cells)

        def of_block(block: Block) -> NDArray:
            center, _ = _center_and_scale(self.point, block, n_cells, scaled=False)
            lower, upper = intervals(block)
            return np.stack([center, lower[0], upper[0]])

        return of_block

    def select_position(self, perturbation: int, context: int) -> ConformalPrediction:
        """Take out one group; see `BasePrediction.select_position`."""
        point = self.point.select_position(perturbation, context)
        return replace(self, point=point, perturbations=point.perturbations, contexts=point.contexts)

    def intervals(self, levels: Sequence[float], n_cells: NDArray[np.int64] | None) -> Callable[[Block], Ends]:
        """Give what makes the ends (level, moment, gene) of a block's intervals, for cells (perturbation, context)."""
        radius = np.stack([self.radius(level) for level in levels])[..., None]

        def of_block(block: Block) -> Ends:
            center, scale = _center_and_scale(self.point, block, n_cells, self.scaled)
            # A moment that does not vary has its interval on one point, whatever the quantile.
            half = np.where(scale > 0, radius, 0) * scale
            return center - half, center + half

        return of_block


def conformalize(
    prediction: MomentPrediction,
    calibrating: MomentPrediction,
    adata: AnnData | Histograms,
    *,
    scaled: bool = True,
) -> ConformalPrediction:
    r"""Put split-conformal intervals around a prediction.

    The score of gene g in context c of a perturbation that calibrates is

    .. math:: s = |x - \hat x| / \hat\sigma

    with x the moment of its n cells, :math:`\hat x` the predicted median and :math:`\hat\sigma` the predicted standard
    deviation of that moment in n cells (or 1, if not ``scaled``; 0 / 0 is 0). An interval of a level is
    :math:`\hat x \pm q \hat\sigma`, with q from `ConformalPrediction.radius`, one for each moment.

    Parameters
    ----------
    prediction
        Of the perturbations that intervals are wanted for.
    calibrating
        The same fitted method's prediction of other perturbations that it was not fitted to.
    adata
        Cells of these, or histograms of them in the bins of the training. Groups of a single cell, which has no
        variance, skewness or kurtosis, are left out, but for a method that predicts means alone.
    scaled
        Whether to divide residuals by the predicted standard deviation.

    Returns
    -------
    ConformalPrediction

    Raises
    ------
    TypeError
        If either prediction is none, or `adata` neither cells nor histograms.
    ValueError
        If both predictions are not of the same training, or a perturbation that calibrates was in training, is also to
        be predicted, or has fewer than two cells; or if a method that predicts means alone is to be scaled.

    Notes
    -----
    **Guaranteed**: if the perturbations that calibrate and a new one are exchangeable, then over both, a gene of the
    new one drawn at random lies in its interval with probability at least the level. **Not guaranteed**: that this
    holds for each gene, each perturbation, each stratum, or for the K perturbations that happened to calibrate: with
    few of them coverage varies about the level as their number allows. Combinations are not exchangeable with
    singles.
    """
    for name, given in (("prediction", prediction), ("calibrating", calibrating)):
        check_type(name, given, MomentPrediction, made_by="fit.predict(labels)")
    if prediction.training is not calibrating.training:
        raise ValueError("both predictions must be of the same fitted method: their training differs")
    _check_apart(prediction, calibrating)
    mean_only = len(prediction.moment_names) == 1
    if mean_only and scaled:
        raise ValueError("this method predicts means alone, which have no standard deviation: pass scaled=False")
    observed = observed_cells(calibrating.training, adata, calibrating.perturbations, calibrating.contexts)
    counts, n_cells = observed["counts"].to_numpy(), observed["n_cells"].to_numpy()
    # One cell has a mean and no other moment, so that there is nothing to be off.
    counted = n_cells > (0 if mean_only else 1)
    if absent := [label for label, n in zip(calibrating.perturbations, counted.sum(axis=1), strict=True) if not n]:
        few = "no" if mean_only else "fewer than two"
        raise ValueError(f"{few} cells to calibrate with for {listed(absent)}, in any context: leave them out")
    centers = calibrating.centers

    def scores_of(block: Block) -> NDArray[np.float64]:
        cells = None if mean_only else n_cells
        center, scale = _center_and_scale(calibrating, block, cells, scaled)
        seen = moments_of_cells(
            counts[block.perturbation, block.context, block.genes], centers[block.genes].astype(center.dtype)
        )
        residual = np.abs(seen[: len(center)] - center).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(residual == 0, 0, residual / scale)

    todo = [block for block in blocks(*counts.shape[:3]) if counted[block.perturbation, block.context]]
    scores, owner = [], []
    for block, values in map_blocks(scores_of, todo):
        scores.append(values)
        owner += [block.perturbation] * values.shape[1]
    n_pairs = np.bincount(owner)
    weights = 1 / ((len(n_pairs) + 1) * n_pairs[owner])
    return ConformalPrediction(
        prediction.training,
        prediction.perturbations,
        prediction.contexts,
        point=prediction,
        scores=np.concatenate(scores, axis=1),
        weights=weights,
        n_calibration=len(n_pairs),
        scaled=scaled,
        seed=prediction.seed,
        progress_bar=prediction.progress_bar,
    )


def _center_and_scale(
    point: MomentPrediction, block: Block, n_cells: NDArray[np.int64] | None, scaled: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predicted median and standard deviation (moment, gene) of the moments of so many cells."""
    draws = point.draw_moments(block, n_cells)
    center = np.median(draws, axis=1)
    return center, draws.std(axis=1) if scaled else np.ones_like(center)


def _check_apart(prediction: MomentPrediction, calibrating: MomentPrediction) -> None:
    labels = calibrating.perturbations
    for others, what in (
        (calibrating.training.perturbations, "were in training, where residuals are too small"),
        (prediction.perturbations, "are to be predicted, too"),
    ):
        if shared := [label for label in labels if label in set(others)]:
            raise ValueError(f"{listed(shared)} cannot calibrate: they {what}")
