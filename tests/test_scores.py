"""Scores by hand, against other libraries, and against their exact expectations."""

from itertools import product

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

from distpert.scores import (
    cramer,
    crps,
    negative_log_likelihood,
    pearson_shift,
    relative_absolute_error,
    wasserstein,
    wasserstein_floor,
)

HALF = np.array([0.5, 0.5])
DISTANCES = {"nll": lambda p, n, w: negative_log_likelihood(p, n), "crps": crps, "cramer": cramer}


def random_histograms(seed=0, n_cells=60):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(8), size=(3, 5))
    counts = rng.multinomial(n_cells, rng.dirichlet(np.ones(8), size=(3, 5)))
    return probs, counts, rng.uniform(0.1, 2, 5)


def test_by_hand():
    counts = np.array([3, 1])  # F_n = 3/4, 1
    np.testing.assert_allclose(negative_log_likelihood(HALF, counts), np.log(2))
    np.testing.assert_allclose(
        negative_log_likelihood(np.array([0.8, 0.2]), counts), -(3 * np.log(0.8) + np.log(0.2)) / 4
    )
    np.testing.assert_allclose(wasserstein(HALF, counts, 2.0), 0.5)
    np.testing.assert_allclose(crps(HALF, counts, 2.0), 2 * (1 / 16 + 3 / 16))
    np.testing.assert_allclose(cramer(HALF, counts, 2.0), 2 * (1 / 16 - 3 / 16 / 3), atol=1e-15)
    np.testing.assert_allclose(wasserstein_floor(HALF, 8, 2.0), 2 * np.sqrt(2 / (8 * np.pi)) / 2)
    predicted, observed = np.array([1.0, 2.0, -1.0]), np.array([2.0, 2.0, -2.0])
    np.testing.assert_allclose(relative_absolute_error(predicted, observed), 2 / 6)


def test_three_bins_by_hand():
    probs, counts = np.array([0.2, 0.3, 0.5]), np.array([0, 2, 2])  # F = .2 .5 1, F_n = 0 .5 1
    np.testing.assert_allclose(wasserstein(probs, counts, 1.0), 0.2)
    np.testing.assert_allclose(crps(probs, counts, 1.0), 0.04 + 0.25)
    np.testing.assert_allclose(cramer(probs, counts, 1.0), 0.04 - 0.25 / 3)
    np.testing.assert_allclose(negative_log_likelihood(probs, counts), -0.5 * np.log(0.15))


def test_cells_in_a_bin_of_probability_zero():
    assert negative_log_likelihood(np.array([1.0, 0.0]), np.array([2, 1])) == np.inf
    assert negative_log_likelihood(np.array([1.0, 0.0]), np.array([2, 0])) == 0


def test_nll_is_the_mean_over_cells():
    probs, counts, _ = random_histograms()
    ours = negative_log_likelihood(probs, counts)
    for p, g in product(range(3), range(5)):
        cells = np.repeat(np.arange(8), counts[p, g])
        np.testing.assert_allclose(ours[p, g], -np.log(probs[p, g][cells]).mean(), rtol=1e-12)


def test_crps_against_scoringrules():
    probs, counts, width = random_histograms()
    ours = crps(probs, counts, width)
    for p, g in product(range(3), range(5)):
        centers = width[g] * np.arange(8.0)
        cells = np.repeat(centers, counts[p, g])
        members, weights = (np.broadcast_to(x, (len(cells), 8)) for x in (centers, probs[p, g]))
        expected = scoringrules.crps_ensemble(cells, members, ens_w=weights, backend="numpy").mean()
        np.testing.assert_allclose(ours[p, g], expected, rtol=1e-9)


