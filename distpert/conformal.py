r"""Split-conformal intervals around a prediction: what calibration costs a method that has none of its own.

The residuals that a fitted method leaves on perturbations it was not fitted to tell how wide intervals for others must
be. Genes of one perturbation are dependent, so the perturbation is what is exchangeable, and each counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from distpert.arguments import check_type
from distpert.baselines.point import PointPrediction
from distpert.draws import Block, blocks, map_blocks
from distpert.intervals import moments_of_cells
from distpert.labels import listed
from distpert.moments import MOMENTS
from distpert.observed import observed_cells
from distpert.predicted import STATISTICS, Predicted, quantile_levels
from distpert.prediction import Prediction

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms import Histograms
    from distpert.predicted import CellNumbers

    Ends = tuple[NDArray[np.floating], NDArray[np.floating]]

_ROUNDING = 1e-12  # of sums of weights


@dataclass(frozen=True, eq=False, repr=False)
class ConformalPrediction(Predicted):
    """Split-conformal intervals of moments around another prediction; made by `conformalise`.

    Attributes
    ----------
    point : Prediction or PointPrediction
        What the intervals are around: the median of the moment of so many cells, or for a method that predicts means
        alone its mean.
    scores : ndarray, shape (moment, pair)
        Absolute residuals of the perturbations that calibrate, a pair being one of their contexts and genes; in units
        of the predicted standard deviation of so many cells if ``scaled``.
    weights : ndarray, shape (pair,)
        Of the pairs: those of one perturbation sum to 1 / (K + 1), with K perturbations.
    n_calibration : int
        Number K of perturbations that calibrate.
    scaled : bool
        Whether intervals are wider where fewer cells or a wider histogram make the moment vary more.
    """

    point: Prediction | PointPrediction
    scores: Float[np.ndarray, "moment pair"]
    weights: Float[np.ndarray, " pair"]
    n_calibration: int
    scaled: bool

    def __repr__(self) -> str:
        scale = "predicted standard deviations" if self.scaled else "units of the moment"
        return (
            f"ConformalPrediction: intervals from the residuals, in {scale}, of {self.n_calibration} perturbations, "
            f"around\n  {self.point!r}"
        )

    @property
    def perturbations(self) -> tuple[str, ...]:
        """What is predicted; every combination with `contexts`."""
        return self.point.perturbations

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts predicted for; ``("all",)`` where there is no context key."""
        return self.point.contexts

    @property
    def training(self) -> Histograms:
        """The counts that the method was fitted to."""
        return self.point.training

    @property
    def seed(self) -> int:
        """All randomness of replicates follows from it."""
        return self.point.seed

    @property
    def mean_only(self) -> bool:
        """Whether there are intervals of the mean alone."""
        return is_mean_only(self.point)

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

    def summary(self, ci_prob: float = 0.9, *, n_cells: CellNumbers = None) -> xr.Dataset:
        """Centre and conformal interval of each moment of so many cells.

        Parameters
        ----------
        ci_prob
            Probability that the interval should hold.
        n_cells
            As `Prediction.moments` takes it; to be left out for a method that predicts means alone.

        Returns
        -------
        Dataset
            As `Prediction.summary`; only ``mean`` for a method that predicts means alone.

        Raises
        ------
        ValueError
            If ``ci_prob`` is not between 0 and 1 or needs more perturbations, or ``n_cells`` is missing where the
            method predicts histograms.
        """
        import xarray as xr

        quantile_levels(ci_prob)
        cells = self._cells(n_cells)
        if cells is None and not self.mean_only:
            raise ValueError("conformal intervals are of what so many cells show: give n_cells")
        names = MOMENTS[: len(self.scores)]
        intervals = self.intervals([ci_prob], cells)

        def statistics(block: Block) -> NDArray:
            centre, _ = _centre_and_scale(self.point, block, cells, scaled=False)
            lower, upper = intervals(block)
            return np.moveaxis(np.stack([centre, lower[0], upper[0]]), -1, 0)

        values = self._collect(statistics, (len(STATISTICS), len(names)))
        summary = xr.Dataset({name: self._moment(name, values[..., i], ("statistic",)) for i, name in enumerate(names)})
        summary = summary.transpose("statistic", ...)
        return summary.assign_coords(statistic=list(STATISTICS)).assign_attrs(ci_prob=ci_prob)

    def _one_group(self, perturbation: int, context: int) -> ConformalPrediction:
        return replace(self, point=self.point._one_group(perturbation, context))

    def intervals(self, levels: Sequence[float], n_cells: NDArray[np.int64] | None) -> Callable[[Block], Ends]:
        """Give what makes the ends (level, moment, gene) of a block's intervals, for cells (perturbation, context)."""
        radius = np.stack([self.radius(level) for level in levels])[..., None]

        def of_block(block: Block) -> Ends:
            centre, scale = _centre_and_scale(self.point, block, n_cells, self.scaled)
            # A moment that does not vary has its interval on one point, whatever the quantile.
            half = np.where(scale > 0, radius, 0) * scale
            return centre - half, centre + half

        return of_block


