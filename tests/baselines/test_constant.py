"""The same for every perturbation, against shares counted from the cells."""

import numpy as np
import pytest

from distpert.baselines import ControlHistogram, MeanPrediction, PooledHistogram, PooledMean

LABELS = ["A", "F", "B+E"]


def smooth(shares, n_cells):
    return (n_cells * shares + 1 / 6) / (n_cells + 1)


def pooled_counts(tiny, context="all"):
    labels = [label for label in tiny.histograms.perturbations if len(tiny.cells(label, context))]
    return sum(tiny.counts(label, context) for label in labels)


def test_control(tiny, tiny_all):
    prediction = ControlHistogram().fit(tiny.histograms, tiny.embeddings).predict(LABELS)
    for c, (day, n_cells) in enumerate({"d1": 40, "d2": 25, "d3": 30}.items()):
        expected = smooth(tiny.shares("control", day), n_cells)
        np.testing.assert_allclose(prediction.probs[:, c], np.broadcast_to(expected, (3, 4, 6)), rtol=1e-12)
    prediction = ControlHistogram().fit(tiny_all.histograms, tiny_all.embeddings).predict("F")
    np.testing.assert_allclose(prediction.probs[0, 0], smooth(tiny_all.shares("control"), 95), rtol=1e-12)


def test_pooled(tiny, tiny_all):
    prediction = PooledHistogram().fit(tiny.histograms, tiny.embeddings).predict(LABELS, context=["d2", "d1"])
    for c, (day, n_cells) in enumerate({"d2": 49, "d1": 50}.items()):
        expected = smooth(pooled_counts(tiny, day) / n_cells, n_cells)
        np.testing.assert_allclose(prediction.probs[:, c], np.broadcast_to(expected, (3, 4, 6)), rtol=1e-12)
    prediction = PooledHistogram().fit(tiny_all.histograms, tiny_all.embeddings).predict("F")
    np.testing.assert_allclose(prediction.probs[0, 0], smooth(pooled_counts(tiny_all) / 99, 99), rtol=1e-12)


def test_pooled_mean(tiny, tiny_all):
    fitted = PooledMean().fit(tiny_all.histograms, tiny_all.embeddings).predict(LABELS)
    assert isinstance(fitted, MeanPrediction)
    expected = (pooled_counts(tiny_all) / 99 * tiny_all.centers).sum(axis=-1)
    np.testing.assert_allclose(fitted.means, np.broadcast_to(expected, (3, 1, 4)), rtol=1e-12)
    by_day = PooledMean().fit(tiny.histograms, tiny.embeddings).predict(LABELS, context="d2")
    expected = (pooled_counts(tiny, "d2") / 49 * tiny.centers).sum(axis=-1)
    np.testing.assert_allclose(by_day.means, np.broadcast_to(expected, (3, 1, 4)), rtol=1e-12)


def test_day_of_controls_alone(tiny):
    """Its controls and the mean shift of the other days."""
    shifts = [pooled_counts(tiny, day) / n - tiny.shares("control", day) for day, n in (("d1", 50), ("d2", 49))]
    moved = np.clip(tiny.shares("control", "d3") + np.mean(shifts, axis=0), 0, None)
    moved /= moved.sum(axis=-1, keepdims=True)
    histogram = PooledHistogram().fit(tiny.histograms, tiny.embeddings).predict("F", context="d3")
    np.testing.assert_allclose(histogram.probs[0, 0], smooth(moved, 30), rtol=1e-12)
    mean = PooledMean().fit(tiny.histograms, tiny.embeddings).predict("F", context="d3")
    np.testing.assert_allclose(mean.means[0, 0], (moved * tiny.centers).sum(axis=-1), rtol=1e-12)


@pytest.mark.parametrize("baseline", [PooledHistogram(), PooledMean()])
def test_nothing_to_pool(tiny, baseline):
    with pytest.raises(ValueError, match=r"the training has 0 perturbations; at least 1 are needed"):
        baseline.fit(tiny.histograms.select([]), tiny.embeddings)


def test_controls_are_enough_for_the_control_histogram(tiny):
    prediction = ControlHistogram().fit(tiny.histograms.select([]), tiny.embeddings).predict(LABELS)
    whole = ControlHistogram().fit(tiny.histograms, tiny.embeddings).predict(LABELS)
    np.testing.assert_array_equal(prediction.probs, whole.probs)
