"""How strongly perturbations respond beyond what their embeddings tell."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from distpert.strengths import expected_strengths, left_out_strengths
from distpert.warm_start import explained_variance


@pytest.fixture(scope="module")
def relatives():
    """Strengths that follow a smooth function of the embedding in part, with the kernels."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(60, 2))
    kernel = np.exp(-((points[:, None] - points) ** 2).sum(axis=-1))
    truth = np.exp(multivariate_normal(cov=0.5 * kernel + 0.1 * np.eye(60)).rvs(random_state=2))
    return truth[:40], kernel[:40, :40], kernel[40:, :40], truth[40:]


def test_left_out_strengths_by_hand():
    error, variance = np.array([[4.0, 1.0], [1.0, 9.0], [0.0, 2.0], [1.0, 1.0]]), np.full((4, 2), [1.0, 0.5])
    expected = [np.sqrt(2 * (0.75 * e[0] + 0.25 * e[1] / 0.5)) for e in error]  # 2 factors of 4 perturbations
    np.testing.assert_allclose(left_out_strengths(error, variance, np.array([0.75, 0.25])), expected)


def test_expected_strengths_are_those_of_the_conditional_normal(relatives):
    strengths, kernel, cross, _ = relatives
    values, vectors = np.linalg.eigh(kernel)
    left_out, new = expected_strengths(strengths, values, vectors, cross)
    logs = np.log(strengths)
    z = (logs - logs.mean()) / logs.std()
    share = float(explained_variance(z[:, None], values, vectors)[0][0])
    covariance = share * kernel + (1 - share) * np.eye(40)
    told = share * cross @ np.linalg.solve(covariance, z)
    np.testing.assert_allclose(np.log(new), logs.mean() + logs.std() * told, rtol=1e-8)
    for p in (0, 17, 39):
        others = np.arange(40) != p
        told = covariance[p, others] @ np.linalg.solve(covariance[np.ix_(others, others)], z[others])
        np.testing.assert_allclose(np.log(left_out[p]), logs.mean() + logs.std() * told, rtol=1e-8)


def test_relatives_tell_strength(relatives):
    strengths, kernel, cross, truth = relatives
    left_out, new = expected_strengths(strengths, *np.linalg.eigh(kernel), cross)
    assert np.corrcoef(np.log(left_out), np.log(strengths))[0, 1] > 0.4
    assert np.corrcoef(np.log(new), np.log(truth))[0, 1] > 0.4


def test_far_from_all_it_is_that_of_any(relatives):
    strengths, kernel, _, _ = relatives
    _, new = expected_strengths(strengths, *np.linalg.eigh(kernel), np.zeros((2, 40)))
    np.testing.assert_allclose(new, np.exp(np.log(strengths).mean()))


def test_equal_strengths_stay():
    left_out, new = expected_strengths(np.full(4, 1.5), *np.linalg.eigh(np.eye(4)), np.zeros((3, 4)))
    assert left_out.tolist() == [1.5] * 4
    assert new.tolist() == [1.5] * 3
