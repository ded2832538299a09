"""Point predictions against closed forms of what cells drawn from a histogram show."""

import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.predictions.histogram_prediction import HistogramPrediction
from distpert.predictions.point import MeanPrediction, PointPrediction

LABELS = ("A", "C+D", "E")


def random_probs(shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.8), size=shape[:-1])


@pytest.fixture
def by_day(tiny):
    return PointPrediction(tiny.histograms, LABELS, ("d1", "d3"), random_probs((3, 2, 4, 6)), seed=3)


@pytest.fixture
def without(tiny_all):
    return PointPrediction(tiny_all.histograms, LABELS, ("all",), random_probs((3, 1, 4, 6)))


@pytest.fixture
def mean_only(tiny_all):
    return MeanPrediction(tiny_all.histograms, LABELS, ("all",), np.arange(12.0).reshape(3, 1, 4))


# ------------------------------------------------------------------------------------------------------------- layout


def test_layout_with_contexts(by_day, tiny):
    histogram, moments, summary = by_day.histogram(), by_day.moments(), by_day.summary()
    assert histogram.dims == ("perturbation", "context", "gene", "bin")
    np.testing.assert_array_equal(histogram, by_day.probs.astype(np.float32))
    np.testing.assert_array_equal(histogram["bin_left"], tiny.histograms.dataset["bin_left"])
    np.testing.assert_array_equal(histogram["bin_right"], tiny.histograms.dataset["bin_right"])
    assert list(moments) == list(summary) == list(MOMENTS)
    for name in MOMENTS:
        assert moments[name].dims == ("draw", "perturbation", "context", "gene")
        assert moments[name].dtype == np.float32
        assert summary[name].dims == ("statistic", "perturbation", "context", "gene")
    assert moments.sizes["draw"] == 1
    assert summary["statistic"].to_numpy().tolist() == ["median", "lower", "upper"]
    for product in (histogram, moments, summary):
        assert product["perturbation"].to_numpy().tolist() == list(LABELS)
        assert product["context"].to_numpy().tolist() == ["d1", "d3"]
        assert product["gene"].to_numpy().tolist() == list(tiny.histograms.genes)


def test_layout_without_contexts(without):
    assert without.histogram().dims == ("perturbation", "gene", "bin")
    assert replace(without, num_draws=5).moments(n_cells=3)["mean"].shape == (5, 3, 4)
    assert without.summary()["mean"].dims == ("statistic", "perturbation", "gene")
    assert "context" not in without.histogram().coords


def test_layout_is_that_of_the_model(small_fit):
    labels = ("GENE3", "GENE6")
    prediction = small_fit.predict(labels, num_draws=3, progress_bar=False)
    point = PointPrediction(small_fit.histograms, labels, ("all",), random_probs((2, 1, 5, 15)), num_draws=3)
    for left, right in (
        (point.histogram(), prediction.histogram()),
        (point.histogram_interval(0.7, n_cells=4), prediction.histogram_interval(0.7, n_cells=4)),
        (point.moments(n_cells=4), prediction.moments(n_cells=4)),
        (point.summary(0.7, n_cells=4), prediction.summary(0.7, n_cells=4)),
    ):
        assert left.sizes == right.sizes
        assert left.coords.to_dataset().identical(right.coords.to_dataset())
        assert left.attrs == right.attrs
    assert point.genes == prediction.genes
    assert point.training is prediction.training


def test_histogram_is_the_same_for_every_loss(by_day):
    assert by_day.histogram("log").identical(by_day.histogram("wasserstein"))
    with pytest.raises(ValueError, match=r"loss must be 'log' or 'wasserstein', not 'w1'"):
        by_day.histogram("w1")


def test_interval_of_bins(by_day):
    exact = by_day.histogram_interval()
    for statistic in ("median", "lower", "upper"):
        np.testing.assert_allclose(exact.sel(statistic=statistic), by_day.probs, rtol=1e-6)
    wide = by_day.histogram_interval(0.8, n_cells=40)
    normal = 2 * 1.2816 * np.sqrt(by_day.probs * (1 - by_day.probs) / 40)  # of the multinomial's margins
    width = wide.sel(statistic="upper") - wide.sel(statistic="lower")
    assert float(width.mean()) == pytest.approx(normal.mean(), rel=0.1)


