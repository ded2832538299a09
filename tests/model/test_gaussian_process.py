"""The diagonalized Gaussian process against covariance matrices written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from numpyro.distributions import kl_divergence
from scipy import stats
from scipy.optimize import minimize_scalar

from distpert.model.gaussian_process import (
    KernelNormal,
    explained_variance,
    leave_one_out,
    leave_out,
    precision_between,
    predict_normal,
    remainder,
    solve,
)

SHARES = np.array([0.0, 0.3, 0.97])


def random_kernel(n, rng, dims=3):
    points = rng.normal(size=(n, dims))
    return np.exp(-np.linalg.norm(points[:, None] - points, axis=-1) / 2)


@pytest.fixture
def kernel():
    return random_kernel(6, np.random.default_rng(0))


@pytest.fixture
def prior(kernel):
    return KernelNormal(SHARES, *np.linalg.eigh(kernel))


def covariances(kernel):
    return [share * kernel + (1 - share) * np.eye(len(kernel)) for share in SHARES]


def test_log_prob(kernel, prior):
    values = np.random.default_rng(1).normal(size=(4, 3, 6))
    assert (prior.batch_shape, prior.event_shape) == ((3,), (6,))
    expected = [
        [stats.multivariate_normal.logpdf(x, cov=c) for x, c in zip(v, covariances(kernel), strict=True)]
        for v in values
    ]
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(values)), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(prior.log_prob)(jnp.asarray(values)), expected, rtol=1e-5)


def test_gradient_in_the_share(kernel):
    values, (eigenvalues, eigenvectors) = np.random.default_rng(1).normal(size=6), np.linalg.eigh(kernel)

    def log_prob(share):
        return KernelNormal(share, eigenvalues, eigenvectors).log_prob(jnp.asarray(values))

    def exact(share):
        return stats.multivariate_normal.logpdf(values, cov=share * kernel + (1 - share) * np.eye(6))

    np.testing.assert_allclose(jax.grad(log_prob)(0.4), (exact(0.401) - exact(0.399)) / 0.002, rtol=1e-3)


def test_expected_log_prob(kernel, prior):
    rng = np.random.default_rng(2)
    mean, variance = rng.normal(size=(3, 6)), rng.uniform(0.1, 2, (3, 6))
    expected = [
        stats.multivariate_normal.logpdf(m, cov=c) - 0.5 * np.trace(np.linalg.inv(c) @ np.diag(v))
        for m, v, c in zip(mean, variance, covariances(kernel), strict=True)
    ]
    np.testing.assert_allclose(prior.expected_log_prob(jnp.asarray(mean), jnp.asarray(variance)), expected, rtol=1e-5)


@pytest.mark.parametrize("extra", [0, 1])
def test_kl_divergence(kernel, prior, extra):
    """In closed form, for the family of the guide; also when the factors are part of the event."""
    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=(3, 6)), rng.uniform(0.2, 1.5, (3, 6))
    guide = dist.Normal(mean, scale).to_event(1 + extra)
    ours = kl_divergence(guide, prior.to_event(extra) if extra else prior)
    expected = [
        kl_divergence(
            dist.MultivariateNormal(jnp.array(m), jnp.diag(s**2)), dist.MultivariateNormal(jnp.zeros(6), jnp.array(c))
        )
        for m, s, c in zip(mean, scale, covariances(kernel), strict=True)
    ]
    np.testing.assert_allclose(ours, np.sum(expected) if extra else expected, rtol=1e-5)


def test_kl_divergence_from_itself_is_zero():
    prior = KernelNormal(0.7, np.ones(4), np.eye(4))
    assert abs(kl_divergence(dist.Normal(np.zeros(4), 1).to_event(1), prior)) < 1e-6


def test_sample_has_the_covariance(kernel, prior):
    n_draws = 20_000
    draws = np.asarray(prior.sample(jax.random.key(0), (n_draws,)), float)
    assert draws.shape == (n_draws, 3, 6)
    for k, covariance in enumerate(covariances(kernel)):
        error = draws[:, k].T @ draws[:, k] / n_draws - covariance
        noise = np.sqrt((covariance**2 + np.outer(covariance.diagonal(), covariance.diagonal())) / n_draws)
        assert (np.abs(error) < 4.5 * noise).all()


def test_is_a_pytree_and_validates(kernel, prior):
    value = jnp.ones((3, 6))
    np.testing.assert_allclose(jax.jit(lambda p, x: p.log_prob(x))(prior, value), prior.log_prob(value), rtol=1e-5)
    with pytest.raises(ValueError, match="invalid share"):
        KernelNormal(1.5, *np.linalg.eigh(kernel), validate_args=True)


def condition(share, kernel, n_train, mean, scale):
    """E and var of z* by brute force: z ~ Normal(mean, diag(scale^2)) put through the joint Gaussian's conditional."""
    joint = share * kernel + (1 - share) * np.eye(len(kernel))
    train, new = slice(None, n_train), slice(n_train, None)
    regression = joint[new, train] @ np.linalg.inv(joint[train, train])
    conditional = joint[new, new] - regression @ joint[train, new]
    return regression @ mean, np.sqrt(np.diag(conditional + regression @ np.diag(scale**2) @ regression.T))


