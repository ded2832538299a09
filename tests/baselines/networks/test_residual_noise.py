"""Noise about the predictions of a network: simulated errors are found, and its posterior agrees with integration."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import dirichlet_multinomial

from distpert.baselines.networks.residual_noise import ResidualNoise, learn_residual_noise
from distpert.model.basis import shift_basis

CENTERS = np.tile(np.arange(5.0), (2, 1))


def simulated(scale, strengths, n_cells=2_000, seed=0):
    """Predictions, and counts of histograms that are shifted at random about them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 0.3, (len(strengths), 2, 5)) + np.array([1, 0.5, 0, -0.5, -1])
    basis = shift_basis(softmax(logits, axis=-1).mean(axis=0), 0.8)
    coordinates = (
        np.asarray(strengths)[:, None, None] * np.asarray(scale)[:, None] * rng.normal(size=(len(strengths), 2, 4))
    )
    histograms = softmax(logits + np.einsum("gbj,rgj->rgb", basis, coordinates), axis=-1)
    concentration = np.array([50.0, 1e4])
    drawn = np.array(
        [[rng.dirichlet(k * h) for k, h in zip(concentration, group, strict=True)] for group in histograms]
    )
    return softmax(logits, axis=-1), rng.multinomial(n_cells, drawn), concentration, basis


def test_scales_of_simulated_errors():
    probs, counts, concentration, basis = simulated([0.0, 0.1], np.ones(600))
    noise = learn_residual_noise(probs, counts, concentration, basis, CENTERS)
    assert noise.scale**2 == pytest.approx([0, 0.01], abs=0.002)
    assert (noise.strengths**2).mean() == pytest.approx(1, rel=1e-5)


def test_strengths_of_simulated_errors():
    strengths = np.repeat([0.5, 1.3], 200)
    noise = learn_residual_noise(*simulated([0.15, 0.15], strengths), CENTERS)
    weak, strong = (noise.strengths[200 * i : 200 * (i + 1)] ** 2 for i in range(2))
    assert strong.mean() / weak.mean() > 2


def test_no_errors_no_noise():
    probs, _, _, basis = simulated([0.0, 0.0], np.ones(50))
    exact = 2_000 * probs
    noise = learn_residual_noise(probs, exact, np.full(2, 100.0), basis, CENTERS)
    np.testing.assert_array_equal(noise.scale, 0)
    np.testing.assert_array_equal(noise.strengths, 1)


def test_drawn_shifts():
    noise = ResidualNoise(np.array([0.2, 0.5], np.float32), np.ones(3, np.float32))
    basis = shift_basis(np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]), 0.8).astype(np.float32)
    strength = np.repeat([1.0, 2.0], 50_000).astype(np.float32)
    drawn = noise.draw(np.random.default_rng(0), basis, slice(1, 2), strength)[:, 0]
    expected = 0.25 * basis[1] @ basis[1].T
    np.testing.assert_allclose(np.cov(drawn[:50_000].T), expected, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn[50_000:].T), 4 * expected, atol=0.08)


def test_posterior_by_integration():
    """With many cells and a small shift, the normal approximation is the posterior."""
    rng = np.random.default_rng(1)
    noise = ResidualNoise(np.array([0.1], np.float32), np.ones(1, np.float32))
    probs, kappa = np.array([[0.3, 0.5, 0.2]]), np.array([300.0])
    basis = shift_basis(probs, 0.8)
    counts = np.array([[130, 190, 80]])
    many = np.broadcast_to(probs, (40_000, 1, 3))
    drawn = noise.draw_given(rng, basis, slice(0, 1), many, kappa, counts)[:, 0]
    prior = noise.draw(rng, basis, slice(0, 1), np.ones(40_000))[:, 0].astype(float)
    shifted = softmax(np.log(probs) + prior, axis=-1)
    weight = np.exp(dirichlet_multinomial(kappa * shifted, 400).logpmf(counts[0]))
    weight /= weight.sum()
    # A shift is known up to a constant.
    drawn, prior = drawn - drawn[:, :1], prior - prior[:, :1]
    mean = weight @ prior
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.006)
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(weight @ (prior - mean) ** 2), rtol=0.05, atol=1e-6)
