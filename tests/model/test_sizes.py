"""Shrinkage of estimates: the size is found again, and the posterior is that of a normal with a normal prior."""

import numpy as np
import pytest

from distpert.model.sizes import SIZES, shrink


def test_size_is_found_again():
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.01, 0.5, 20_000)
    estimate = rng.normal(0, np.sqrt(0.2**2 + variance))
    assert shrink(estimate, variance).size == pytest.approx(0.2, rel=0.15)  # a step of the grid is 12 %


def test_posterior_by_bayes():
    estimate, variance = np.array([1.0, -0.5, 0.2, 3.0]), np.array([0.1, 1.0, np.inf, 2.0])
    ours = shrink(estimate, variance, 0.3)
    precision = ours.size**-2 + 1 / variance
    np.testing.assert_allclose(ours.scale, precision**-0.5)
    np.testing.assert_allclose(ours.mean, (0.3 / ours.size**2 + estimate / variance) / precision)
    assert ours.mean[2] == pytest.approx(0.3)
    assert ours.scale[2] == pytest.approx(ours.size)


def test_noise_has_the_smallest_size():
    rng = np.random.default_rng(1)
    assert shrink(rng.normal(0, 0.1, 5000) * 0.9, np.full(5000, 0.01)).size == SIZES[0]