def test_repr(by_day, mean_only):
    assert repr(by_day) == (
        "PointPrediction: a histogram of 6 bins for each of 3 perturbations (2 in training) × 4 genes, day: d1, d3"
    )
    assert repr(mean_only) == "MeanPrediction: a mean for each of 3 perturbations (2 in training) × 4 genes"


# ------------------------------------------------------------------------------------------------------------ moments


def test_moments_of_the_histogram(by_day, tiny):
    exact = histogram_moments(by_day.probs, tiny.centers)
    answers = by_day.answers(np.ones((3, 2), int))
    means = [[answers(p, c).mean for c in range(2)] for p in range(3)]
    np.testing.assert_allclose(means, exact[0], rtol=1e-12)
    for name, value in zip(MOMENTS, exact, strict=True):
        np.testing.assert_allclose(by_day.moments()[name][0], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(by_day.summary(0.5)[name], np.broadcast_to(value, (3, *value.shape)), rtol=1e-5)


def test_replicates_have_the_moments_of_the_multinomial(by_day, tiny):
    """Of n cells: E[mean] = μ, Var[mean] = v/n, E[variance] = v (n−1)/n, E[third central sum] = m₃ (n−1)(n−2)/n²."""
    n, draws = np.array([[4, 9], [25, 60], [7, 12]]), 20_000
    replicates = replace(by_day, num_draws=draws).moments(n_cells=n)
    n = n[..., None]
    mean, variance, skewness, kurtosis = histogram_moments(by_day.probs, tiny.centers)
    shown = replicates["mean"].to_numpy().astype(float)
    standard_error = np.sqrt(variance / n / draws)
    assert (abs(shown.mean(axis=0) - mean) < 5 * standard_error).all()
    # The variance of a sample variance is below v² (k + 2) / draws, with k the sample mean's excess kurtosis, k / n.
    relative = np.sqrt((2 + abs(kurtosis) / n) / draws)
    np.testing.assert_allclose(shown.var(axis=0) / (variance / n), 1, atol=6 * relative.max())
    spread = replicates["variance"].to_numpy().astype(float)
    expected = variance * (n - 1) / n
    assert (abs(spread.mean(axis=0) - expected) < 5 * spread.std(axis=0) / np.sqrt(draws) + 1e-5).all()
    third = replicates["skewness"].to_numpy() * spread**1.5
    expected = skewness * variance**1.5 * (n - 1) * (n - 2) / n**2
    assert (abs(third.mean(axis=0) - expected) < 5 * third.std(axis=0) / np.sqrt(draws) + 1e-5).all()


def test_one_cell_is_a_point(without):
    moments = without.moments(n_cells=1)
    assert (moments["variance"] == 0).all()
    for gene, centers in enumerate(without.training.centers.to_numpy()):
        assert np.isin(moments["mean"][..., gene], centers.astype(np.float32)).all()


@pytest.mark.parametrize("n_cells", [None, 30])
def test_summary_has_the_quantiles_of_the_moments(by_day, n_cells):
    moments, summary = by_day.moments(n_cells=n_cells), by_day.summary(0.8, n_cells=n_cells)
    assert moments.sizes["draw"] == (200 if n_cells else 1)
    for name in MOMENTS:
        np.testing.assert_allclose(summary[name], np.quantile(moments[name], [0.5, 0.1, 0.9], axis=0), atol=1e-6)
    assert summary.attrs["ci_prob"] == 0.8
    with pytest.raises(ValueError, match=r"ci_prob must lie between 0 and 1, not 1"):
        by_day.summary(1)


def test_forms_of_n_cells(without):
    without = replace(without, num_draws=10)
    each = [without.moments(n_cells=n) for n in (5, 50, 7)]
    for given in ({"A": 5, "D+C": 50, "E": 7, "other": 0}, [5, 50, 7], np.array([[5], [50], [7]])):
        moments = without.moments(n_cells=given)
        for p in range(3):
            assert moments.isel(perturbation=p).identical(each[p].isel(perturbation=p))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_cells": 0}, ValueError, r"n_cells must be at least 1, but the smallest is 0"),
        ({"n_cells": 1.5}, ValueError, r"n_cells must be whole numbers"),
        ({"n_cells": [1, 2]}, ValueError, r"n_cells has shape \(2,\), but must be"),
        ({"n_cells": {"A": 5}}, KeyError, r"n_cells has no number for C\+D, E"),
    ],
)
def test_bad_numbers(by_day, options, error, message):
    with pytest.raises(error, match=message):
        by_day.moments(**options)


