"""The probability of doing nothing, against marginal likelihoods by integration."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from distpert.posterior.inactive import find_inactive


def problem(response, scale=0.3, n_factors=1, origin=0.0, measured=False):
    """Arguments of `find_inactive` for responses (perturbation,) or (perturbation, factor); the prior is standard."""
    response = np.asarray(response, float).reshape(len(response), n_factors)
    zeros = np.zeros_like(response)
    tilt = np.zeros((len(response), 2))
    return {
        "response": response,
        "response_scale": zeros + scale,
        "predicted": zeros,
        "variance": zeros + 1.0,
        "origin": np.full(n_factors, origin),
        "tilt": tilt,
        "tilt_scale": tilt + 1.0,
        "prior_tilt": (np.zeros(2), np.ones(2)),
        "measured": np.full(len(response), measured),
    }


def factor_by_integration(seen, noise, origin, mean, sd):
    """p(seen | z = origin) / ∫ p(seen | z) p(z) dz, for a response seen with noise."""
    at_origin = stats.norm.pdf(seen, origin, noise)
    whole, _ = quad(
        lambda z: stats.norm.pdf(seen, z, noise) * stats.norm.pdf(z, mean, sd), -15, 15, points=[seen, mean]
    )
    return at_origin / whole


def probability_of(factor, share):
    return share * factor / (share * factor + 1 - share)


def test_bayes_factors_by_integration():
    """Posteriors that follow from noisy sights of the response, in one dimension."""
    rng = np.random.default_rng(0)
    seen, noise, origin = rng.normal(0, 1.2, 12), rng.uniform(0.2, 0.8, 12), 0.3
    mean, sd = rng.normal(0, 0.5, 12), rng.uniform(0.5, 1.0, 12)
    variance = 1 / (noise**-2 + sd**-2)
    posterior = variance * (seen / noise**2 + mean / sd**2)
    given = problem(posterior, origin=origin) | {
        "response_scale": np.sqrt(variance)[:, None],
        "predicted": mean[:, None],
        "variance": sd[:, None] ** 2,
    }
    found = find_inactive(**given)
    expected = [factor_by_integration(*each) for each in zip(seen, noise, [origin] * 12, mean, sd, strict=True)]
    np.testing.assert_allclose(found.probability, probability_of(np.array(expected), found.share), rtol=1e-4)


def test_factors_and_tilts_multiply():
    """Independent coordinates: the Bayes factor of all is the product. An unmeasured tilt does not count."""
    response = np.array([[0.4, -0.2], [1.5, 0.1], [0.0, 0.3]])
    given = problem(response, n_factors=2) | {
        "tilt": np.array([[0.1, 0.0], [-0.8, 0.3], [0.5, 0.2]]),
        "tilt_scale": np.array([[0.2, 0.5], [0.4, 0.5], [0.3, 0.3]]),
        "prior_tilt": (np.array([-1.0, 0.2]), np.array([0.5, 0.8])),
        "measured": np.array([True, True, False]),
    }
    log = stats.norm.logpdf
    factors = []
    for p in range(3):
        total = sum(log(0, given["response"][p, k], 0.3) - log(0, 0, 1) for k in range(2))
        if given["measured"][p]:
            for j in range(2):
                mean, scale = (values[j] for values in given["prior_tilt"])
                total += log(0, given["tilt"][p, j], given["tilt_scale"][p, j]) - log(0, mean, scale)
        factors.append(np.exp(total))
    found = find_inactive(**given)
    np.testing.assert_allclose(found.probability, probability_of(np.array(factors), found.share), rtol=1e-6)


def test_share_is_the_most_likely_one():
    """Of the mixture, with one active and one inactive perturbation added."""
    rng = np.random.default_rng(1)
    given = problem(np.concatenate([rng.normal(0, 0.3, 30), rng.normal(0, 1.0, 50)]))
    found = find_inactive(**given)
    log = stats.norm.logpdf
    factor = np.exp(log(0, given["response"][:, 0], 0.3) - log(0, 0, 1))
    grid = np.linspace(0.001, 0.999, 9999)
    total = np.log(grid[:, None] * factor + 1 - grid[:, None]).sum(axis=1) + np.log(grid) + np.log1p(-grid)
    assert found.share == pytest.approx(grid[total.argmax()], abs=2e-3)
    assert 0.1 < found.share < 0.8


def test_all_inactive_gives_a_high_share():
    rng = np.random.default_rng(2)
    found = find_inactive(**problem(rng.normal(0, 0.05, (40, 3)), scale=0.05, n_factors=3))
    assert found.share > 0.95
    assert (found.probability > 0.95).mean() > 0.9


def test_all_strong_gives_none():
    rng = np.random.default_rng(3)
    strong = rng.choice([-1, 1], 40) * rng.uniform(1.5, 3, 40)
    found = find_inactive(**problem(strong, scale=0.1))
    assert found.share == pytest.approx(1 / 42, abs=1e-6)  # of the two that are added, one
    assert (found.probability < 1e-6).all()


def test_inactive_ones_are_told_from_strong_ones():
    rng = np.random.default_rng(4)
    inactive, active = rng.normal(0, 0.1, (20, 4)), rng.choice([-1, 1], (60, 4)) * rng.uniform(0.7, 2, (60, 4))
    found = find_inactive(**problem(np.concatenate([inactive, active]), scale=0.1, n_factors=4))
    assert (found.probability[:20] > 0.9).all()
    assert (found.probability[20:] < 0.01).all()
    assert found.share == pytest.approx(21 / 82, abs=0.01)


def test_where_nothing_is_known_nothing_is_said():
    """A posterior that is the prior has a Bayes factor of one for all perturbations."""
    found = find_inactive(**problem(np.zeros(9), scale=1.0))
    np.testing.assert_allclose(found.probability, found.share, rtol=1e-6)


@pytest.mark.parametrize(("response", "expected"), [(200.0, 0.0), (0.0, 1.0)])
def test_extreme_bayes_factors_are_finite(response, expected):
    given = problem(np.full((5, 40), response), scale=1e-6, n_factors=40)
    found = find_inactive(**given)
    np.testing.assert_allclose(found.probability, expected, atol=1e-6)
    assert 0 < found.share < 1


# ------------------------------------------------------------------------------------------------------------- in a fit


def test_series_of_a_fit(fitted):
    series = fitted.prob_inactive
    assert series.index.tolist() == list(fitted.perturbations)
    assert (series.name, series.index.name) == ("prob_inactive", "perturbation")
    assert ((series >= 0) & (series <= 1)).all()
    assert series.median() < 0.5  # in this screen, all do something


def test_draws_are_mixed_by_the_probability(context_fit, monkeypatch):
    responses = context_fit._responses
    monkeypatch.setitem(responses.__dict__, "inactive", np.linspace(0, 1, 10))
    drawn = responses.draw([*context_fit.perturbations, "GENE11"], 4000, 0).inactive
    np.testing.assert_allclose(drawn[:, :10].mean(axis=0), np.linspace(0, 1, 10), atol=0.04)
    assert not drawn[:, 10].any()  # of an unseen one nothing is known
    again = responses.draw(context_fit.perturbations[4:5], 4000, 0).inactive
    np.testing.assert_array_equal(again[:, 0], drawn[:, 4])
