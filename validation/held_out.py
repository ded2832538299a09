"""Scores and coverage of a prediction on held-out cells: what the scripts in this folder share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from distpert import Histograms, Prediction
from distpert.moments import MOMENTS, histogram_moments
from distpert.scores import (
    cramer,
    negative_log_likelihood,
    pearson_shift,
    relative_absolute_error,
    wasserstein,
)

LEVELS = (0.5, 0.8, 0.9, 0.95)


def split(perturbations: list[str], n_folds: int, seed: int = 0) -> list[list[str]]:
    """Folds of perturbations, at random."""
    order = np.random.default_rng(seed).permutation(sorted(perturbations))
    return [fold.tolist() for fold in np.array_split(order, n_folds)]


def observed_counts(held_out: Histograms, perturbations: tuple[str, ...], contexts: tuple[str, ...]) -> np.ndarray:
    """Counts (perturbation, context, gene, bin); zero where a perturbation has no cells in a context."""
    counts = np.zeros((len(perturbations), len(contexts), *held_out.counts.shape[1:]))
    labels = held_out.dataset["perturbation"].to_numpy()
    for row, (label, context) in enumerate(zip(labels, held_out.dataset["context"].to_numpy(), strict=True)):
        if label in perturbations:
            counts[perturbations.index(label), contexts.index(context)] = held_out.counts[row]
    return counts


def score_table(
    counts: np.ndarray,
    width: np.ndarray,
    centers: np.ndarray,
    control_mean: np.ndarray,
    *,
    mean_histogram: np.ndarray,
    median_histogram: np.ndarray | None = None,
    moments: list[np.ndarray] | None = None,
) -> pd.DataFrame:
    """One row a perturbation and context that has cells; averages over genes of the scores of DESIGN's table.

    Histograms and counts are (perturbation, context, gene, bin), moments and ``control_mean`` (…, gene). A method that
    has one histogram for all losses gives that alone.
    """
    seen = counts.sum(axis=(-1, -2)) > 0
    counts, mean_histogram = counts[seen], mean_histogram[seen]
    median_histogram = mean_histogram if median_histogram is None else median_histogram[seen]
    predicted = histogram_moments(mean_histogram, centers) if moments is None else [m[seen] for m in moments]
    observed = histogram_moments(counts / counts.sum(axis=-1, keepdims=True), centers)
    reference = np.broadcast_to(control_mean, (*seen.shape, control_mean.shape[-1]))[seen]
    table = {
        "nll": negative_log_likelihood(mean_histogram, counts).mean(axis=-1),
        "cramer": cramer(mean_histogram, counts, width).mean(axis=-1),
        "wasserstein": wasserstein(median_histogram, counts, width).mean(axis=-1),
    }
    for name, left, right in zip(MOMENTS, predicted, observed, strict=True):
        table[f"rmae_{name}"] = relative_absolute_error(left, right)
    table["pearson_shift"] = pearson_shift(predicted[0], observed[0], reference)
    return pd.DataFrame(table)


def evaluate(prediction: Prediction, held_out: Histograms) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by held-out group, and coverage (level × moment) of the central predictive intervals."""
    fit = prediction.fit
    counts = observed_counts(held_out, prediction.perturbations, prediction.contexts)
    lead = counts.shape[:2]

    def stacked(array) -> np.ndarray:
        return (
            array.to_numpy().reshape(*lead, *array.shape[-len(array.shape) + len(lead) :])
            if fit.histograms.context_key
            else array.to_numpy()[:, None]
        )

    summary = prediction.summary()
    centers, width = held_out.centers.to_numpy(), held_out.widths.to_numpy()
    controls = fit.histograms.select([]).counts.to_numpy()[[fit.contexts.index(name) for name in prediction.contexts]]
    control_mean = histogram_moments(controls / controls.sum(axis=-1, keepdims=True), centers)[0]
    scores = score_table(
        counts,
        width,
        centers,
        control_mean,
        mean_histogram=stacked(prediction.histogram("log")).astype(float),
        median_histogram=stacked(prediction.histogram("wasserstein")).astype(float),
        moments=[stacked(summary[name].sel(statistic="median")) for name in MOMENTS],
    )
    return scores, coverage(prediction, counts, centers)


def coverage(prediction: Prediction, counts: np.ndarray, centers: np.ndarray) -> pd.DataFrame:
    """Share of (group, gene) whose observed moment lies in the central interval; ties count for half on each side."""
    n_cells = counts.sum(axis=(-1, -2)) / counts.shape[-2]
    inside: dict[str, list[np.ndarray]] = {name: [] for name in MOMENTS}
    for c in range(counts.shape[1]):
        present = [i for i in range(len(counts)) if n_cells[i, c] > 0]
        if not present:
            continue
        labels = [prediction.perturbations[i] for i in present]
        part = prediction.fit.predict(
            labels,
            context=prediction.contexts[c] if prediction.fit.histograms.context_key else None,
            num_draws=prediction.num_draws,
            seed=prediction.seed,
            progress_bar=False,
        )
        replicates = part.moments(n_cells={label: int(n_cells[i, c]) for label, i in zip(labels, present, strict=True)})
        observed = histogram_moments(counts[present, c] / n_cells[present, c][:, None, None], centers)
        for name, value in zip(MOMENTS, observed, strict=True):
            draws = replicates[name].to_numpy().reshape(prediction.num_draws, *value.shape)
            value = value.astype(np.float32)
            rank = (draws < value).mean(axis=0) + 0.5 * (draws == value).mean(axis=0)
            inside[name].append(np.abs(rank - 0.5)[..., None] <= np.array(LEVELS) / 2)
    return pd.DataFrame(
        {name: np.concatenate(parts).mean(axis=(0, 1)) for name, parts in inside.items()},
        index=pd.Index(LEVELS, name="level"),
    )


def baseline_scores(
    training: Histograms, held_out: Histograms, perturbations: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    """Scores of the control histogram and of the histogram pooled over perturbations, each within its context."""
    contexts = training.contexts
    counts = observed_counts(held_out, perturbations, contexts)
    labels, context = training.dataset["perturbation"].to_numpy(), training.dataset["context"].to_numpy()
    trained = training.counts.to_numpy()
    centers, width = held_out.centers.to_numpy(), held_out.widths.to_numpy()

    def pooled(chosen: np.ndarray) -> np.ndarray:
        # One cell spread evenly: without it, an empty bin would cost an infinite score.
        total = trained[chosen].sum(axis=0) + 1 / trained.shape[-1]
        return total / total.sum(axis=-1, keepdims=True)

    control = np.stack([pooled((labels == training.control) & (context == name)) for name in contexts])
    other = np.stack([pooled((labels != training.control) & (context == name)) for name in contexts])
    control_mean = histogram_moments(control, centers)[0]
    return {
        name: score_table(counts, width, centers, control_mean, mean_histogram=np.broadcast_to(histogram, counts.shape))
        for name, histogram in (("control", control), ("pooled", other))
    }
