"""Scores of one group, a perturbation in a context."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from numpy.typing import NDArray

from distpert.evaluation.scores import (
    cramer,
    crps,
    negative_log_density,
    negative_log_likelihood,
    pearson_shift,
    relative_absolute_error,
    split_counts,
    wasserstein,
    wasserstein_floor,
)
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.predictions.moment_prediction import Answers

FEWEST_FOR_CEILINGS = 4  # the Cramér distance needs two cells in each half
_ROUNDING = 1e-12  # for skewness and kurtosis, which have no units
WITH_CEILING = (
    *("nll", "cramer", "crps", "wasserstein"),
    *(f"rmae_{name}" for name in MOMENTS),
    *("pearson_shift", "pearson_shift_centered"),
)


class Cells(NamedTuple):
    """The held-out cells of a group: counts, values beyond the bins, and positions of the perturbed genes."""

    counts: Integer[np.ndarray, "gene bin"]
    outside: Int[np.ndarray, " gene"]
    targets: Int[np.ndarray, " target"]


class Scale(NamedTuple):
    """From the training: bins, means of controls and of training perturbations, and the histogram of all cells."""

    centers: Float[np.ndarray, "gene bin"]
    width: Float[np.ndarray, " gene"]
    control: Float[np.ndarray, " gene"]
    centroid: Float[np.ndarray, " gene"]
    pooled: Float[np.ndarray, "gene bin"]


def gene_scores(answers: Answers, cells: Cells, scale: Scale) -> dict[str, NDArray[np.floating]]:
    """Scores (gene,) of each gene; without predicted histograms only the error of the mean."""
    observed = _observed_moments(cells.counts, scale.centers)
    scores = {}
    if answers.log is not None:
        scores["out_of_range"] = cells.outside / cells.counts.sum(axis=-1)
        scores |= _distances(answers, cells.counts, scale.width)
    # A method that predicts means only has one moment.
    for name, predicted, seen in zip(MOMENTS, answers.moments, observed, strict=False):
        scores[f"error_{name}"] = np.abs(predicted - seen)
    return scores


def average_scores(answers: Answers, cells: Cells, scale: Scale) -> dict[str, float]:
    """Averages of scores over genes, and scores over all genes; without predicted histograms only those of the mean."""
    observed = _observed_moments(cells.counts, scale.centers)
    scores = {}
    if answers.log is not None:
        distances = _distances(answers, cells.counts, scale.width)
        scores["out_of_range"] = cells.outside.sum() / cells.counts.sum()
        scores["undefined_genes"] = float(np.isnan(observed[-1]).sum())
        scores |= {name: _mean(values) for name, values in distances.items()}
        scores["nll_density"] = _mean(distances["nll_density"][scale.width > 0])
        scores["on_target_cramer"] = _mean(distances["cramer"][cells.targets])
    for name, predicted, seen in zip(MOMENTS, answers.moments, observed, strict=False):
        defined = ~np.isnan(seen)
        scores[f"rmae_{name}"] = float(relative_absolute_error(predicted[defined], seen[defined]))
    for name, reference in (("pearson_shift", scale.control), ("pearson_shift_centered", scale.centroid)):
        scores[name] = float(pearson_shift(answers.mean, observed[0], reference))
    return scores


def ceiling_scores(rng: np.random.Generator, cells: Cells, scale: Scale) -> dict[str, float]:
    """Scores of one half of the cells as a prediction of the other, averaged over both directions."""
    if cells.counts[0].sum() < FEWEST_FOR_CEILINGS:
        return dict.fromkeys(WITH_CEILING, np.nan)
    half = split_counts(rng, cells.counts)
    other = cells.counts - half
    there, back = (
        average_scores(_answers_of_cells(one, scale), cells._replace(counts=two), scale)
        for one, two in ((half, other), (other, half))
    )
    return {name: (there[name] + back[name]) / 2 for name in WITH_CEILING}


def _answers_of_cells(counts: NDArray[np.integer], scale: Scale) -> Answers:
    """Use cells as a prediction; for the log score, add one cell spread as the pooled histogram."""
    n_cells = counts.sum(axis=-1, keepdims=True)
    share = counts / n_cells
    moments = np.stack(histogram_moments(share, scale.centers))
    return Answers(moments[0], moments, (counts + scale.pooled) / (n_cells + 1), share, share)


def _distances(
    answers: Answers, counts: NDArray[np.integer], width: NDArray[np.float64]
) -> dict[str, NDArray[np.floating]]:
    assert answers.log is not None and answers.cramer is not None and answers.wasserstein is not None
    return {
        "nll": negative_log_likelihood(answers.log, counts),
        "nll_density": negative_log_density(answers.log, counts, width),
        "cramer": cramer(answers.cramer, counts, width),
        "crps": crps(answers.cramer, counts, width),
        "wasserstein": wasserstein(answers.wasserstein, counts, width),
        "wasserstein_floor": wasserstein_floor(answers.wasserstein, counts.sum(axis=-1), width),
    }


def _observed_moments(counts: NDArray[np.integer], centers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moments (moment, gene) of cells; skewness and kurtosis are NaN where all cells are in one bin."""
    moments = np.stack(histogram_moments(counts / counts.sum(axis=-1, keepdims=True), centers))
    # The skewness of symmetric cells is zero; a rounding error must not become the unit of a relative error.
    moments[2:][np.abs(moments[2:]) < _ROUNDING] = 0
    moments[2:, (counts > 0).sum(axis=-1) == 1] = np.nan
    return moments


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else np.nan
