"""Draws of histograms against closed forms."""

import numpy as np
import pytest
from scipy.stats import multinomial

from distpert.predictions.draws import expected_histograms, sample_histograms, sample_replicates, softmax

PROBS = np.array([[0.5, 0.3, 0.15, 0.05], [0.01, 0.09, 0.2, 0.7]], np.float32)
CONCENTRATION = np.array([20.0, 200.0], np.float32)
COUNTS = np.array([[0, 3, 40, 1], [500, 0, 0, 2]], np.int32)
N = 20_000


def rng(seed=0):
    return np.random.default_rng(seed)


def repeated(n=N):
    return np.repeat(PROBS[None], n, axis=0)


@pytest.mark.parametrize("counts", [None, COUNTS])
def test_mean_and_variance_of_the_dirichlet(counts):
    drawn = sample_histograms(rng(), repeated(), CONCENTRATION, counts)
    assert drawn.dtype == np.float32
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=-1), 1, atol=1e-5)
    alpha = CONCENTRATION[:, None].astype(float) * PROBS + (0 if counts is None else counts)
    total = alpha.sum(axis=-1, keepdims=True)
    mean = alpha / total
    variance = mean * (1 - mean) / (total + 1)
    assert (abs(drawn.mean(axis=0) - mean) < 6 * np.sqrt(variance / N)).all()
    np.testing.assert_allclose(drawn.var(axis=0, dtype=float), variance, rtol=0.15)


def test_covariance_of_the_dirichlet():
    drawn = sample_histograms(rng(), repeated(), CONCENTRATION)[:, 0].astype(float)
    p = PROBS[0].astype(float)
    expected = (np.diag(p) - np.outer(p, p)) / (CONCENTRATION[0] + 1)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=6 * expected.max() / np.sqrt(N))


@pytest.mark.parametrize("concentration", [1e-30, 1e-8, 1e-3, 0.1, 1e8])
def test_extreme_concentrations_give_distributions(concentration):
    drawn = sample_histograms(rng(), repeated(500), np.full(2, concentration, np.float32))
    assert np.isfinite(drawn).all()
    assert (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=-1), 1, atol=1e-5)
    if concentration < 0.01:  # a Dirichlet's limit is one bin
        assert np.median(drawn.max(axis=-1)) > 0.999
    if concentration > 1e6:
        np.testing.assert_allclose(drawn, repeated(500), atol=1e-3)


def test_bins_without_probability_stay_empty():
    probs = np.array([[[1.0, 0.0, 0.0]]], np.float32).repeat(100, axis=0)
    drawn = sample_histograms(rng(), probs, np.ones(1, np.float32))
    np.testing.assert_allclose(drawn, probs, atol=1e-6)


def test_arguments_are_left_as_they_are():
    probs, counts, concentration = repeated(5), COUNTS.copy(), CONCENTRATION.copy()
    sample_histograms(rng(), probs, concentration, counts)
    expected_histograms(probs, concentration, counts)
    sample_replicates(rng(), probs, 10)
    np.testing.assert_array_equal(probs, repeated(5))
    np.testing.assert_array_equal(counts, COUNTS)
    np.testing.assert_array_equal(concentration, CONCENTRATION)


def test_expected_histograms():
    np.testing.assert_array_equal(expected_histograms(repeated(3), CONCENTRATION), repeated(3))
    expected = expected_histograms(repeated(3), CONCENTRATION, COUNTS)
    assert expected.dtype == np.float32
    for gene in range(2):
        alpha = CONCENTRATION[gene] * PROBS[gene].astype(float) + COUNTS[gene]
        np.testing.assert_allclose(expected[:, gene], np.tile(alpha / alpha.sum(), (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("n_cells", [1, 7, 1000])
def test_replicates(n_cells):
    drawn = sample_replicates(rng(), repeated(), n_cells)
    assert drawn.dtype == np.float32
    cells = drawn * n_cells
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-3)
    np.testing.assert_array_equal(np.rint(cells).sum(axis=-1), n_cells)
    for gene, p in enumerate(PROBS.astype(float)):
        exact = multinomial(n_cells, p / p.sum()).cov() / n_cells**2
        assert (abs(drawn[:, gene].mean(axis=0) - p) < 6 * np.sqrt(np.diag(exact) / N)).all()
        np.testing.assert_allclose(drawn[:, gene].var(axis=0, dtype=float), np.diag(exact), rtol=0.1)


def test_softmax():
    logits = np.array([[0.0, 1.0, -2.0], [1000.0, 1000.0, -1000.0]])
    given = logits.copy()
    exact = np.exp(logits[0]) / np.exp(logits[0]).sum()
    result = softmax(given)
    np.testing.assert_allclose(result, [exact, [0.5, 0.5, 0]])
    assert result is given  # in place
