"""Regressions on embeddings against their formulas, and on screens whose shifts follow the embedding."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import distpert
from distpert.baselines import GaussianProcess, MeanPrediction, PooledMean, Ridge
from distpert.baselines.regression import PENALTIES, _choose_kernel, _leading_components
from distpert.embeddings.sources import as_embeddings

DAYS = ("d1", "d2", "d3")
TRAINING = ("A", "A+B", "B", "C", "C+D")
LABELS = ["A", "F", "E+B", "D"]


def brute_problem(tiny, days, labels=TRAINING):
    """Means of controls, average shifts (day, gene), and shifts less these, averaged over days (label, gene)."""
    control = np.array([(tiny.shares("control", day) * tiny.centers).sum(axis=-1) for day in days])
    shifts = np.array([[(tiny.shift(label, day) * tiny.centers).sum(axis=-1) for day in days] for label in labels])
    return control, shifts.mean(axis=0), (shifts - shifts.mean(axis=0)).mean(axis=1)


def brute_ridge(vectors, shifts, penalty):
    return np.linalg.solve(vectors.T @ vectors + penalty * np.eye(vectors.shape[1]), vectors.T @ shifts)


@pytest.mark.parametrize("with_days", [True, False])
def test_ridge(tiny, tiny_all, with_days):
    screen, days = (tiny, DAYS) if with_days else (tiny_all, ("all",))
    control, average, shifts = brute_problem(screen, days)

    def unit(labels):
        raw = screen.embeddings.of(labels).astype(float)
        return raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))

    center = unit(TRAINING).mean(axis=0)
    vectors = unit(TRAINING) - center

    def left_out_error(penalty):
        errors = []
        for i in range(len(TRAINING)):
            kept = np.arange(len(TRAINING)) != i
            center, average = vectors[kept].mean(axis=0), shifts[kept].mean(axis=0)
            slope = brute_ridge(vectors[kept] - center, shifts[kept] - average, penalty)
            errors.append(shifts[i] - average - (vectors[i] - center) @ slope)
        return np.mean(np.square(errors))

    weights = brute_ridge(vectors, shifts, min(PENALTIES, key=left_out_error))
    prediction = Ridge().fit(screen.histograms, screen.embeddings).predict(LABELS)
    asked = unit(["A", "F", "B+E", "D"]) - center
    expected = (control + average)[None] + (asked @ weights)[:, None]
    np.testing.assert_allclose(prediction.means, expected, rtol=1e-8)
    assert isinstance(prediction, MeanPrediction)


def test_ridge_of_one_penalty(tiny_all):
    control, average, _ = brute_problem(tiny_all, ("all",))
    flat = Ridge(penalties=(1e12,)).fit(tiny_all.histograms, tiny_all.embeddings).predict(LABELS)
    np.testing.assert_allclose(flat.means, np.broadcast_to(control + average, (4, 1, 4)), rtol=1e-8)


@pytest.mark.parametrize("with_days", [True, False])
def test_gaussian_process(tiny, tiny_all, with_days):
    screen, days = (tiny, DAYS) if with_days else (tiny_all, ("all",))
    control, average, shifts = brute_problem(screen, days)
    vectors = screen.embeddings.of(TRAINING).astype(float)
    kernel = _choose_kernel(vectors, _leading_components(shifts, 20))
    variance, scale = kernel.k1.k1.constant_value, kernel.k1.k2.length_scale
    noise = kernel.k2.noise_level

    def covariance(left, right):
        return variance * np.exp(-0.5 * ((left[:, None] - right) ** 2).sum(axis=-1) / scale**2)

    asked = screen.embeddings.of(["A", "F", "B+E", "D"]).astype(float)
    smoother = covariance(asked, vectors) @ np.linalg.inv(covariance(vectors, vectors) + noise * np.eye(5))
    prediction = GaussianProcess().fit(screen.histograms, screen.embeddings).predict(LABELS)
    expected = (control + average)[None] + (smoother @ shifts)[:, None]
    np.testing.assert_allclose(prediction.means, expected, rtol=1e-6)
    assert isinstance(prediction, MeanPrediction)


def test_kernel_has_the_greatest_likelihood():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 2))
    gaps = ((vectors[:, None] - vectors) ** 2).sum(axis=-1)

    def covariance(variance, scale, noise):
        return variance * np.exp(-0.5 * gaps / scale**2) + noise * np.eye(40)

    def log_likelihood(*parameters):
        return multivariate_normal(np.zeros(40), covariance(*parameters)).logpdf(components.T).sum()

    components = np.linalg.cholesky(covariance(0.8, 1.2, 0.2)) @ rng.normal(size=(40, 30))
    kernel = _choose_kernel(vectors, components)
    found = np.array([kernel.k1.k1.constant_value, kernel.k1.k2.length_scale, kernel.k2.noise_level])
    np.testing.assert_allclose(found, [0.8, 1.2, 0.2], rtol=0.25)
    best = log_likelihood(*found)
    for i in range(3):
        for factor in (0.95, 1.05):
            other = found.copy()
            other[i] *= factor
            assert log_likelihood(*other) < best


def test_leading_components():
    shifts = np.random.default_rng(0).normal(size=(8, 20)) * np.r_[5.0, 3.0, np.full(18, 0.1)]
    components = _leading_components(shifts, 2)
    assert components.shape == (8, 2)
    assert np.mean(components**2) == pytest.approx(1)
    # Inner products of perturbations are those of the shifts, but for the small components and the scale.
    gram, expected = components @ components.T, shifts @ shifts.T
    assert np.corrcoef(gram.ravel(), expected.ravel())[0, 1] > 0.999
    np.testing.assert_array_equal(_leading_components(np.zeros((3, 4)), 2), 0)


# ---------------------------------------------------------------------------------- shifts that follow the embedding


def screen_of(function, n_dims, seed=0):
    """Fifty perturbations whose means are a function of their embedding, the last fifteen held out."""
    rng = np.random.default_rng(seed)
    labels = [f"P{i}" for i in range(50)]
    embeddings = as_embeddings(dict(zip(labels, rng.normal(size=(50, n_dims)), strict=True)))
    means = 6 + function(embeddings.of(labels).astype(float), rng.normal(size=(n_dims, 8)))
    obs = np.repeat(["control", *labels], 60)
    center = np.repeat(np.concatenate([np.full((1, 8), 6.0), means]), 60, axis=0)
    adata = anndata.AnnData(
        np.abs(rng.normal(center, 0.7)).astype(np.float32),
        obs=pd.DataFrame({"perturbation": obs}, index=[f"cell{i}" for i in range(len(obs))]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(8)]),
    )
    return distpert.count_histograms(adata), embeddings, labels[35:], means[35:]


def errors(function, *baselines, n_dims=2):
    histograms, embeddings, held_out, truth = screen_of(function, n_dims)
    training = histograms.drop(held_out)
    predictions = [baseline.fit(training, embeddings).predict(held_out).means[:, 0] for baseline in baselines]
    return [np.mean((prediction - truth) ** 2) for prediction in predictions]


def test_linear_shifts_are_learned():
    pooled, ridge, process = errors(lambda e, w: 0.5 * e @ w, PooledMean(), Ridge(), GaussianProcess())
    assert ridge < 0.25 * pooled  # of vectors of length one the shifts are only nearly linear
    assert process < 0.2 * pooled


def test_smooth_shifts_are_learned_by_the_process():
    pooled, ridge, process = errors(lambda e, w: np.cos(2 * e @ w), PooledMean(), Ridge(), GaussianProcess())
    assert process < 0.6 * pooled
    assert process < 0.8 * ridge


@pytest.mark.parametrize("n_dims", [2, 60])  # fewer, and more, than there are perturbations
def test_embeddings_that_tell_nothing_do_little_harm(n_dims):
    noise = 0.5 * np.random.default_rng(3).normal(size=(50, 8))
    pooled, ridge, process = errors(lambda e, w: noise, PooledMean(), Ridge(), GaussianProcess(), n_dims=n_dims)
    assert ridge < 1.15 * pooled
    assert process < 1.3 * pooled


# ------------------------------------------------------------------------------------------------- lacking embeddings


@pytest.mark.parametrize("baseline", [Ridge(), GaussianProcess()], ids=lambda baseline: baseline.name)
def test_perturbation_without_an_embedding(tiny_all, baseline):
    """Counts in the average, not in the regression; and cannot be predicted."""
    vectors = {gene: tiny_all.embeddings.of([gene])[0] for gene in "ABCF"}
    embeddings = as_embeddings(vectors)
    with pytest.warns(UserWarning, match=r"no embedding for C\+D: left out of the regression, but counted"):
        fitted = baseline.fit(tiny_all.histograms, embeddings)
    with pytest.raises(KeyError, match=r"no embedding for 1 gene: 'D'"):
        fitted.predict("C+D")
    whole = brute_problem(tiny_all, ("all",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shifted = baseline.fit(tiny_all.histograms.drop(["C+D"]), embeddings).predict(["A", "F"])
    part = brute_problem(tiny_all, ("all",), TRAINING[:4])
    difference = fitted.predict(["A", "F"]).means - shifted.means
    assert abs(difference).max() > 0
    if baseline.name == "ridge":  # its intercept is the average of all; its slope does not see a constant
        np.testing.assert_allclose(difference[0, 0], (whole[1] - part[1])[0], rtol=1e-6)


@pytest.mark.parametrize("baseline", [Ridge(), GaussianProcess()], ids=lambda baseline: baseline.name)
def test_too_few(tiny_all, baseline):
    message = r"2 of 5 training perturbations have an embedding; at least 3 are needed. Genes without one: B, D\."
    embeddings = as_embeddings({gene: tiny_all.embeddings.of([gene])[0] for gene in "ACF"})
    with pytest.raises(ValueError, match=message):
        baseline.fit(tiny_all.histograms, embeddings)


def test_same_embedding_for_all(tiny_all):
    embeddings = as_embeddings({"A": [1.0, 2.0], "B": [1.0, 2.0], "C": [1.0, 2.0], "E": [0.0, 1.0]})
    with pytest.raises(ValueError, match=r"all training perturbations have the same embedding"):
        GaussianProcess().fit(tiny_all.histograms.select(["A", "B", "C"]), embeddings)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"n_components must be at least 1, not 0"):
        GaussianProcess(n_components=0)
    for penalties in ((), (1.0, 0.0), (float("nan"),)):
        with pytest.raises(ValueError, match=r"penalties must be one or more numbers above 0"):
            Ridge(penalties=penalties)