def test_crps_is_the_mean_over_cells():
    probs, counts, width = random_histograms(seed=1)
    expected = np.zeros((3, 5))
    for p, g in product(range(3), range(5)):
        cells = np.repeat(np.arange(8), counts[p, g])
        step = cells[:, None] <= np.arange(8)
        expected[p, g] = width[g] * ((probs[p, g].cumsum() - step) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(crps(probs, counts, width), expected, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.floats(0.01, 10))
def test_wasserstein_against_scipy(seed, n_bins, width):
    rng = np.random.default_rng(seed)
    probs, counts = rng.dirichlet(np.ones(n_bins)), rng.multinomial(30, rng.dirichlet(np.ones(n_bins)))
    centers = 3 + width * np.arange(n_bins)
    expected = stats.wasserstein_distance(centers, centers, probs, counts)
    np.testing.assert_allclose(wasserstein(probs, counts, width), expected, rtol=1e-9, atol=1e-12)


def all_counts(n_cells, n_bins):
    return np.array([c for c in product(range(n_cells + 1), repeat=n_bins) if sum(c) == n_cells])


def expectation(score, probs, truth, n_cells=5, width=0.7):
    """Of a score over all samples of n cells from the truth: a finite sum."""
    counts = all_counts(n_cells, len(truth))
    coefficient = gammaln(n_cells + 1) - gammaln(counts + 1).sum(axis=1)
    chance = np.exp(coefficient) * np.prod(truth**counts, axis=1)
    np.testing.assert_allclose(chance.sum(), 1)
    return chance @ score(np.broadcast_to(probs, counts.shape), counts, width)


@pytest.mark.parametrize("n_cells", [2, 3, 7])
def test_cramer_is_unbiased_exactly(n_cells):
    truth = np.array([0.5, 0.05, 0.15, 0.3])
    assert abs(expectation(cramer, truth, truth, n_cells)) < 1e-14
    other = np.array([0.1, 0.2, 0.3, 0.4])
    distance = 0.7 * ((other.cumsum() - truth.cumsum()) ** 2).sum()
    np.testing.assert_allclose(expectation(cramer, other, truth, n_cells), distance, rtol=1e-10)


@pytest.mark.parametrize("n_cells", [20, 100, 1000])
def test_cramer_of_a_perfect_prediction_is_zero_on_average(n_cells):
    rng = np.random.default_rng(n_cells)
    truth = rng.dirichlet(np.ones(15))
    counts = rng.multinomial(n_cells, truth, size=4000)
    values = cramer(np.broadcast_to(truth, counts.shape), counts, 0.3)
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert (values < 0).any() and (values > 0).any()


@pytest.mark.parametrize("name", DISTANCES)
def test_propriety(name):
    score = DISTANCES[name]
    rng = np.random.default_rng(0)
    truth = np.array([0.4, 0.1, 0.2, 0.3])
    best = expectation(score, truth, truth)
    for other in rng.dirichlet(np.ones(4), size=30):
        assert expectation(score, other, truth) > best
    for direction in rng.normal(size=(10, 4)):  # and nearby, where a bias would show first
        step = 1e-3 * (direction - direction.mean())
        assert expectation(score, truth + step, truth) > best


def test_cramer_and_crps_rank_predictions_alike():
    probs, counts, width = random_histograms()
    gap = crps(probs, counts, width) - cramer(probs, counts, width)
    others = np.roll(probs, 1, axis=-1)
    np.testing.assert_allclose(crps(others, counts, width) - cramer(others, counts, width), gap, rtol=1e-9)


@pytest.mark.parametrize("n_cells", [100, 1000])
def test_wasserstein_floor_against_simulation(n_cells):
    rng = np.random.default_rng(0)
    truth = np.array([0.3, 0.2, 0.1, 0.1, 0.2, 0.1])
    counts = rng.multinomial(n_cells, truth, size=20_000)
    simulated = wasserstein(truth, counts, 0.4).mean()
    np.testing.assert_allclose(wasserstein_floor(truth, n_cells, 0.4), simulated, rtol=0.02)


def test_wasserstein_floor_of_a_point():
    # Rounding may carry a sum of probabilities past one.
    assert np.isfinite(wasserstein_floor(np.full((2, 49), 1 / 49, np.float32), 10, 1.0)).all()
    np.testing.assert_array_equal(wasserstein_floor(np.array([1.0, 0.0, 0.0]), 10, 1.0), 0)


def test_pearson_against_scipy():
    rng = np.random.default_rng(0)
    predicted, observed, reference = rng.normal(size=(4, 30)), rng.normal(size=(4, 30)), rng.normal(size=30)
    expected = [stats.pearsonr(p - reference, o - reference)[0] for p, o in zip(predicted, observed, strict=True)]
    np.testing.assert_allclose(pearson_shift(predicted, observed, reference), expected, rtol=1e-10)
    np.testing.assert_allclose(pearson_shift(observed, observed, reference), 1)
    np.testing.assert_allclose(pearson_shift(2 * reference - observed, observed, reference), -1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_pearson_of_a_shift_that_is_the_same_for_all_genes_is_zero(dtype, shift):
    rng = np.random.default_rng(0)
    reference, observed = rng.uniform(0, 3, 50).astype(dtype), rng.uniform(0, 3, (2, 50)).astype(dtype)
    predicted = np.broadcast_to(reference + dtype(shift), (2, 50))  # equal up to rounding alone
    np.testing.assert_array_equal(pearson_shift(predicted, observed, reference), 0)
    np.testing.assert_array_equal(pearson_shift(observed, predicted, reference), 0)


def test_scores_have_a_value_a_gene():
    probs, counts, width = random_histograms()
    for score in DISTANCES.values():
        values = score(probs, counts, width)
        assert values.shape == (3, 5)
        np.testing.assert_allclose(values[1, 2], score(probs[1, 2], counts[1, 2], width[2]), rtol=1e-12)
    assert wasserstein(probs, counts, width).shape == (3, 5)
    assert wasserstein_floor(probs, np.array([[10], [20], [30]]), width).shape == (3, 5)
