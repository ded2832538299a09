"""Truncated Gaussians against scipy, and parameters against those that histograms were made with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from distpert.baselines import TruncatedGaussian
from distpert.baselines.networks.truncated_gaussian import bin_probs, fit_parameters


def bins_of(location, scale, n_bins):
    law = truncnorm(-location / scale, (1 - location) / scale, location, scale)
    edges = np.linspace(0, 1, n_bins + 1)
    upper = edges[:-1] > location  # survival functions keep the digits of the upper tail
    return np.where(upper, law.sf(edges[:-1]) - law.sf(edges[1:]), np.diff(law.cdf(edges)))


@pytest.mark.parametrize("location", [-0.5, 0.0, 0.3, 0.9, 1.5])
@pytest.mark.parametrize("scale", [0.05, 0.3, 2.0])
def test_bins_of_a_truncated_gaussian(location, scale):
    expected = bins_of(location, scale, 15)
    found = np.asarray(bin_probs(jnp.array([location, np.log(scale)], jnp.float32), 15), float)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-7)
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_zeros_apart_add_to_the_first_bin():
    parameters = np.array([0.4, np.log(0.2), 0.7])
    share = 1 / (1 + np.exp(-0.7))
    expected = (1 - share) * bins_of(0.4, 0.2, 10) + share * (np.arange(10) == 0)
    np.testing.assert_allclose(bin_probs(jnp.asarray(parameters, jnp.float32), 10), expected, rtol=1e-4)


def test_gradients_are_finite_far_out():
    for location, log_scale in [(-3.0, -2.0), (4.0, -2.0), (0.5, -6.0)]:
        gradient = jax.jacobian(lambda p: bin_probs(p, 15))(jnp.array([location, log_scale], jnp.float32))
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("zero_inflated", [False, True])
def test_parameters_are_recovered(zero_inflated):
    truth = np.array([[0.4, np.log(0.15), -1.0], [0.6, np.log(0.25), 0.5], [0.5, np.log(0.1), -2.0]])
    truth = truth if zero_inflated else truth[:, :2]
    histograms = np.asarray(bin_probs(jnp.asarray(truth, jnp.float32), 15))
    found = fit_parameters(jnp.asarray(histograms), jnp.full(3, 1e-6, jnp.float32), zero_inflated=zero_inflated)
    np.testing.assert_allclose(found, truth, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("zero_inflated", [False, True])
def test_predictions(tiny, zero_inflated):
    options = {"hidden": ((8,),), "learning_rates": (1e-3,), "dropouts": (0.1,), "decays": (0.01,), "max_epochs": 3}
    baseline = TruncatedGaussian(zero_inflated=zero_inflated, n_networks=1, **options)
    prediction = baseline.fit(tiny.histograms, tiny.embeddings).predict(["B+A", "F"])
    assert prediction.perturbations == ("A+B", "F")
    assert (prediction.probs > 0).all()
    np.testing.assert_allclose(prediction.probs.sum(axis=-1), 1)
    # A fifth of the values are zeros apart from a hump: only one of the two laws has both.
    control = tiny.histograms.select([]).counts.to_numpy().sum(axis=0)
    assert control[:, 0].sum() / control.sum() > 0.15
    first = prediction.probs[..., 0].mean()
    assert first > 0.15 if zero_inflated else first < 0.35
