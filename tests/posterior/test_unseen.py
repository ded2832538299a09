"""What training perturbations tell of unseen responses."""

import numpy as np
import pytest
from scipy.optimize import minimize

from distpert.model.gaussian_process import leave_one_out
from distpert.posterior.strengths import damped, expected_strengths
from distpert.posterior.unseen import LEARNED, SMOOTHING, KernelEigen, learn_unseen, null_response

WEIGHT = np.array([0.6, 0.3, 0.1])
ONE = np.ones(40, int)  # gene a label


@pytest.fixture(scope="module")
def kernel():
    points = np.random.default_rng(4).normal(size=(40, 2))
    return KernelEigen(*np.linalg.eigh(np.exp(-((points[:, None] - points) ** 2).sum(axis=-1))))


@pytest.fixture(scope="module")
def responses():
    rng = np.random.default_rng(3)
    return rng.normal(size=(40, 3)), rng.uniform(0.05, 0.3, (40, 3))


@pytest.fixture(scope="module")
def learned(responses, kernel):
    return learn_unseen(*responses, kernel, WEIGHT, np.array([0.5, -0.2, 0.0]), ONE)


def test_what_is_learned_does_not_depend_on_units(responses, kernel, learned):
    """Factors measured in other units give the same strengths, and the responses told are in those units."""
    response, scale = responses
    other = learn_unseen(7 * response, 7 * scale, kernel, WEIGHT, 7 * learned.origin, ONE)
    for name in ("length", "center", "mean", "slope", "strength", "ratio", "residual"):
        np.testing.assert_allclose(getattr(other, name), getattr(learned, name), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.size, 7 * learned.size)


def test_what_is_learned_does_not_depend_on_the_zero(responses, kernel, learned):
    """Only what a response is beyond the origin counts."""
    response, scale = responses
    other = learn_unseen(response + 3, scale, kernel, WEIGHT, learned.origin + 3, ONE)
    np.testing.assert_allclose(other.strength, learned.strength)
    np.testing.assert_allclose(other.residual, learned.residual, atol=1e-9)


def test_tempered_responses_have_unit_size(responses, learned):
    tempered = (responses[0] - learned.origin) / learned.length[:, None] / learned.size
    np.testing.assert_allclose(tempered.std(axis=0), 1)
    np.testing.assert_allclose(tempered.mean(axis=0), learned.center)


def test_residuals_are_raised_for_what_was_learned(responses, kernel, learned):
    """They rebuild the responses once this is undone."""
    response, _ = responses
    m = (response - learned.origin) / learned.size
    tempered = m / learned.length[:, None] - learned.center
    predicted, variance = leave_one_out(learned.share, *kernel, tempered)
    expected = learned.strength / learned.ratio
    rebuilt = learned.ratio[:, None] * learned.mean + damped(learned.ratio)[:, None] * learned.slope * predicted
    rebuilt = expected[:, None] * rebuilt
    residual = learned.residual * np.sqrt(1 - LEARNED / 40)
    np.testing.assert_allclose(rebuilt + learned.strength[:, None] * np.sqrt(variance) * residual, m, atol=1e-9)


def test_steps_have_settled(responses, kernel, learned, monkeypatch):
    monkeypatch.setattr("distpert.posterior.unseen.STEPS", 200)
    longer = learn_unseen(*responses, kernel, WEIGHT, learned.origin, ONE)
    np.testing.assert_allclose(learned.strength, longer.strength, rtol=1e-4)
    np.testing.assert_allclose(learned.mean, longer.mean, atol=1e-4)


def test_ratios_are_to_what_labels_of_as_many_genes_do(responses, kernel, learned):
    n_genes = np.resize([1, 2], 40)
    pairs = learn_unseen(*responses, kernel, WEIGHT, learned.origin, n_genes)
    np.testing.assert_array_equal(pairs.strength, learned.strength)
    expected, _ = expected_strengths(pairs.strength, *kernel, np.zeros((0, 40)), n_genes, n_genes[:0])
    np.testing.assert_allclose(pairs.ratio, pairs.strength / expected)
    assert not np.allclose(pairs.ratio, learned.ratio, rtol=1e-3)


def test_a_perturbation_that_does_nothing_is_at_the_origin(learned):
    drawn = learned.draw(np.random.default_rng(0), np.ones(3), np.ones(3), 0.0, 60)
    np.testing.assert_allclose(drawn, np.tile(learned.origin, (60, 1)))


def test_draws_take_each_residual_in_turn(learned):
    """Ratios that are all different tell which residual a draw has."""
    ratio = np.arange(1.0, 41)
    scale = np.array([1e-3, 1e-3, 1e-3])
    mean = np.array([1.0, 0.0, 0.0])
    other = learned._replace(ratio=ratio, mean=np.zeros(3))
    drawn = other.draw(np.random.default_rng(0), mean, scale, 2.0, 100) - learned.origin
    taken = 1 + np.argmin(abs(drawn[:, :1] - 2 * damped(ratio)), axis=1)
    assert sorted(taken[:40]) == list(range(1, 41))
    assert sorted(taken[40:80]) == list(range(1, 41))


