"""Scores by hand, against other libraries, and against their exact expectations."""

from itertools import product

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

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

HALF = np.array([0.5, 0.5])
DISTANCES = {
    "nll": lambda p, n, w: negative_log_likelihood(p, n),
    "nll_density": negative_log_density,
    "crps": crps,
    "cramer": cramer,
}


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


def test_nll_density_against_scipy():
    probs, counts, width = random_histograms(seed=2)
    ours = negative_log_density(probs, counts, width)
    for p, g in product(range(3), range(5)):
        edges = width[g] * np.arange(9)
        cells = np.repeat(edges[:-1] + width[g] / 3, counts[p, g])
        density = stats.rv_histogram((probs[p, g], edges), density=False)
        np.testing.assert_allclose(ours[p, g], -density.logpdf(cells).mean(), rtol=1e-10)


def test_a_constant_gene_has_no_density():
    probs, counts, width = random_histograms()
    constant = np.where(np.arange(5) == 3, 0, width)
    values = negative_log_density(probs, counts, constant)
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(constant == 0, (3, 5)))


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


def test_cramer_is_the_energy_distance_of_the_cells():
    """As a U-statistic over cells: E|X − x| − E|X − X'| / 2 − mean over pairs of |x − x'| / 2."""
    probs, counts, width = random_histograms(seed=3, n_cells=12)
    ours = cramer(probs, counts, width)
    for p, g in product(range(3), range(5)):
        centers, weight = width[g] * np.arange(8.0), probs[p, g]
        cells = np.repeat(centers, counts[p, g])
        cross = (np.abs(cells[:, None] - centers) @ weight).mean()
        within = weight @ np.abs(centers[:, None] - centers) @ weight
        pairs = np.abs(cells[:, None] - cells).sum() / (12 * 11)
        np.testing.assert_allclose(ours[p, g], cross - within / 2 - pairs / 2, rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("shifted", [False, True])
def test_cramer_between_two_samples_is_free_of_bias(shifted):
    rng = np.random.default_rng(1)
    one = rng.dirichlet(np.ones(15))
    other = np.roll(one, 1) if shifted else one
    n_controls, n_cells = 30, 50
    shares, counts = rng.multinomial(n_controls, one, 20_000) / n_controls, rng.multinomial(n_cells, other, 20_000)
    values = cramer(shares, counts, 0.3, n_probs=n_controls)
    exact = 0.3 * ((one.cumsum() - other.cumsum()) ** 2).sum()
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values))
    bias = 0.3 * (one.cumsum() * (1 - one.cumsum())).sum() / n_controls
    np.testing.assert_allclose((cramer(shares, counts, 0.3) - values).mean(), bias, rtol=0.02)
    assert np.isnan(cramer(shares, counts, 0.3, n_probs=1)).all()


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


def test_wasserstein_floor_against_the_binomial():
    """Each F_n is a binomial share; its mean absolute deviation is known."""
    truth = np.array([0.3, 0.05, 0.25, 0.2, 0.2])
    for n_cells in (20, 500):
        shares = np.arange(n_cells + 1) / n_cells
        chances = [stats.binom(n_cells, f).pmf(np.arange(n_cells + 1)) @ abs(shares - f) for f in truth.cumsum()[:-1]]
        np.testing.assert_allclose(wasserstein_floor(truth, n_cells, 1.0), sum(chances), rtol=0.5 / n_cells**0.5)


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


def test_what_is_not_defined_is_nan():
    one, none = np.array([0, 1]), np.array([0, 0])
    assert np.isnan(cramer(HALF, one, 1.0))
    assert crps(HALF, one, 1.0) == 0.25
    for score in (*DISTANCES.values(), wasserstein):
        assert np.isnan(score(HALF, none, 1.0))
    assert np.isnan(relative_absolute_error(np.array([1.0, 2.0]), np.zeros(2)))
    assert np.isnan(relative_absolute_error(np.array([]), np.array([])))
    values = np.array([1.0, 2.0, 4.0])
    assert np.isnan(pearson_shift(values, values + 1, np.full(3, np.nan)))


def test_single_precision_loses_no_digits():
    """Sums over many bins and genes are in double precision: what is given is taken as exact."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(200, 0.1), size=(2, 5)).astype(np.float32)
    counts, width = rng.multinomial(50, np.full(200, 1 / 200), size=(2, 5)), rng.uniform(0.1, 2, 5)
    exact = probs.astype(np.float64)
    for score in (*DISTANCES.values(), wasserstein):
        np.testing.assert_array_equal(score(probs, counts.astype(np.float32), width), score(exact, counts, width))
    np.testing.assert_array_equal(wasserstein_floor(probs, 50, width), wasserstein_floor(exact, 50, width))
    # Small shifts of large values, which single precision would cancel.
    values = rng.uniform(1000, 1001, (3, 4000)).astype(np.float32)
    as_double = values.astype(np.float64)
    expected = stats.pearsonr(as_double[0] - as_double[2], as_double[1] - as_double[2])[0]
    np.testing.assert_allclose(pearson_shift(*values), expected, rtol=1e-9)
    expected = abs(as_double[0] - as_double[1]).sum() / as_double[1].sum()
    np.testing.assert_allclose(relative_absolute_error(*values[:2]), expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------------------------- halves


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 60))
def test_halves_add_up(seed, n_bins, n_cells):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_cells, rng.dirichlet(np.full(n_bins, 0.3), size=(2, 3)))
    half = split_counts(rng, counts)
    assert half.shape == counts.shape
    assert (half >= 0).all() and (half <= counts).all()
    np.testing.assert_array_equal(half.sum(axis=-1), n_cells // 2)


def test_halves_are_those_of_numpy():
    """Means and covariances over bins, of this and of numpy's sampler, which takes one set of counts at a time."""
    counts, n_draws = np.array([3, 0, 10, 1, 7]), 40_000
    ours = split_counts(np.random.default_rng(0), np.broadcast_to(counts, (n_draws, 5)))
    theirs = np.random.default_rng(1).multivariate_hypergeometric(counts, 10, size=n_draws)
    exact = stats.multivariate_hypergeom(counts, 10)
    error = 4 * np.sqrt(np.diag(exact.cov()) / n_draws)
    assert (abs(ours.mean(axis=0) - exact.mean()) <= error).all()
    for draws in (ours, theirs):
        np.testing.assert_allclose(np.cov(draws.T), exact.cov(), atol=0.05)


def test_each_half_is_as_likely_as_it_should_be():
    counts, n_draws = np.array([2, 3, 2]), 20_000
    halves = split_counts(np.random.default_rng(2), np.broadcast_to(counts, (n_draws, 3)))
    outcomes, seen = np.unique(halves, axis=0, return_counts=True)
    expected = n_draws * stats.multivariate_hypergeom(counts, 3).pmf(outcomes)
    np.testing.assert_allclose(expected.sum(), n_draws)  # every outcome occurred
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_scores_have_a_value_a_gene():
    probs, counts, width = random_histograms()
    for score in DISTANCES.values():
        values = score(probs, counts, width)
        assert values.shape == (3, 5)
        np.testing.assert_allclose(values[1, 2], score(probs[1, 2], counts[1, 2], width[2]), rtol=1e-12)
    assert wasserstein(probs, counts, width).shape == (3, 5)
    assert wasserstein_floor(probs, np.array([[10], [20], [30]]), width).shape == (3, 5)