def test_predict_normal():
    rng = np.random.default_rng(4)
    n_train, n_new = 7, 5
    kernel = random_kernel(n_train + n_new, rng)
    mean, scale = rng.normal(size=(n_train, 3)), rng.uniform(0, 1, (n_train, 3))
    eigen = np.linalg.eigh(kernel[:n_train, :n_train])
    ours = predict_normal(SHARES, *eigen, kernel[n_train:, :n_train], mean, scale)
    assert ours[0].shape == ours[1].shape == (n_new, 3)
    for k, share in enumerate(SHARES):
        expected = condition(share, kernel, n_train, mean[:, k], scale[:, k])
        np.testing.assert_allclose(ours[0][:, k], expected[0], atol=1e-10)
        np.testing.assert_allclose(ours[1][:, k], expected[1], rtol=1e-10)


def test_prediction_at_the_limits():
    rng = np.random.default_rng(5)
    kernel, mean, none = random_kernel(6, rng), rng.normal(size=(6, 1)), np.zeros((6, 1))
    eigen = np.linalg.eigh(kernel)
    # A perturbation whose embedding tells nothing has the prior.
    for share, cross in ((np.zeros(1), kernel), (np.full(1, 0.8), np.zeros_like(kernel))):
        predicted = predict_normal(share, *eigen, cross, mean, none)
        np.testing.assert_allclose(predicted, (none, none + 1), atol=1e-12)
    # All explained, and known without error: the twin of a training perturbation has its response.
    predicted = predict_normal(np.ones(1), *eigen, kernel, mean, none)
    np.testing.assert_allclose(predicted[0], mean, atol=1e-10)
    np.testing.assert_allclose(predicted[1], 0, atol=1e-6)


def without(share, kernel, mean, left_out):
    """Mean and variance of each point that is left out, from the rows that are not."""
    covariance = share * kernel + (1 - share) * np.eye(len(kernel))
    others = np.setdiff1d(np.arange(len(kernel)), left_out)
    weights = covariance[np.ix_(left_out, others)] @ np.linalg.inv(covariance[np.ix_(others, others)])
    variance = covariance[np.ix_(left_out, left_out)] - weights @ covariance[np.ix_(others, left_out)]
    return weights @ mean[others], np.diag(variance)


def test_leave_one_out():
    rng = np.random.default_rng(6)
    kernel, mean = random_kernel(7, rng), rng.normal(size=(7, 3))
    ours = leave_one_out(SHARES, *np.linalg.eigh(kernel), mean)
    for k, share in enumerate(SHARES):
        for p in range(7):
            expected = without(share, kernel, mean[:, k], [p])
            np.testing.assert_allclose(ours[0][p, k], expected[0][0], atol=1e-10)
            np.testing.assert_allclose(ours[1][p, k], expected[1][0], rtol=1e-10)


def test_leave_out():
    """Whole sets, in any order, against the Gaussian process of the rows that are left."""
    rng = np.random.default_rng(7)
    kernel, mean = random_kernel(8, rng), rng.normal(size=(8, 3))
    chosen, sets = [0, 5, 3, 2], [[0], [5, 1], [7, 3, 4], [0, 1, 2, 3, 4, 5, 6]]
    ours = leave_out(SHARES, *np.linalg.eigh(kernel), mean, chosen, sets)
    assert ours.shape == (4, 3)
    for k, share in enumerate(SHARES):
        for i, (point, left_out) in enumerate(zip(chosen, sets, strict=True)):
            expected = without(share, kernel, mean[:, k], left_out)[0][left_out.index(point)]
            np.testing.assert_allclose(ours[i, k], expected, atol=1e-9)


def test_leave_out_of_one_is_leave_one_out():
    rng = np.random.default_rng(8)
    eigen, mean = np.linalg.eigh(random_kernel(6, rng)), rng.normal(size=(6, 3))
    ours = leave_out(SHARES, *eigen, mean, range(6), [[p] for p in range(6)])
    np.testing.assert_allclose(ours, leave_one_out(SHARES, *eigen, mean)[0], atol=1e-10)


def greatest(z, covariance):
    """Greatest log density of z ~ Normal(0, a C) over the amplitude a."""

    def loss(log_amplitude):
        return -stats.multivariate_normal.logpdf(z, cov=np.exp(log_amplitude) * covariance)

    return -minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-7}).fun


def brute_force(z, matrix):
    grid = np.linspace(0.01, 0.99, 50)
    evidence = [greatest(z, rho * matrix + (1 - rho) * np.eye(len(z))) for rho in grid]
    return grid[np.argmax(evidence)], max(evidence)


