"""Bands against loops over resamples and known truths; strata against pandas; selective risk by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from distpert.evaluation.resampling import INTERVAL, flatness, mean_over_groups, quantile_strata, selective_risk


def test_mean_and_band_are_those_of_a_loop_over_resamples():
    rng = np.random.default_rng(0)
    values, unit = rng.random((2, 9)), np.array([4, 4, 4, 0, 0, 7, 7, 9, 9])
    present = np.array([True, True, False, True, True, True, False, False, False])
    values[:, ~present] = np.nan
    band = mean_over_groups(values, present, unit, 500, 1)
    np.testing.assert_allclose(band.value, np.nanmean(values, axis=1))
    weights = np.random.default_rng(1).multinomial(3, np.full(3, 1 / 3), size=500)
    means = []
    for weight in weights:
        groups = [
            r
            for p, w in zip((0, 4, 7), weight, strict=True)
            for r in np.flatnonzero((unit == p) & present).tolist() * w
        ]
        means.append(values[:, groups].mean(axis=1))
    np.testing.assert_allclose([band.lower, band.upper], np.quantile(means, INTERVAL, axis=0))


def test_groups_of_one_perturbation_are_no_further_evidence():
    value = np.random.default_rng(2).random(40)
    once = mean_over_groups(value, np.ones(40, bool), np.arange(40), 400, 0)
    many = mean_over_groups(np.repeat(value, 25), np.ones(1000, bool), np.repeat(np.arange(40), 25), 400, 0)
    np.testing.assert_allclose(many, once)
    naive = mean_over_groups(np.repeat(value, 25), np.ones(1000, bool), np.arange(1000), 400, 0)
    assert naive.upper - naive.lower < 0.3 * (many.upper - many.lower)


def test_band_of_independent_perturbations_is_that_of_the_normal_limit():
    value = np.random.default_rng(3).normal(size=300)
    band = mean_over_groups(value, np.ones(300, bool), np.arange(300), 4000, 0)
    half = 1.96 * value.std() / np.sqrt(300)
    np.testing.assert_allclose([band.lower, band.upper], value.mean() + half * np.array([-1, 1]), atol=0.05 * half)


def test_a_mean_with_an_infinite_value_is_infinite():
    value = np.random.default_rng(4).random((2, 30))
    finite = mean_over_groups(value, *each_its_own(value)[1:], 400, 0)
    value[1, 3] = np.inf
    band = mean_over_groups(value, *each_its_own(value)[1:], 400, 0)
    np.testing.assert_array_equal(np.array(band)[:, 0], np.array(finite)[:, 0])
    assert band.value[1] == band.upper[1] == np.inf
    assert 0 < band.lower[1] < finite.upper[1]  # a third of the resamples leaves the infinite one out
    value[1, 1:] = np.inf  # about one resample in forty has no infinite one, and one of its neighbors is the end
    for n_resamples in (20, 30, 50, 100, 101):
        few = mean_over_groups(value[:, :2], *each_its_own(value[:, :2])[1:], n_resamples, 0)
        assert few.upper[1] == np.inf and few.lower[1] == value[1, 0]
    value[1] = np.inf
    assert np.isposinf(np.array(mean_over_groups(value, *each_its_own(value)[1:], 400, 0))[:, 1]).all()


@pytest.mark.parametrize("n_present", [0, 1])
def test_no_band_without_perturbations_to_resample(n_present):
    band = mean_over_groups(np.ones((3, 2)), np.arange(2) < n_present, np.arange(2), 10, 0)
    assert np.isnan([band.lower, band.upper]).all()
    assert (band.value == 1).all() if n_present else np.isnan(band.value).all()
    curve = selective_risk(np.ones(n_present), np.ones(n_present), np.array([0.5, 1]), 10, 0)
    assert np.isnan([curve.lower, curve.upper]).all()
    assert (curve.value == 1).all() if n_present else np.isnan(curve.value).all()


# ------------------------------------------------------------------------------------------------- all bars at once


def densities(rng, n_perturbations, spread=1.0, n_genes=100, n_bars=20):
    """Transforms of normals that share half their variance with the genes of their perturbation, or too wide ones."""
    shared = rng.normal(size=(n_perturbations, 1)) * np.sign(rng.normal(size=n_genes))
    of_genes = stats.norm.cdf(spread * np.sqrt(0.5) * (shared + rng.normal(size=shared.shape)))
    bar = np.minimum(of_genes * n_bars, n_bars - 1).astype(int)
    counts = np.zeros((n_bars, n_perturbations))
    np.add.at(counts, (bar, np.arange(n_perturbations)[:, None]), 1)
    return counts / n_genes * n_bars


def each_its_own(density):
    return density, np.ones(density.shape[1], bool), np.arange(density.shape[1])


def test_simultaneous_band_and_p_value_are_those_of_a_loop_over_resamples():
    rng = np.random.default_rng(6)
    density, unit, present = 1 + 0.2 * rng.normal(size=(4, 24)), np.arange(24) % 9, np.arange(24) % 5 > 0
    density[:, ~present] = np.nan
    found = flatness(density, present, unit, 300, 1)

    def mean_and_variance(drawn):
        groups = [density[:, (unit == p) & present].T for p in drawn]
        mean = np.concatenate(groups).mean(axis=0)
        squares = [(of_one - mean).sum(axis=0) ** 2 for of_one in groups]
        return mean, np.sum(squares, axis=0) / sum(map(len, groups)) ** 2

    mean, variance = mean_and_variance(range(9))
    spread = np.sqrt((9 * variance + 4 * variance.mean()) / 13)
    resamples = np.random.default_rng(1).multinomial(9, np.full(9, 1 / 9), size=300)
    drawn = (mean_and_variance(np.repeat(np.arange(9), weight)) for weight in resamples)
    largest = [max(abs(of_one - mean) / np.sqrt((9 * own + 4 * variance.mean()) / 13)) for of_one, own in drawn]
    q = np.quantile(largest, 0.95)
    np.testing.assert_allclose(found.lower, np.maximum(1 - q * spread, 0))
    np.testing.assert_allclose(found.upper, 1 + q * spread)
    reached = sum(m >= max(abs(mean - 1) / spread) for m in largest)
    assert 0 < reached < 300 and found.p_value == (1 + reached) / 301


def test_p_value_of_a_flat_truth_is_about_uniform():
    rng = np.random.default_rng(7)
    limits = np.array([0.05, 0.25, 0.5])
    for n_perturbations in (60, 20):
        found = (flatness(*each_its_own(densities(rng, n_perturbations)), 99, i) for i in range(300))
        p_values = np.array([[one.p_value] for one in found])
        below = (p_values <= limits).mean(axis=0)
        assert (np.abs(below - limits) < 3 * np.sqrt(limits * (1 - limits) / 300)).all()


def test_too_narrow_a_prediction_is_not_flat():
    density = densities(np.random.default_rng(8), 60, spread=1.6)
    found = flatness(*each_its_own(density), 999, 0)
    assert found.p_value == 1 / 1000
    mean = density.mean(axis=1)
    assert (mean[[0, -1]] > found.upper[[0, -1]]).all() and mean[10] < found.lower[10]


def test_bands_of_all_bars_hold_those_of_each():
    given = *each_its_own(densities(np.random.default_rng(9), 60)), 1000, 0
    band, found = mean_over_groups(*given), flatness(*given)
    assert (found.upper - 1 > band.upper - band.value).all() and (found.lower - 1 < band.lower - band.value).all()


@pytest.mark.parametrize(("n_perturbations", "n_genes"), [(4, 40), (8, 40), (12, 10), (20, 3)])
def test_few_perturbations_and_genes_have_a_band_that_can_be_left(n_perturbations, n_genes):
    """Single bars are then hardly known, and some are empty by chance."""
    rng = np.random.default_rng(11)
    flat, wide = (
        [flatness(*each_its_own(densities(rng, n_perturbations, spread, n_genes)), 99, i) for i in range(40)]
        for spread in (1.0, 4.0)
    )
    assert np.median([one.upper.max() for one in flat]) < 6
    assert all((one.lower >= 0).all() for one in flat)
    assert np.mean([one.p_value <= 0.05 for one in flat]) <= 0.15
    assert np.mean([one.p_value <= 0.05 for one in wide]) > 0.25


def test_a_bar_that_is_empty_by_chance_is_not_outside():
    rng = np.random.default_rng(12)
    density = next(d for d in (densities(rng, 20, n_genes=3) for _ in range(99)) if (d == 0).all(axis=1).any())
    found = flatness(*each_its_own(density), 199, 0)
    mean = density.mean(axis=1)
    assert found.p_value > 0.05
    assert ((found.lower <= mean) & (mean <= found.upper)).all()


def test_bars_that_are_the_same_in_every_group():
    assert flatness(*each_its_own(np.ones((1, 30))), 99, 0).p_value == 1  # one bar holds everything
    assert flatness(*each_its_own(np.ones((4, 30)) + 1e-9), 99, 0).p_value == 1
    assert flatness(*each_its_own(np.ones((2, 30)) * [[0.5], [1.5]]), 99, 0).p_value == 1 / 100


@pytest.mark.parametrize("n_present", [0, 1])
def test_nothing_is_known_to_be_flat_without_perturbations_to_resample(n_present):
    found = flatness(np.ones((3, 2)), np.arange(2) < n_present, np.arange(2), 10, 0)
    assert np.isnan([*found.lower, *found.upper, found.p_value]).all() and len(found.lower) == 3


# ----------------------------------------------------------------------------------------- selective risk and strata


def test_selective_risk_by_hand():
    band = selective_risk(
        np.array([3.0, 1, 2, 4]), np.array([2.0, 1, 1, 4]), np.array([0.25, 0.375, 0.5, 0.75, 1]), 50, 0
    )
    np.testing.assert_allclose(band.value, [0.5, 0.5, 0.5, 4 / 3 / 2, 1])
    assert (band.lower <= band.upper).all() and band.lower[-1] == band.upper[-1] == 1


def test_nothing_is_relative_to_a_mean_that_is_not_positive():
    shares, uncertainty = np.array([0.5, 1]), np.arange(4.0)
    for risk in ([1, -1, 2, -2], [1, -1, 1, -2]):
        assert np.isnan(selective_risk(uncertainty, np.array(risk, float), shares, 50, 0)).all()
    some = selective_risk(uncertainty, np.array([-1.0, 0, 3, 1]), shares, 50, 0)  # resamples of the first alone
    np.testing.assert_allclose(some.value, [-0.5 / 0.75, 1])
    assert np.isnan([some.lower, some.upper]).all()


def test_uncertainty_that_knows_nothing_has_a_risk_of_about_one():
    rng = np.random.default_rng(4)
    shares, risk = np.array([0.2, 0.5]), rng.gamma(2.0, size=400)
    blind, knowing = (selective_risk(u, risk, shares, 400, 0) for u in (rng.random(400), risk))
    assert ((blind.lower < 1) & (blind.upper > 1)).all()
    assert (knowing.upper < 0.8).all()


def test_strata_are_those_of_pandas():
    values = np.random.default_rng(5).normal(size=(5, 9))
    expected = pd.qcut(values.ravel(), 4, labels=False).reshape(5, 9)
    np.testing.assert_array_equal(quantile_strata(values, 4), expected)


def test_strata_keep_ties_together_and_leave_out_what_is_unknown():
    np.testing.assert_array_equal(quantile_strata(np.array([7.0, np.nan, 7, 7, 8]), 3), [0, -1, 0, 0, 2])
    np.testing.assert_array_equal(quantile_strata(np.full(3, np.nan), 3), [-1] * 3)
