r"""Split-conformal intervals around a prediction.

The residuals of a fitted method on perturbations to which it was not fitted show how wide intervals for others must be.
Genes of one perturbation are dependent, so perturbations are exchangeable and genes are not: each perturbation counts
once.
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
from distpert.predictions.base import BasePrediction
from distpert.predictions.blocks import Block, blocks, map_blocks
from distpert.predictions.moment_prediction import MomentPrediction

if TYPE_CHECKING:
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms

    Ends = tuple[NDArray[np.floating], NDArray[np.floating]]

_ROUNDING = 1e-12  # rounding error of sums of weights


@dataclass(frozen=True, eq=False, repr=False)
class ConformalPrediction(BasePrediction):
    """Split-conformal intervals of moments around another prediction; made by `conformalize`.

    Attributes
    ----------
    training, perturbations, contexts, seed, progress_bar
        As in `distpert.BasePrediction`.
    point : MomentPrediction
        The prediction in the centers of the intervals: the median of the moment of ``n_cells`` cells, or the mean for a
        method that predicts only means.
    scores : ndarray, shape (moment, pair)
        Absolute residuals of the calibrating perturbations. A pair is one of their contexts and genes. If ``scaled``,
        they are in units of the predicted standard deviation of the moment of as many cells.
    weights : ndarray, shape (pair,)
        Weights of the pairs; those of one perturbation sum to 1 / (K + 1), with K perturbations.
    n_calibration : int
        Number K of calibrating perturbations.
    scaled : bool
        Whether intervals are wider if fewer cells or a wider histogram make the moment vary more.

    See Also
    --------
    distpert.conformalize, distpert.calibration

    Examples
    --------
    >>> intervals = distpert.conformalize(prediction, calibrating, adata)  # doctest: +SKIP
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
        """Whether intervals depend on numbers of cells; not for a method that predicts only means."""
        return len(self.moment_names) > 1

    @property
    def embeddings(self) -> Embeddings | None:
        """Gene embeddings of the prediction that the intervals are around."""
        return self.point.embeddings

    def radius(self, level: float) -> Float[np.ndarray, " moment"]:
        r"""Return the quantile of the residuals that gives intervals the coverage ``level``.

        .. math:: \min\Big\{q : \sum_{k=1}^K \frac{1}{(K + 1) |G_k|} \sum_{i \in G_k} 1\{s_{ki} \le q\}
                  \ge \text{level}\Big\}

        with the scores s of the pairs :math:`G_k` of perturbation k (Lee, Barber & Willett 2023, hierarchical conformal
        prediction; with one pair each, split conformal prediction, Lei et al. 2018).

        Parameters
        ----------
        level : float
            Probability of the interval.

        Returns
        -------
        ndarray, shape (moment,)
            Infinite if the predicted standard deviation was 0 for too many moments that varied.

        Notes
        -----
        The weights of the K calibrating perturbations sum to K / (K + 1); the rest belongs to the new perturbation. It
        is therefore the quantile of the residuals at level · (K + 1) / K: for K = 40, .95 becomes .974.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1, or is above K / (K + 1).

        Examples
        --------
        >>> intervals.radius(0.9)  # doctest: +SKIP
        """
        if not 0 < level < 1:
            raise ValueError(f"a level must lie between 0 and 1, not {level}")
        needed = int(np.ceil(level / (1 - level) - _ROUNDING * 1e3))
        if self.n_calibration < needed:
            raise ValueError(
                f"intervals of level {level} need {needed} perturbations to calibrate, there are {self.n_calibration}: "
                "pass more, or choose a lower level"
            )
        order = self.scores.argsort(axis=1)
        reached = self.weights[order].cumsum(axis=1) >= level - _ROUNDING
        # The last one is enough by the check above, whatever the rounding error.
        first = np.where(reached.any(axis=1), reached.argmax(axis=1), order.shape[1] - 1)
        rows = np.arange(len(order))
        return self.scores[rows, order[rows, first]]

    def summarizer(self, ci_prob: float, n_cells: NDArray[np.int64] | None) -> Callable[[Block], NDArray]:
        """Return center and ends of the conformal intervals; see `BasePrediction.summarizer`.

        Raises
        ------
        ValueError
            If the level needs more calibrating perturbations, or the method predicts histograms and ``n_cells`` is
            missing.
        """
        if n_cells is None and self.of_cells:
            raise ValueError("conformal intervals are for the moments of a number of cells: pass n_cells")
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
        """Return a function from blocks to the ends of their intervals.

        Parameters
        ----------
        levels : sequence of float
            Probabilities of the intervals.
        n_cells : ndarray, shape (perturbation, context), or None
            Numbers of cells; None only for a method that predicts only means.

        Returns
        -------
        callable
            From a block to the lower and upper ends of the intervals, two arrays (level, moment, gene).

        Raises
        ------
        ValueError
            If a level is not between 0 and 1, or needs more calibrating perturbations.

        Examples
        --------
        >>> n_cells = np.full((len(intervals.perturbations), len(intervals.contexts)), 300)  # doctest: +SKIP
        >>> of_block = intervals.intervals([0.5, 0.9], n_cells)  # doctest: +SKIP
        """
        radius = np.stack([self.radius(level) for level in levels])[..., None]

        def of_block(block: Block) -> Ends:
            center, scale = _center_and_scale(self.point, block, n_cells, self.scaled)
            # The interval of a moment that does not vary is a point, for any quantile.
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

    The score of gene g in context c of a calibrating perturbation is

    .. math:: s = |x - \hat x| / \hat\sigma

    with x the moment of its n cells, :math:`\hat x` the predicted median and :math:`\hat\sigma` the predicted standard
    deviation of this moment in n cells (or 1, if not ``scaled``; 0 / 0 is 0). The interval is
    :math:`\hat x \pm q \hat\sigma`, with q from `ConformalPrediction.radius`, for each level and moment.

    Parameters
    ----------
    prediction : MomentPrediction
        Prediction of the perturbations that are to get intervals.
    calibrating : MomentPrediction
        Prediction, by the same fitted method, of other perturbations to which it was not fitted.
    adata : AnnData or Histograms
        Cells of the calibrating perturbations, or their histograms in the bins of the training. Groups of a single cell
        are omitted, because one cell has no variance, skewness or kurtosis. For a method that predicts only means they
        are kept.
    scaled : bool
        Whether to divide residuals by the predicted standard deviation.

    Returns
    -------
    ConformalPrediction

    Raises
    ------
    TypeError
        If either prediction is of another type, or `adata` is neither cells nor histograms.
    ValueError
        If the two predictions do not have the same training; if a calibrating perturbation was in training, is also
        predicted, or has fewer than two cells; or if a method predicts only means and ``scaled`` is True.

    See Also
    --------
    distpert.ConformalPrediction, distpert.calibration

    Notes
    -----
    **Guaranteed**: if the calibrating perturbations and a new one are exchangeable, a random gene of the new one lies
    in its interval with a probability of at least the level, on average over calibrating and new perturbations
    together.

    **Not guaranteed**: this coverage for each gene, each perturbation, each stratum, or for the given K calibrating
    perturbations. With few of them, coverage varies about the level. Combinations are not exchangeable with single
    perturbations.

    References
    ----------
    Lee, Barber & Willett (2023), Distribution-free inference with hierarchical data; Lei et al. (2018),
    Distribution-free predictive inference for regression.

    Examples
    --------
    >>> predictor = distpert.baselines.PooledHistogram().fit(training, embeddings)  # doctest: +SKIP
    >>> predictions = predictor.predict(held_out), predictor.predict(others)  # doctest: +SKIP
    >>> intervals = distpert.conformalize(*predictions, adata)  # doctest: +SKIP
    >>> intervals.summary(n_cells=300)  # doctest: +SKIP
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
    # One cell has a mean and no other moments, so it has no other residuals.
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
    """Return predicted median and standard deviation (moment, gene) of the moments of ``n_cells`` cells."""
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
