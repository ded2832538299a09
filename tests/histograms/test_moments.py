"""Moments in closed form, against scipy on the values themselves."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from distpert.histograms.moments import MOMENTS, histogram_moments

KINDS = {
    "float64": lambda x: np.asarray(x, np.float64),
    "float32": lambda x: np.asarray(x, np.float32),
    "jax": lambda x: jnp.asarray(x, jnp.float32),
}


def by_scipy(counts, centers):
    values = np.repeat(centers, counts)
    return [values.mean(), values.var(), stats.skew(values), stats.kurtosis(values)]


@pytest.mark.parametrize("kind", KINDS)
def test_against_scipy(kind):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(300, rng.dirichlet(np.full(15, 0.5), size=(2, 6)))
    centers = np.linspace(0, 1, 15) * rng.uniform(1, 8, (6, 1))
    to = KINDS[kind]
    ours = histogram_moments(to(counts / 300), to(centers))
    expected = np.array([[by_scipy(counts[p, g], centers[g]) for g in range(6)] for p in range(2)])
    assert len(ours) == len(MOMENTS)
    for k, moment in enumerate(ours):
        assert moment.dtype == to(0).dtype
        assert moment.shape == (2, 6)
        tolerance = 1e-10 if kind == "float64" else 2e-5
        np.testing.assert_allclose(moment, expected[..., k], rtol=tolerance, atol=tolerance, err_msg=MOMENTS[k])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=20), st.floats(0.05, 20), st.floats(-5, 5))
def test_any_counts(counts, width, first):
    counts = np.array(counts)
    assume((counts > 0).sum() > 1)
    centers = first + width * np.arange(len(counts))
    ours = histogram_moments(counts / counts.sum(), centers)
    np.testing.assert_allclose(ours, by_scipy(counts, centers), rtol=1e-7, atol=1e-7)


def test_of_one_histogram_known_by_hand():
    # A fair coin on 0 and 2, and one that shows 2 in a tenth of the cases.
    np.testing.assert_allclose(histogram_moments(np.array([0.5, 0.5]), np.array([0.0, 2.0])), [1, 1, 0, -2], atol=1e-12)
    expected = [0.2, 0.36, 0.8 / 0.3, 1 / 0.09 - 6]
    np.testing.assert_allclose(histogram_moments(np.array([0.9, 0.1]), np.array([0.0, 2.0])), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_does_not_change_with_units(kind):
    to = KINDS[kind]
    probs, centers = np.random.default_rng(1).dirichlet(np.ones(15), size=4), np.arange(15.0)
    ours = histogram_moments(to(probs), to(centers))
    other = histogram_moments(to(probs), to(0.25 * centers + 3))
    np.testing.assert_allclose(other[0], 0.25 * np.asarray(ours[0]) + 3, rtol=1e-5)
    np.testing.assert_allclose(other[1], 0.0625 * np.asarray(ours[1]), rtol=1e-5)
    np.testing.assert_allclose(other[2:], ours[2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 3, 14])
@pytest.mark.parametrize("centers", [np.linspace(0, 5, 15), np.linspace(-1e3, 1e3, 15), np.zeros(15), np.full(15, 7.3)])
def test_a_point_has_no_shape(kind, place, centers):
    to = KINDS[kind]
    point = np.zeros(15)
    point[place] = 1
    mean, *rest = histogram_moments(to(point), to(centers))
    np.testing.assert_allclose(mean, centers[place], rtol=1e-6)
    np.testing.assert_allclose(rest, 0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gene_of_one_value_spread_over_bins_of_no_width(kind):
    to = KINDS[kind]
    _, variance, skewness, kurtosis = histogram_moments(to(np.full(3, 1 / 3)), to(np.full(3, 0.1)))
    assert variance < 1e-12
    assert skewness == kurtosis == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", [0.0, 1e-3, 1e-6, 1e-9, 1e-12, 1e-20, 1e-37, 1e-44])
def test_near_points_are_finite_and_silent(kind, far):
    to = KINDS[kind]
    probs, centers = np.array([1 - far, far / 2, far / 2]), np.array([0.1, 4.0, 9.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = histogram_moments(to(probs), to(centers))
    assert all(np.isfinite(moment) for moment in ours)
    assert ours[1] >= 0
    assert ours[3] >= ours[2] ** 2 - 2 - 1e-3 * abs(ours[3])  # Pearson's inequality


def test_compiles_and_differentiates():
    centers = jnp.linspace(0, 4, 6)
    probs = jax.nn.softmax(jnp.array([0.3, 1.0, -1.0, 0.0, 2.0, -3.0]))
    np.testing.assert_allclose(
        jax.jit(histogram_moments)(probs, centers), histogram_moments(probs, centers), rtol=1e-5, atol=1e-5
    )
    slopes = jax.jacobian(lambda p: jnp.stack(histogram_moments(p, centers)))(jnp.eye(6)[2])
    assert np.isfinite(slopes).all()