def test_explained_variance_by_brute_force():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(25, 2))
    matrix = np.exp(-np.linalg.norm(points[:, None] - points, axis=-1))
    shares = [0.05, 0.5, 0.9]
    response = np.stack(
        [np.linalg.cholesky(rho * matrix + (1 - rho) * np.eye(25)) @ rng.normal(size=25) for rho in shares], axis=1
    )
    response *= [1.0, 0.3, 2.0]
    share, evidence = explained_variance(response, *np.linalg.eigh(matrix))
    expected = [brute_force(z, matrix) for z in response.T]
    np.testing.assert_allclose(share, [e[0] for e in expected])
    constant = 0.5 * response.size * (1 + np.log(2 * np.pi))
    np.testing.assert_allclose(evidence - constant, sum(e[1] for e in expected), rtol=1e-10)


def test_explained_share_does_not_depend_on_units():
    rng = np.random.default_rng(9)
    eigen, response = np.linalg.eigh(random_kernel(20, rng)), rng.normal(size=(20, 3))
    share, evidence = explained_variance(response, *eigen)
    other, lower = explained_variance(7 * response, *eigen)
    np.testing.assert_array_equal(other, share)
    assert evidence - lower == pytest.approx(60 * np.log(7))


def test_explained_share_follows_the_truth():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200, 2))
    matrix = np.exp(-np.linalg.norm(points[:, None] - points, axis=-1) / 2)
    chol = np.linalg.cholesky(matrix)
    share = [
        explained_variance(
            np.sqrt(rho) * chol @ rng.normal(size=(200, 20)) + np.sqrt(1 - rho) * rng.normal(size=(200, 20)),
            *np.linalg.eigh(matrix),
        )[0].mean()
        for rho in (0.1, 0.5, 0.9)
    ]
    np.testing.assert_allclose(share, (0.1, 0.5, 0.9), atol=0.1)


@pytest.fixture(scope="module")
def truncated():
    """Leading eigenvectors of a kernel, and all of the kernel that they stand for."""
    rng = np.random.default_rng(20)
    kernel = random_kernel(9, rng)
    np.fill_diagonal(kernel, 1)
    eigenvalues, eigenvectors = np.linalg.eigh(kernel)
    leading = eigenvalues[-4:], eigenvectors[:, -4:]
    rest = (9 - leading[0].sum()) / 5
    whole = leading[1] * leading[0] @ leading[1].T + rest * (np.eye(9) - leading[1] @ leading[1].T)
    return leading, np.linalg.eigh(whole), whole


def test_remainder_keeps_the_trace(truncated):
    (eigenvalues, _), (of_whole, _), whole = truncated
    assert np.trace(whole) == pytest.approx(9)
    assert of_whole.sum() == pytest.approx(eigenvalues.sum() + 5 * remainder(eigenvalues, 9))
    assert remainder(of_whole, 9) == 1
    assert remainder(np.array([9.5]), 9) == 0


def test_leading_eigenvectors_stand_for_a_whole_kernel(truncated):
    """Every formula gives what it gives for the kernel itself."""
    leading, whole, _ = truncated
    rng = np.random.default_rng(21)
    mean, scale, cross = rng.normal(size=(9, 3)), rng.uniform(0, 1, (9, 3)), rng.uniform(0, 1, (4, 9))
    both = [leading, whole]
    for one, other in (
        [predict_normal(SHARES, *eigen, cross, mean, scale) for eigen in both],
        [leave_one_out(SHARES, *eigen, mean) for eigen in both],
        [explained_variance(mean, *eigen) for eigen in both],
        [(leave_out(SHARES, *eigen, mean, [0, 3], [[0, 2], [3]]),) for eigen in both],
        [(solve(0.7, *eigen, mean),) for eigen in both],
        [(precision_between(0.7, *eigen, [1, 3], range(9)),) for eigen in both],
    ):
        for ours, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-10)


def test_density_of_leading_eigenvectors(truncated):
    leading, whole, matrix = truncated
    rng = np.random.default_rng(22)
    mean, variance = jnp.asarray(rng.normal(size=(3, 9))), jnp.asarray(rng.uniform(0.1, 1, (3, 9)))
    ours, expected = (
        KernelNormal(SHARES, *eigen, remainder(eigen[0], 9)).expected_log_prob(mean, variance)
        for eigen in (leading, whole)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    prior = KernelNormal(SHARES, *leading, remainder(leading[0], 9))
    draws = np.asarray(prior.sample(jax.random.key(0), (20_000,)), float)
    for k, share in enumerate(SHARES):
        covariance = share * matrix + (1 - share) * np.eye(9)
        assert np.abs(draws[:, k].T @ draws[:, k] / 20_000 - covariance).max() < 0.06