def conformalise(
    prediction: Prediction | PointPrediction,
    calibrating: Prediction | PointPrediction,
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
        check_type(name, given, Prediction, PointPrediction, made_by="fit.predict(labels)")
    if prediction.training is not calibrating.training:
        raise ValueError("both predictions must be of the same fitted method: their training differs")
    _check_apart(prediction, calibrating)
    mean_only = is_mean_only(prediction)
    if mean_only and scaled:
        raise ValueError("this method predicts means alone, without a standard deviation: pass scaled=False")
    observed = observed_cells(calibrating.training, adata, calibrating.perturbations, calibrating.contexts)
    counts, n_cells = observed["counts"].to_numpy(), observed["n_cells"].to_numpy()
    # One cell has a mean and no other moment, so that there is nothing to be off.
    counted = n_cells > (0 if mean_only else 1)
    if absent := [label for label, n in zip(calibrating.perturbations, counted.sum(axis=1), strict=True) if not n]:
        few = "no" if mean_only else "fewer than two"
        raise ValueError(f"{few} cells to calibrate with for {listed(absent)}, in any context: leave them out")
    centers = calibrating.training.centers.to_numpy()

    def scores_of(block: Block) -> NDArray[np.float64]:
        cells = None if mean_only else n_cells
        centre, scale = _centre_and_scale(calibrating, block, cells, scaled)
        seen = moments_of_cells(
            counts[block.perturbation, block.context, block.genes], centers[block.genes].astype(centre.dtype)
        )
        residual = np.abs(seen[: len(centre)] - centre).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(residual == 0, 0, residual / scale)

    todo = [block for block in blocks(*counts.shape[:3]) if counted[block.perturbation, block.context]]
    scores, owner = [], []
    for block, values in map_blocks(scores_of, todo):
        scores.append(values)
        owner += [block.perturbation] * values.shape[1]
    n_pairs = np.bincount(owner)
    weights = 1 / ((len(n_pairs) + 1) * n_pairs[owner])
    return ConformalPrediction(prediction, np.concatenate(scores, axis=1), weights, len(n_pairs), scaled)


def is_mean_only(prediction: Predicted) -> bool:
    """Whether a method predicts means and no histograms."""
    return getattr(prediction, "probs", ()) is None


def _centre_and_scale(
    point: Prediction | PointPrediction, block: Block, n_cells: NDArray[np.int64] | None, scaled: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predicted median and standard deviation (moment, gene) of the moments of so many cells."""
    draws = np.stack(point._moments(block, n_cells))
    centre = np.median(draws, axis=1)
    return centre, draws.std(axis=1) if scaled else np.ones_like(centre)


def _check_apart(prediction: Prediction | PointPrediction, calibrating: Prediction | PointPrediction) -> None:
    labels = calibrating.perturbations
    for others, what in (
        (calibrating.training.perturbations, "were in training, where residuals are too small"),
        (prediction.perturbations, "are to be predicted, too"),
    ):
        if shared := [label for label in labels if label in set(others)]:
            raise ValueError(f"{listed(shared)} cannot calibrate: they {what}")
