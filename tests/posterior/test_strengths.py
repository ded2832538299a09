"""How strongly perturbations respond beyond what their embeddings tell."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal, norm

from distpert.model.gaussian_process import explained_variance
from distpert.posterior.strengths import (
    SHRINK_LABELS,
    SLOPE_SCALE,
    TEMPER,
    damped,
    expected_strengths,
    left_out_slope,
    left_out_strengths,
    tempering,
)

ONE = np.ones(40, int)  # all single genes


@pytest.fixture(scope="module")
def relatives():
    """Strengths that follow a smooth function of the embedding in part, with the kernels."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(60, 2))
    kernel = np.exp(-((points[:, None] - points) ** 2).sum(axis=-1))
    truth = np.exp(multivariate_normal(cov=0.5 * kernel + 0.1 * np.eye(60)).rvs(random_state=2))
    return truth[:40], kernel[:40, :40], kernel[40:, :40], truth[40:]


@pytest.fixture(scope="module")
def told():
    """What others tell of 40 responses in 3 factors, with weights of the factors."""
    rng = np.random.default_rng(3)
    response, mean = rng.normal(size=(2, 40, 3))
    variance, scale = rng.uniform(0.2, 1, (2, 40, 3))
    return response, 0.3 * scale, 0.5 * mean, variance, np.array([0.6, 0.3, 0.1])


def test_tempering_by_hand():
    response = np.array([[3.0, 0.0], [0.0, 4.0], [1.0, 2.0]])
    length = np.array([0.75 * 9, 0.25 * 16, 0.75 + 0.25 * 4]) ** (TEMPER / 2)
    np.testing.assert_allclose(tempering(response, np.array([0.75, 0.25])), length / np.cbrt(length.prod()))


def test_a_response_of_zero_stays():
    length = tempering(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([0.5, 0.5]))
    assert np.isfinite(length).all()
    assert (length > 0).all()


def test_slope_is_a_regression_with_a_prior(told):
    """Least squares with the prior as one more observation, of all factors' worth where the weights are equal."""
    response, _, mean, variance, _ = told
    x = np.append((mean / np.sqrt(variance)).ravel(), 1 / SLOPE_SCALE)
    y = np.append((response / np.sqrt(variance)).ravel(), 1 / SLOPE_SCALE)
    expected = np.linalg.lstsq(x[:, None], y)[0][0]
    assert left_out_slope(response, mean, variance, np.full(3, 1 / 3)) == pytest.approx(expected)


def test_slope_where_nothing_is_told(told):
    response, _, _, variance, weight = told
    assert left_out_slope(response, np.zeros((40, 3)), variance, weight) == 1


def test_slope_of_many():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(5000, 2))
    response = 1.4 * mean + rng.normal(size=mean.shape)
    assert left_out_slope(response, mean, np.ones_like(mean), np.array([0.7, 0.3])) == pytest.approx(1.4, abs=0.03)


def test_strengths_have_the_greatest_likelihood(told):
    response, scale, mean, variance, weight = told
    strengths = left_out_strengths(response, scale, mean, variance, weight)
    for p in (0, 11, 39):
        sd = np.sqrt(variance[p])

        def loss(log_s, p=p, sd=sd):
            s = np.exp(log_s)
            # E log Normal(z | s m, s² v) for z ~ Normal(response, scale²)
            expected = norm(s * mean[p], s * sd).logpdf(response[p]) - scale[p] ** 2 / (2 * (s * sd) ** 2)
            return -weight @ expected

        best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
        assert strengths[p] == pytest.approx(np.exp(best.x), rel=1e-5)


def test_strengths_are_found_again():
    """Responses of known strengths in many factors."""
    rng = np.random.default_rng(1)
    truth = np.exp(rng.normal(0, 0.5, 4000))
    mean, variance = rng.normal(size=(4000, 300)), rng.uniform(0.5, 1, (4000, 300))
    response = truth[:, None] * (mean + np.sqrt(variance) * rng.normal(size=mean.shape))
    found = left_out_strengths(response, np.zeros_like(mean), mean, variance, np.full(300, 1 / 300))
    assert np.corrcoef(np.log(found), np.log(truth))[0, 1] > 0.99
    assert np.mean(found / truth) == pytest.approx(1, abs=0.005)


def test_expected_strengths_are_those_of_the_conditional_normal(relatives):
    strengths, kernel, cross, _ = relatives
    values, vectors = np.linalg.eigh(kernel)
    left_out, new = expected_strengths(strengths, values, vectors, cross, ONE, ONE[: len(cross)])
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
    left_out, new = expected_strengths(strengths, *np.linalg.eigh(kernel), cross, ONE, ONE[: len(cross)])
    assert np.corrcoef(np.log(left_out), np.log(strengths))[0, 1] > 0.4
    assert np.corrcoef(np.log(new), np.log(truth))[0, 1] > 0.4


def test_far_from_all_it_is_that_of_any(relatives):
    strengths, kernel, _, _ = relatives
    _, new = expected_strengths(strengths, *np.linalg.eigh(kernel), np.zeros((2, 40)), ONE, ONE[:2])
    np.testing.assert_allclose(new, np.exp(np.log(strengths).mean()))


def test_equal_strengths_stay():
    numbers = np.array([1, 1, 2, 1])
    eigen = np.linalg.eigh(np.eye(4))
    left_out, new = expected_strengths(np.full(4, 1.5), *eigen, np.zeros((3, 4)), numbers, numbers[1:])
    np.testing.assert_allclose(left_out, 1.5)
    np.testing.assert_allclose(new, 1.5)


def test_pairs_are_expected_to_do_as_pairs_do(relatives):
    strengths, kernel, *_ = relatives
    numbers = np.repeat([1, 2], [25, 15])
    stronger = strengths * np.where(numbers == 2, 3.0, 1.0)
    options = {"n_genes": numbers, "new_n_genes": np.array([1, 2, 3])}
    _, far = expected_strengths(stronger, *np.linalg.eigh(kernel), np.zeros((3, 40)), **options)
    logs = np.log(stronger)
    groups = [logs[numbers == n] for n in (1, 2)]
    shrunk = [(of.sum() + SHRINK_LABELS * logs.mean()) / (len(of) + SHRINK_LABELS) for of in groups]
    np.testing.assert_allclose(np.log(far), [*shrunk, logs.mean()])  # of triples nothing is known but the mean of all
    assert far[1] > 1.5 * far[0]


def test_damped_ratios_have_the_same_mean_and_vary_half_as_much():
    ratio = np.exp(0.5 * np.random.default_rng(0).normal(size=200))
    less = damped(ratio)
    assert less.mean() == pytest.approx(ratio.mean())
    assert np.log(less).std() == pytest.approx(np.log(ratio).std() / 2)
    assert (np.argsort(less) == np.argsort(ratio)).all()
    np.testing.assert_allclose(damped(np.full(3, 1.7)), 1.7)
