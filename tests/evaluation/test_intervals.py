"""Coverage, scores and probability integral transforms against other libraries, brute force and what is known."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distpert.evaluation.intervals import (
    cell_pit,
    central_intervals,
    covered,
    interval_score,
    pit_bounds,
    pit_masses,
)
from distpert.histograms.moments import histogram_moments, moments_of_cells
from distpert.predictions.draws import sample_replicates

LEVELS = (0.5, 0.8, 0.9)
EDGES = np.linspace(0, 1, 11)


def within_monte_carlo_error(shares, expected, n):
    """Four standard errors: a well-specified share fails once in 16,000 times, and seeds are fixed."""
    return np.abs(shares - expected) <= 4 * np.sqrt(np.multiply(expected, np.subtract(1, expected)) / n)


@pytest.mark.parametrize("n_draws", [19, 60])
def test_intervals_of_few_draws_hold_as_often_as_they_say(n_draws):
    rng = np.random.default_rng(0)
    draws, seen = rng.gumbel(size=(n_draws, 20_000)), rng.gumbel(size=20_000)
    lower, upper = central_intervals(draws, LEVELS)
    inside = ((lower <= seen) & (seen <= upper)).mean(axis=1)
    assert within_monte_carlo_error(inside, LEVELS, 20_000).all()
    # The transforms are those of the same intervals, to the rank in which an end lies.
    by_rank = covered(*pit_bounds(draws, seen), LEVELS).mean(axis=1)
    np.testing.assert_allclose(by_rank, inside, atol=1 / (n_draws + 1))
    narrow = central_intervals(0.8 * draws, LEVELS)
    too_few = ((narrow[0] <= seen) & (seen <= narrow[1])).mean(axis=1)
    assert not within_monte_carlo_error(too_few, LEVELS, 20_000).any()


def test_interval_score_is_that_of_scoringrules():
    rng = np.random.default_rng(1)
    seen = rng.normal(size=(4, 50))
    lower, upper = central_intervals(rng.normal(size=(30, 4, 50)), LEVELS)
    ours = interval_score(lower, upper, seen, LEVELS)
    assert ours.shape == (3, 4, 50)
    for i, level in enumerate(LEVELS):
        np.testing.assert_allclose(ours[i], scoringrules.interval_score(seen, lower[i], upper[i], 1 - level))


def test_interval_score_of_a_normal_is_least_for_its_own_interval():
    seen = np.random.default_rng(2).normal(size=100_000)
    half = stats.norm.ppf(0.9)
    scores = [
        interval_score(np.array([-w]), np.array([w]), seen, [0.8]).mean() for w in half * np.array([0.8, 1, 1.25])
    ]
    assert scores[1] < min(scores[0], scores[2])


def test_transform_of_a_discrete_prediction_is_uniform():
    rng = np.random.default_rng(3)
    draws, seen = rng.poisson(0.7, (9, 40_000)), rng.poisson(0.7, 40_000)
    masses = pit_masses(*pit_bounds(draws, seen), EDGES)
    np.testing.assert_allclose(masses.sum(axis=-1), 1)
    assert within_monte_carlo_error(masses.mean(axis=0), np.full(10, 0.1), 40_000).all()
    other = pit_masses(*pit_bounds(draws, rng.poisson(1.2, 40_000)), EDGES).mean(axis=0)
    assert not within_monte_carlo_error(other, np.full(10, 0.1), 40_000).all()


@pytest.mark.parametrize("n_draws", [1, 7, 100, 399])
def test_a_calibrated_prediction_is_covered_as_often_as_said_whatever_the_draws(n_draws):
    rank = np.arange(n_draws + 1) / (n_draws + 1)  # exchangeable draws: each rank as often
    levels = np.array([0.03, 0.5, 0.9, 0.95, 0.999])
    held = covered(rank, rank + 1 / (n_draws + 1), levels).mean(axis=1)
    np.testing.assert_allclose(held, levels, rtol=1e-9)


@given(
    probs=st.lists(st.integers(0, 9), min_size=2, max_size=4).filter(any),
    n_draws=st.integers(1, 4),
    level=st.sampled_from([0.3, 0.55, 0.9]),
)
def test_a_calibrated_prediction_of_few_values_is_covered_as_often_as_said(probs, n_draws, level):
    prob, values = np.array(probs) / sum(probs), np.arange(len(probs))
    *draws, seen = np.stack(np.meshgrid(*[values] * (n_draws + 1), indexing="ij")).reshape(n_draws + 1, -1)
    weight = prob[np.stack([*draws, seen])].prod(axis=0)  # of every sample that there can be
    held = covered(*pit_bounds(np.stack(draws), seen), [level])[0]
    np.testing.assert_allclose(weight @ held, level, atol=1e-9)


@given(
    draws=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    seen=st.integers(0, 3),
    level=st.sampled_from([0.3, 0.55, 0.9]),
)
def test_coverage_is_how_often_the_randomized_transform_is_in_the_interval(draws, seen, level):
    start, end = pit_bounds(np.array(draws), np.array(seen))
    below, ties = sum(d < seen for d in draws), sum(d == seen for d in draws)
    assert (start, end) == pytest.approx((below / (len(draws) + 1), (below + ties + 1) / (len(draws) + 1)))
    transform = start + (np.arange(20_000) + 0.5) / 20_000 * (end - start)
    expected = (np.abs(transform - 0.5) <= level / 2).mean()
    assert covered(start, end, [level])[0] == pytest.approx(expected, abs=2e-4)


def test_what_all_draws_agree_on_is_covered_as_the_transform_says():
    np.testing.assert_allclose(covered(*pit_bounds(np.zeros((30, 1)), np.zeros(1)), LEVELS)[:, 0], LEVELS)
    assert not covered(*pit_bounds(np.zeros((30, 1)), np.ones(1)), LEVELS).any()


def test_masses_are_the_average_over_random_transforms():
    rng = np.random.default_rng(4)
    start = np.array([0.0, 0.12, 0.5, 0.93])
    end = np.array([0.31, 0.18, 0.5, 1.0])
    drawn = start + rng.random((200_000, 4)) * (end - start)
    expected = np.stack([np.histogram(x, EDGES)[0] / len(x) for x in drawn.T])
    np.testing.assert_allclose(pit_masses(start, end, EDGES), expected, atol=0.005)


@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_masses_of_an_impossible_value_are_in_one_bin(at):
    masses = pit_masses(np.array([at]), np.array([at]), EDGES)
    assert sorted(masses[0]) == [0] * 9 + [1]


def test_transform_of_cells_is_that_of_each_cell():
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.ones(4), size=2)
    counts = np.array([[3, 0, 5, 2], [0, 0, 10, 0]])
    expected = np.zeros((2, 10))
    for g in range(2):
        cdf = np.append(0, probs[g].cumsum())
        cells = np.repeat(np.arange(4), counts[g])
        drawn = cdf[cells] + rng.random((50_000, 10)) * probs[g][cells]
        expected[g] = np.histogram(drawn, EDGES)[0] / drawn.size
    np.testing.assert_allclose(cell_pit(probs, counts, EDGES), expected, atol=0.003)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cells_and_replicates_with_the_same_counts_tie_exactly(dtype):
    rng = np.random.default_rng(6)
    centers = rng.gamma(1.0, size=(7, 1)) * np.arange(15) / 14
    replicates = sample_replicates(rng, rng.dirichlet(np.full(15, 0.3), (40, 7)).astype(np.float32), 13)
    draws = np.stack(histogram_moments(replicates, centers.astype(dtype)), axis=1)
    counts = np.rint(replicates[8] * 13).astype(np.int32)
    np.testing.assert_array_equal(moments_of_cells(counts, centers.astype(dtype)), draws[8])


def test_moments_of_cells_are_those_of_scipy():
    counts = np.array([[2, 5, 1, 0], [4, 0, 0, 9]])
    centers = np.tile([0.0, 0.5, 1.0, 1.5], (2, 1))
    cells = [np.repeat(centers[g], counts[g]) for g in range(2)]
    expected = [[f(x) for x in cells] for f in (np.mean, np.var, stats.skew, stats.kurtosis)]
    np.testing.assert_allclose(moments_of_cells(counts, centers), expected, rtol=1e-5)