@pytest.mark.parametrize("spread", [0, 0.3, 1.5])
def test_draws_keep_the_shape_of_responses(learned, spread):
    """The second moment of what residuals add is kept; the third shrinks with what is Gaussian in it."""
    ratio = np.exp(-spread * abs(learned.residual[:, 0]))  # large residuals go with small ratios
    learned = learned._replace(ratio=ratio, mean=np.zeros(3))
    drawn = learned.draw(np.random.default_rng(0), np.zeros(3), np.ones(3), 1.0, 40 * 5000) - learned.origin
    added = ratio[:, None] * learned.residual
    # Each residual is known up to its own standard deviation, which adds to it.
    uncertain = (ratio[:, None] * learned.residual_scale) ** 2
    np.testing.assert_allclose((drawn**2).mean(axis=0), (added**2 + uncertain).mean(axis=0), rtol=0.03)
    mean, part = added.mean(axis=0), np.sqrt(1 - SMOOTHING**2)
    np.testing.assert_allclose(drawn.mean(axis=0), part * mean, atol=0.01)
    if spread == 0:
        # Gaussian noise has no skewness, but there is more of it about some residuals than about others.
        third = (part**3 * (added - mean) ** 3 + 3 * part * (added - mean) * uncertain).mean(axis=0)
        np.testing.assert_allclose(((drawn - part * mean) ** 3).mean(axis=0), third, atol=0.03)


def test_residuals_are_as_uncertain_as_responses(responses, kernel, learned):
    """In the same units: of a response known exactly, none; twice the standard deviation, twice as uncertain."""
    response, scale = responses
    exact = learn_unseen(response, 0 * scale, kernel, WEIGHT, learned.origin, ONE)
    assert (exact.residual_scale == 0).all()
    _, variance = leave_one_out(
        learned.share, *kernel, (response - learned.origin) / learned.length[:, None] / learned.size - learned.center
    )
    expected = scale / learned.size / (learned.strength[:, None] * np.sqrt(variance))
    np.testing.assert_allclose(learned.residual_scale, expected)
    drawn = learned._replace(residual=0 * learned.residual, mean=np.zeros(3), ratio=np.ones(40)).draw(
        np.random.default_rng(0), np.zeros(3), np.ones(3), 1.0, 40 * 2000
    )
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt((expected**2).mean(axis=0)), rtol=0.02)


def test_what_all_share_has_the_strength_of_the_perturbation(learned):
    """Draws are on a line, from the origin along the mean of all, as far as ratios are."""
    learned = learned._replace(residual=np.zeros((40, 3)), residual_scale=np.zeros((40, 3)))
    drawn = learned.draw(np.random.default_rng(0), np.zeros(3), np.ones(3), 2.0, 40)
    expected = learned.origin + 2 * np.sort(learned.ratio)[:, None] * learned.size * learned.mean
    np.testing.assert_allclose(drawn[np.argsort((drawn - learned.origin) @ learned.mean)], expected)


def test_null_response_by_brute_force():
    rng = np.random.default_rng(2)
    control = rng.dirichlet(np.ones(6), (2, 5))
    common, loading = rng.normal(size=(2, 5, 6)), rng.normal(size=(3, 5, 6))

    def loss(response):
        shift = common + np.tensordot(response, loading, axes=1)
        mean = (control * shift).sum(axis=-1)
        variance = (control * shift**2).sum(axis=-1) - mean**2
        return 50 * variance.sum() / len(common) + response @ response

    best = minimize(loss, np.zeros(3), tol=1e-12).x
    np.testing.assert_allclose(null_response(common, loading, control, 50), best, atol=1e-5)


def test_null_response_undoes_a_common_shift_in_the_span():
    """With any constant added to a gene's bins, which shifts nothing."""
    rng = np.random.default_rng(5)
    loading, control = rng.normal(size=(2, 7, 4)), rng.dirichlet(np.ones(4), (1, 7))
    common = np.tensordot([0.7, -1.2], loading, axes=1)[None] + rng.normal(size=(1, 7, 1))
    np.testing.assert_allclose(null_response(common, loading, control, 10**9), [-0.7, 1.2], rtol=1e-6)


def test_nothing_in_common_has_the_null_response_zero():
    rng = np.random.default_rng(6)
    loading, control = rng.normal(size=(2, 7, 4)), rng.dirichlet(np.ones(4), (1, 7))
    np.testing.assert_array_equal(null_response(np.zeros((1, 7, 4)), loading, control, 100), 0)
