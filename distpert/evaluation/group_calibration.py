"""Calibration of each group, a perturbation in a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int, Integer
from numpy.typing import NDArray

from distpert.evaluation.intervals import (
    cell_pit,
    central_intervals,
    covered,
    interval_score,
    pit_bounds,
    pit_masses,
)
from distpert.evaluation.scores import cramer
from distpert.histograms.moments import moments_of_cells
from distpert.predictions.blocks import Block, blocks, map_blocks
from distpert.predictions.conformal import ConformalPrediction
from distpert.predictions.histogram_prediction import HistogramPrediction

Forecast: TypeAlias = HistogramPrediction | ConformalPrediction
SPREAD_LEVEL = 0.5  # the width of this interval measures the uncertainty of a perturbation


class Grid(NamedTuple):
    """Options: nominal levels, edges of the bins of transforms, and the stratum of each gene in each context."""

    levels: Sequence[float]
    edges: Float[np.ndarray, " edge"]
    stratum: Int[np.ndarray, "context gene"]
    n_strata: int


def calibrate_groups(
    prediction: Forecast,
    counts: Integer[np.ndarray, "perturbation context gene bin"],
    control: Float[np.ndarray, "context gene bin"],
    n_control: Int[np.ndarray, " context"],
    grid: Grid,
) -> dict[str, NDArray[np.float64]]:
    """Measures of calibration, averaged over genes, (…, perturbation, context); NaN without cells.

    For a group of one cell, all moments except the mean are NaN as well.

    ``control`` are the shares of ``n_control`` cells. Draws are made and discarded block by block. ``coverage``,
    ``width`` and ``interval_score`` are (level, moment, …), ``coverage_by_expression`` (level, moment, stratum, …),
    ``pit`` (moment, pit_bin, …), ``pit_cells`` (pit_bin, …), ``effect_size``, ``cramer`` and ``spread`` (…). Conformal
    predictions have no ``pit``, ``pit_cells`` and ``cramer``, and only posteriors have a ``spread``.
    """
    n_cells = counts[:, :, 0].sum(axis=-1)
    in_stratum = grid.stratum[..., None] == np.arange(grid.n_strata)  # (context, gene, stratum)
    centers, width = prediction.centers, prediction.training.widths.to_numpy()
    intervals, transforms = _intervals(prediction, n_cells, grid), _transforms(prediction, grid)

    def sums(block: Block) -> dict[str, NDArray[np.floating]]:
        genes = block.genes
        here = counts[block.perturbation, block.context, genes]
        lower, upper, seen, inside, pit = intervals(block, here, centers[genes])
        found = {
            "coverage": inside.sum(axis=-1),
            "coverage_by_expression": inside @ in_stratum[block.context, genes].astype(np.float64),
            "width": (upper - lower).sum(axis=-1),
            "interval_score": interval_score(lower, upper, seen, grid.levels).sum(axis=-1),
            "effect_size": cramer(
                control[block.context, genes], here, width[genes], n_probs=int(n_control[block.context])
            ).sum(),
        }
        if pit is not None:
            found["pit"] = pit.sum(axis=1)
        return found | transforms(block, here, width[genes])

    todo = [block for block in blocks(*counts.shape[:3]) if n_cells[block.perturbation, block.context]]
    totals: dict[str, NDArray[np.float64]] = {}
    for block, found in map_blocks(sums, todo, progress_bar=prediction.progress_bar):
        for name, value in found.items():
            total = totals.setdefault(name, np.zeros((*n_cells.shape, *np.shape(value))))
            total[block.perturbation, block.context] += value
    for name, total in totals.items():
        if name == "coverage_by_expression":
            n_genes = in_stratum.sum(axis=1).astype(np.float64)
            total /= np.where(n_genes > 0, n_genes, np.nan)[:, None, None]
        else:
            total /= counts.shape[2]
        total[n_cells == 0] = np.nan
        if name == "pit":
            total[n_cells == 1, 1:] = np.nan  # one cell has a mean, but no other moment
        elif name in ("coverage", "coverage_by_expression", "width", "interval_score"):
            total[n_cells == 1, :, 1:] = np.nan
    return {name: np.moveaxis(total, (0, 1), (-2, -1)) for name, total in totals.items()}


_OfBlock: TypeAlias = Callable[[Block, NDArray, NDArray], tuple]


def _intervals(prediction: Forecast, n_cells: NDArray[np.int64], grid: Grid) -> _OfBlock:
    """Return a function of a block: ends of intervals, observed moments, coverage, and masses of transforms."""
    if isinstance(prediction, ConformalPrediction):
        ends = prediction.intervals(grid.levels, n_cells if prediction.of_cells else None)

        def conformal(block: Block, counts: NDArray, centers: NDArray) -> tuple:
            lower, upper = ends(block)
            seen = moments_of_cells(counts, centers.astype(lower.dtype))[: lower.shape[1]]
            return lower, upper, seen, (lower <= seen) & (seen <= upper), None

        return conformal

    def of_draws(block: Block, counts: NDArray, centers: NDArray) -> tuple:
        draws = np.moveaxis(prediction.draw_moments(block, n_cells), 0, 1)  # (draw, moment, gene)
        seen = moments_of_cells(counts, centers.astype(draws.dtype))
        bounds = pit_bounds(draws, seen)
        inside, pit = covered(*bounds, grid.levels), pit_masses(*bounds, grid.edges)
        return *central_intervals(draws, grid.levels), seen, inside, pit

    return of_draws


def _transforms(prediction: Forecast, grid: Grid) -> Callable[[Block, NDArray, NDArray], dict[str, NDArray]]:
    """Return a function of a block: transforms of cells, Cramér distance and, for several draws, their spread."""
    if isinstance(prediction, ConformalPrediction):
        return lambda block, counts, width: {}
    shape = (len(prediction.perturbations), len(prediction.contexts), len(prediction.genes), -1)
    histogram = prediction.histogram("log").to_numpy().reshape(shape)
    centers = prediction.centers.astype(np.float32)

    def of_block(block: Block, counts: NDArray, width: NDArray) -> dict[str, NDArray]:
        probs = histogram[block.perturbation, block.context, block.genes].astype(np.float64)
        probs /= probs.sum(axis=-1, keepdims=True)
        found = {
            "pit_cells": cell_pit(probs, counts, grid.edges).sum(axis=0),
            "cramer": cramer(probs, counts, width).sum(),
        }
        distributions = prediction.draw(block)
        if len(distributions) > 1:
            means = (distributions * centers[block.genes]).sum(axis=-1)
            lower, upper = central_intervals(means, [SPREAD_LEVEL])
            found["spread"] = (upper - lower).sum()
        return found

    return of_block