# ------------------------------------------------------------------------------------------- what replicates depend on


def test_company_makes_no_difference(by_day):
    together = by_day.moments(n_cells=9)
    for p, label in enumerate(LABELS):
        for c, context in enumerate(by_day.contexts):
            alone = PointPrediction(by_day.training, (label,), (context,), by_day.probs[p : p + 1, c : c + 1], seed=3)
            for one in (alone, by_day.select(label, context)):
                assert one.moments(n_cells=9).identical(together.sel(perturbation=[label], context=[context]))


def test_seed(by_day):
    assert by_day.moments(n_cells=9).identical(by_day.moments(n_cells=9))
    other = PointPrediction(by_day.training, LABELS, by_day.contexts, by_day.probs, seed=4)
    assert not other.moments(n_cells=9).identical(by_day.moments(n_cells=9))
    assert other.moments().identical(by_day.moments())


def test_replicates_never_stand_all_at_once(tiny_all, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    labels = tuple(f"P{i}" for i in range(60))
    prediction = PointPrediction(tiny_all.histograms, labels, ("all",), random_probs((60, 1, 4, 6)))
    prediction.summary(n_cells=9)  # imports and caches
    tracemalloc.start()
    try:
        prediction.summary(n_cells=9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * 60 * 4 * 6 * 8 / 2


# ---------------------------------------------------------------------------------------------------------- mean-only


def test_means_alone(mean_only):
    assert list(mean_only.moments()) == list(mean_only.summary()) == ["mean"]
    np.testing.assert_array_equal(mean_only.moments()["mean"], np.arange(12.0).reshape(1, 3, 4))
    np.testing.assert_array_equal(mean_only.summary()["mean"][1], np.arange(12.0).reshape(3, 4))
    assert not isinstance(mean_only, HistogramPrediction)
    for ask in (mean_only.moments, mean_only.summary):
        with pytest.raises(ValueError, match=r"this method predicts means alone, .*: leave n_cells out"):
            ask(n_cells=5)
    one = mean_only.select("D+C")
    assert one.moments().identical(mean_only.moments().sel(perturbation=["C+D"]))


# ---------------------------------------------------------------------------------------------------------- bad input


def test_wrong_shapes(tiny_all):
    with pytest.raises(ValueError, match=r"means must be \(3, 1, 4\), .*not \(3, 4\)"):
        MeanPrediction(tiny_all.histograms, LABELS, ("all",), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"probs must be \(3, 1, 4, 6\), .*not \(3, 1, 4, 1\)"):
        PointPrediction(tiny_all.histograms, LABELS, ("all",), np.ones((3, 1, 4, 1)))


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 0.9])
def test_no_probabilities(tiny_all, wrong):
    probs = random_probs((3, 1, 4, 6))
    probs[1, 0, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"probs must be at least 0 and sum to one over bins"):
        PointPrediction(tiny_all.histograms, LABELS, ("all",), probs)


def test_means_must_be_finite(tiny_all):
    with pytest.raises(ValueError, match=r"means are not all finite"):
        MeanPrediction(tiny_all.histograms, LABELS, ("all",), np.full((3, 1, 4), np.inf))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_draws": 0}, r"num_draws must be at least 1, not 0"),
        ({"num_draws": 2.5}, r"num_draws must be a whole number of at least 1, not 2.5"),
        ({"seed": -1}, r"seed must be a whole number of at least 0 .*, not -1"),
    ],
)
def test_bad_options(tiny_all, options, message):
    with pytest.raises(ValueError, match=message):
        PointPrediction(tiny_all.histograms, LABELS, ("all",), random_probs((3, 1, 4, 6)), **options)
    if "seed" in options:
        with pytest.raises(ValueError, match=message):
            MeanPrediction(tiny_all.histograms, LABELS, ("all",), np.zeros((3, 1, 4)), **options)
