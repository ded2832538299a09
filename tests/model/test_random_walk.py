"""The walk of loadings against numpyro's, a brute force and its covariance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import stats

from distpert.model.random_walk import SmoothWalk


def test_without_smoothness_it_is_a_random_walk():
    values = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    ours, plain = SmoothWalk(0.3, 0.0, 6), dist.GaussianRandomWalk(0.3, 6)
    np.testing.assert_allclose(ours.log_prob(jnp.asarray(values)), plain.log_prob(values), rtol=1e-4)


@pytest.mark.parametrize(
    ("scale", "smoothness", "n_bins"), [(0.1, 0.8, 15), (1.3, 0.95, 40), (0.2, 0.5, 2), (0.2, 0.5, 1)]
)
def test_density_by_steps(scale, smoothness, n_bins):
    values = np.random.default_rng(1).normal(scale=scale, size=(5, n_bins)).cumsum(axis=-1)
    steps = np.diff(values, axis=-1)
    expected = stats.norm.logpdf(values[:, 0], scale=scale)
    for b in range(n_bins - 1):
        mean = smoothness * steps[:, b - 1] if b else 0.0
        expected += stats.norm.logpdf(steps[:, b], mean, scale * np.sqrt(1 - smoothness**2 if b else 1.0))
    ours = SmoothWalk(scale, smoothness, n_bins).log_prob(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-3)


def test_steps_of_draws():
    """Each step has the scale, and the correlation with another that its distance says."""
    drawn = np.asarray(SmoothWalk(0.1, 0.8, 6).sample(jax.random.key(0), (40_000,)))
    assert abs(drawn[:, 0].std() - 0.1) < 0.002
    steps = np.diff(drawn, axis=-1)
    np.testing.assert_allclose(steps.std(axis=0), 0.1, rtol=0.02)
    correlation = np.corrcoef(np.column_stack([drawn[:, 0], steps]).T)
    lag = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    np.testing.assert_allclose(correlation[1:, 1:], 0.8**lag, atol=0.02)
    assert np.abs(correlation[0, 1:]).max() < 0.02


def test_a_scale_for_each_walk():
    scale = np.array([0.1, 1.0, 10.0])
    walks = SmoothWalk(scale, 0.8, 2)
    drawn = np.asarray(walks.sample(jax.random.key(1), (10_000,)))
    assert drawn.shape == (10_000, 3, 2)
    np.testing.assert_allclose(drawn[..., 0].std(axis=0), scale, rtol=0.05)
    np.testing.assert_allclose(np.diff(drawn, axis=-1)[..., 0].std(axis=0), scale, rtol=0.05)
    alone = [SmoothWalk(s, 0.8, 2).log_prob(jnp.asarray(drawn[:5, i])) for i, s in enumerate(scale)]
    np.testing.assert_allclose(walks.log_prob(jnp.asarray(drawn[:5])), np.stack(alone, axis=-1), rtol=1e-5)
