"""The likelihood in single precision against 40 digits, and the distribution against scipy and its closed forms.

The reference is mpmath: at a concentration of 1e8, float64 differences of log-gammas are off by 1e-6 themselves, too
near the 1e-5 that are asked for. Gradients are asked to be right to well below the standard deviation that the sampling
of cells gives them.
"""

from itertools import product

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import numpyro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma, gammaln, log_softmax, polygamma, softmax

from distpert.model.likelihood import (
    Categorical,
    DirichletCategorical,
    accurate_log_softmax,
    dirichlet_categorical_log_prob,
    log_multinomial_coefficient,
    scaled_digamma_remainder,
    stirling_remainder,
)

N_BINS = 15
WAYS = ("multinomial", "dirichlet-multinomial", "unrelated", "one bin", "empty bins", "least likely bin")


def reference(logits, log_concentration, counts):
    """Value, gradients in logits and log concentration, sum_b n_b |log pi_b|, and sqrt(N pi (1 - pi)), in 40 digits."""
    with mpmath.workdps(40):
        weights = [mpmath.exp(mpmath.mpf(float(x))) for x in logits]
        probs = [w / sum(weights) for w in weights]
        counts = [int(n) for n in counts]
        kappa, n_cells = mpmath.exp(mpmath.mpf(float(log_concentration))), sum(counts)
        a = [kappa * p for p in probs]
        value = sum(mpmath.loggamma(x + n) - mpmath.loggamma(x) for x, n in zip(a, counts, strict=True))
        value -= mpmath.loggamma(kappa + n_cells) - mpmath.loggamma(kappa)
        slope = [mpmath.digamma(x + n) - mpmath.digamma(x) for x, n in zip(a, counts, strict=True)]
        mean_slope = sum(p * s for p, s in zip(probs, slope, strict=True))
        in_logits = [x * (s - mean_slope) for x, s in zip(a, slope, strict=True)]
        in_concentration = kappa * (mean_slope - mpmath.digamma(kappa + n_cells) + mpmath.digamma(kappa))
        size = sum(n * abs(mpmath.log(p)) for n, p in zip(counts, probs, strict=True))
        spread = [mpmath.sqrt(n_cells * p * (1 - p)) for p in probs]
        return float(value), np.array(in_logits, float), float(in_concentration), float(size), np.array(spread, float)


def draw_counts(rng, way, n_cells, kappa, probs):
    if way == "multinomial":
        return rng.multinomial(n_cells, probs)
    if way == "dirichlet-multinomial":
        return rng.multinomial(n_cells, rng.dirichlet(np.maximum(kappa * probs, 1e-3)))
    if way == "unrelated":
        return rng.multinomial(n_cells, rng.dirichlet(np.full(N_BINS, 0.3)))
    if way == "empty bins":
        return rng.multinomial(n_cells, np.where(np.arange(N_BINS) < 4, 0.25, 0))
    chosen = probs.argmax() if way == "one bin" else probs.argmin()
    return n_cells * (np.arange(N_BINS) == chosen)


def random_cases(n_cases, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n_cases):
        n_cells, kappa = int(10 ** rng.uniform(0, 5)), 10 ** rng.uniform(-3, 8)
        logits = (rng.normal(size=N_BINS) * rng.choice([0.3, 1, 3, 8])).astype(np.float32)
        way = WAYS[i % len(WAYS)]
        counts = draw_counts(rng, way, n_cells, kappa, softmax(logits.astype(float)))
        yield logits, np.float32(np.log(kappa)), counts, way


coefficient = jax.jit(log_multinomial_coefficient)
log_prob = jax.jit(dirichlet_categorical_log_prob)  # op by op, each shape would compile a hundred times


@jax.jit
def value_and_gradients(logits, log_concentration, counts):
    return jax.value_and_grad(dirichlet_categorical_log_prob, (0, 1))(logits, log_concentration, counts)


def assert_logit_gradients(found, exact, spread, case=""):
    """Within a ten-thousandth of the standard deviation of sampled counts, and of a gradient far beyond it 1e-5."""
    error = np.abs(np.asarray(found, float) - exact)
    assert (error <= 1e-4 * spread + 1e-5 * np.abs(exact)).all(), case


def test_single_precision_against_forty_digits():
    for logits, log_concentration, counts, way in random_cases(720):
        value, (in_logits, in_concentration) = value_and_gradients(logits, log_concentration, counts)
        assert value.dtype == in_logits.dtype == in_concentration.dtype == np.float32
        exact, exact_logits, exact_concentration, size, spread = reference(logits, log_concentration, counts)
        case = f"{way}, {counts.sum()} cells, log kappa {log_concentration}"
        np.testing.assert_allclose(value, exact, rtol=0, atol=1e-5 * max(1, size), err_msg=case)
        assert_logit_gradients(in_logits, exact_logits, spread, case)
        error = abs(float(in_concentration) - exact_concentration)
        assert error <= 1e-4 * max(1, abs(exact_concentration)), case


@pytest.mark.parametrize("rest", [1e-6, 1e-3, 0.1, 0.6])
@pytest.mark.parametrize("log_concentration", [-3.0, 8.0, 18.4])
def test_gradients_of_very_many_cells(rest, log_concentration):
    """Counts near N π, where a residual is the difference of two large numbers; also with π near one."""
    n_cells, rng = 100_000, np.random.default_rng(7)
    logits = np.append(0.0, np.log(rest / (1 - rest)) + np.log(rng.dirichlet(np.ones(4)))).astype(np.float32)
    for _ in range(5):
        counts = rng.multinomial(n_cells, softmax(logits.astype(float)))
        _, (in_logits, in_concentration) = value_and_gradients(logits, np.float32(log_concentration), counts)
        _, exact_logits, exact_concentration, _, spread = reference(logits, np.float32(log_concentration), counts)
        assert_logit_gradients(in_logits, exact_logits, spread)
        assert abs(float(in_concentration) - exact_concentration) <= 1e-4 * max(1, abs(exact_concentration))


def test_cases_cover_what_is_claimed():
    cases = list(random_cases(720))
    n_cells, kappa = np.array([c[2].sum() for c in cases]), np.exp([c[1] for c in cases])
    assert n_cells.min() == 1 and n_cells.max() > 9e4
    assert kappa.min() < 2e-3 and kappa.max() > 9e7


@pytest.mark.parametrize("n_bins", [1, 2, 40])
def test_any_number_of_bins(n_bins):
    logits = np.linspace(-1, 2, n_bins, dtype=np.float32)
    counts = np.arange(n_bins) + 3
    value, (in_logits, in_concentration) = value_and_gradients(logits, np.float32(1.5), counts)
    exact, exact_logits, exact_concentration, size, spread = reference(logits, np.float32(1.5), counts)
    np.testing.assert_allclose(value, exact, rtol=0, atol=1e-5 * max(1, size))
    assert_logit_gradients(in_logits, exact_logits, spread + 1e-3)  # with one bin there is neither gradient nor spread
    np.testing.assert_allclose(in_concentration, exact_concentration, rtol=1e-4, atol=1e-4)


def test_no_cells_tell_nothing():
    value, gradients = value_and_gradients(np.arange(5, dtype=np.float32), np.float32(2), np.zeros(5, np.float32))
    for x in (value, *gradients):
        np.testing.assert_allclose(x, 0, atol=1e-6)


def test_logits_matter_up_to_a_constant():
    logits, log_concentration, counts, _ = next(random_cases(1, seed=5))
    logits = np.round(logits * 64) / 64  # so that adding 16 is exact
    np.testing.assert_allclose(
        log_prob(logits, log_concentration, counts),
        log_prob(logits + 16, log_concentration, counts),
        rtol=1e-6,
    )


@pytest.mark.parametrize("log_concentration", [-7.0, 0.0, 6.0, 18.4])
@pytest.mark.parametrize("gap", [30.0, 80.0, 200.0, 1000.0])
def test_a_bin_that_is_all_but_impossible(log_concentration, gap):
    logits = jnp.array([0.0, 1.0, -gap])
    counts = jnp.array([3.0, 4.0, 5.0])
    value, gradients = value_and_gradients(logits, jnp.float32(log_concentration), counts)
    assert all(np.isfinite(x).all() for x in (value, *gradients))
    nearer, _ = value_and_gradients(logits.at[2].set(-gap + 1), jnp.float32(log_concentration), counts)
    assert nearer > value
    assert gradients[0][2] > 0.9  # its slope still shows the way back


@pytest.mark.parametrize("n_cells", [10, 100_000])
def test_a_large_concentration_gives_the_categorical(n_cells):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=N_BINS).astype(np.float32)
    counts = rng.multinomial(n_cells, softmax(logits.astype(float)))
    value, (in_logits, in_concentration) = value_and_gradients(logits, np.float32(np.log(1e12)), counts)
    log_probs = log_softmax(logits.astype(float))
    np.testing.assert_allclose(value, counts @ log_probs, rtol=1e-6)
    np.testing.assert_allclose(in_logits, counts - n_cells * np.exp(log_probs), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(in_concentration, 0, atol=1e-2)


def test_a_bin_of_probability_near_one():
    # Of 1e5 cells all are where 1 - pi = 1e-6: the sum is -0.1, which a plain softmax rounds to 0 or doubles.
    logits = np.array([0.0, np.log(1e-6)], np.float32)
    value = log_prob(logits, np.float32(np.log(1e8)), np.array([100_000, 0]))
    np.testing.assert_allclose(value, reference(logits, np.log(1e8), [100_000, 0])[0], rtol=1e-4)


def test_broadcasting():
    rng = np.random.default_rng(1)
    logits, log_concentration = rng.normal(size=(4, 1, 6)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    counts = rng.integers(0, 9, (4, 3, 6))
    values = log_prob(logits, log_concentration, counts)
    assert values.shape == (4, 3)
    for i, j in product(range(4), range(3)):
        alone = log_prob(logits[i, 0], log_concentration[j], counts[i, j])
        np.testing.assert_allclose(values[i, j], alone, rtol=1e-6)

    def total(logits, log_concentration):
        return log_prob(logits, log_concentration, counts).sum()

    in_logits, in_concentration = jax.grad(total, (0, 1))(logits, log_concentration)
    singles = [
        [value_and_gradients(logits[i, 0], log_concentration[j], counts[i, j])[1] for j in range(3)] for i in range(4)
    ]
    by_logits = np.array([[single[0] for single in row] for row in singles])
    by_concentration = np.array([[single[1] for single in row] for row in singles])
    np.testing.assert_allclose(in_logits, by_logits.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_concentration, by_concentration.sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64, np.float32, np.float64])
def test_counts_of_any_numeric_type(dtype):
    counts = np.array([3, 0, 200, 1])
    expected = log_prob(jnp.arange(4.0), 1.0, jnp.asarray(counts, jnp.float32))
    assert log_prob(jnp.arange(4.0), 1.0, counts.astype(dtype)) == expected


def test_vmap_and_forward_mode_agree():
    cases = [case[:3] for case in random_cases(8, seed=2)]
    batch = [np.stack(x) for x in zip(*cases, strict=True)]
    values = log_prob(*batch)
    np.testing.assert_allclose(jax.jit(jax.vmap(log_prob))(*batch), values, rtol=1e-5, atol=1e-5)
    counts = jnp.asarray(batch[2], jnp.float32)
    tangents = (jnp.ones_like(batch[0]) * jnp.arange(N_BINS), jnp.ones_like(batch[1]), jnp.zeros_like(counts))
    _, forward = jax.jvp(log_prob, (batch[0], batch[1], counts), tangents)
    in_logits, in_concentration = jax.jit(jax.vmap(jax.grad(log_prob, (0, 1))))(*batch)
    np.testing.assert_allclose(forward, (in_logits * tangents[0]).sum(-1) + in_concentration, rtol=1e-4, atol=1e-3)


@jax.jit
@jax.hessian
def hessian_of(x, counts):
    return dirichlet_categorical_log_prob(x[:-1], x[-1], counts)


def exact_hessian(logits, kappa, counts):
    """Of value(logits, log kappa) = sum_b [G(a_b + n_b) - G(a_b)] + const, by the chain rule."""
    probs, n_cells = softmax(logits), counts.sum()
    a = kappa * probs
    slope = digamma(a + counts) - digamma(a)
    curve = polygamma(1, a + counts) - polygamma(1, a)
    eye = np.eye(len(a))
    first = np.column_stack([a[:, None] * (eye - probs), a])  # d a_b / d (logits, log kappa)
    second = a[:, None, None] * np.einsum("bi,bj->bij", eye - probs, eye - probs)
    second -= a[:, None, None] * (np.diag(probs) - np.outer(probs, probs))
    whole = np.zeros((len(a), len(a) + 1, len(a) + 1))
    whole[:, :-1, :-1] = second
    whole[:, :-1, -1] = whole[:, -1, :-1] = first[:, :-1]
    whole[:, -1, -1] = a
    hessian = first.T @ (curve[:, None] * first) + np.einsum("b,bij->ij", slope, whole)
    total_slope = digamma(kappa + n_cells) - digamma(kappa)
    total_curve = polygamma(1, kappa + n_cells) - polygamma(1, kappa)
    hessian[-1, -1] -= kappa * total_slope + kappa**2 * total_curve
    return hessian


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [0.05, 3.0, 400.0])
@pytest.mark.parametrize("logits", [[0.3, -1.0, 2.0, 0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -2.0, 0.0]])
def test_hessian(logits, kappa):
    counts = np.array([4.0, 0.0, 7.0, 30.0])
    point = jnp.array([*logits, np.log(kappa)], jnp.float32)
    hessian = hessian_of(point, counts)
    np.testing.assert_allclose(hessian, exact_hessian(np.array(logits), kappa, counts), rtol=2e-3, atol=2e-3)


def test_hessian_is_finite_everywhere():
    for logits, log_concentration, counts, way in random_cases(60, seed=3):
        assert np.isfinite(hessian_of(np.append(logits, log_concentration), counts.astype(np.float32))).all(), way


@pytest.mark.parametrize("logits", [[0.0, -1.0, 3.0], [0.0, 0.0, 0.0], [20.0, 0.0, -20.0], [5.0]])
def test_accurate_log_softmax(logits):
    logits = np.array(logits)
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    np.testing.assert_allclose(accurate_log_softmax(jnp.array(logits)), log_probs, rtol=1e-6)
    jacobian = jax.jacobian(accurate_log_softmax)(jnp.array(logits))
    np.testing.assert_allclose(jacobian, np.eye(len(logits)) - probs, atol=1e-6)


def test_remainders():
    x = np.concatenate([10.0 ** np.linspace(-6, 9, 400), [5.999, 6, 6.001]]).astype(np.float32)
    with mpmath.workdps(40):
        digits = [mpmath.mpf(float(v)) for v in x]
        half_log_2pi = mpmath.log(2 * mpmath.pi) / 2
        exact = [float(mpmath.loggamma(v) - (v - 0.5) * mpmath.log(v) + v - half_log_2pi) for v in digits]
        slope = np.array([float(mpmath.digamma(v) - mpmath.log(v)) for v in digits])
    np.testing.assert_allclose(jax.jit(stirling_remainder)(x), exact, rtol=1e-6, atol=2e-6)
    for share in (1e-3, 1.0):
        a = (share * x).astype(np.float32)
        np.testing.assert_allclose(jax.jit(scaled_digamma_remainder)(a, x), a * slope, rtol=5e-6)


@pytest.mark.parametrize("counts", [(99_999, 1), (1, 99_999), (50_000, 50_000), (0, 7), (0, 0), (1,), (3, 2, 0, 1)])
def test_multinomial_coefficient_in_single_precision(counts):
    with mpmath.workdps(40):
        exact = mpmath.loggamma(sum(counts) + 1) - sum(mpmath.loggamma(n + 1) for n in counts)
    np.testing.assert_allclose(coefficient(np.array(counts)), float(exact), rtol=2e-6, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100_000) | st.integers(0, 3), min_size=6, max_size=6))
def test_multinomial_coefficient(counts):
    exact = gammaln(sum(counts) + 1) - gammaln(np.array(counts) + 1).sum()
    np.testing.assert_allclose(coefficient(np.array(counts)), exact, rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("counts", [(99_999, 1), (3, 5), (0, 40), (700, 300)])
@pytest.mark.parametrize("kappa", [0.1, 10.0, 1e4])
def test_against_scipy(counts, kappa):
    logits, counts = np.array([1.0, -0.5]), np.array(counts)
    ours = log_prob(jnp.array(logits), np.log(kappa), counts)
    expected = stats.dirichlet_multinomial.logpmf(counts, kappa * softmax(logits), counts.sum())
    size = (counts * np.abs(log_softmax(logits))).sum()
    np.testing.assert_allclose(ours + coefficient(counts), expected, atol=1e-5 * max(1, size))


@pytest.mark.parametrize("kappa", [0.2, 5.0, 1e6])
@pytest.mark.parametrize(("n_cells", "n_bins"), [(1, 4), (6, 4), (12, 2)])
def test_probabilities_sum_to_one(n_cells, n_bins, kappa):
    counts = np.array([c for c in product(range(n_cells + 1), repeat=n_bins) if sum(c) == n_cells])
    logits = jnp.linspace(-1, 1, n_bins)
    log_probs = log_prob(logits, jnp.log(kappa), counts) + coefficient(counts)
    np.testing.assert_allclose(jnp.exp(log_probs).sum(), 1, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kappa", [0.5, 20.0, 1e5])
def test_sample_moments(kappa):
    n_draws, n_cells, logits = 20_000, 50, np.array([0.0, 1.0, -2.0])
    distribution = DirichletCategorical(jnp.array(logits), np.log(kappa), n_cells)
    draws = np.asarray(distribution.sample(jax.random.key(0), (n_draws,)), float)
    assert draws.shape == (n_draws, 3)
    assert (draws.sum(axis=-1) == n_cells).all()
    assert (draws == np.round(draws)).all() and (draws >= 0).all()
    probs = softmax(logits)
    variance = n_cells * probs * (1 - probs) * (n_cells + kappa) / (1 + kappa)
    np.testing.assert_allclose(distribution.mean, n_cells * probs, rtol=1e-5)
    assert (np.abs(draws.mean(axis=0) - n_cells * probs) < 4 * np.sqrt(variance / n_draws)).all()
    squares = (draws - n_cells * probs) ** 2
    assert (np.abs(squares.mean(axis=0) - variance) < 4 * squares.std(axis=0) / np.sqrt(n_draws)).all()


@jax.jit
def log_prob_of(distribution, counts):
    return distribution.log_prob(counts)


def test_shapes_of_the_distribution():
    distribution = DirichletCategorical(jnp.zeros((4, 1, 6)), jnp.zeros(3), jnp.array([[1], [2], [3], [0]]))
    assert distribution.batch_shape == (4, 3)
    assert distribution.event_shape == (6,)
    draws = distribution.sample(jax.random.key(0), (5,))
    assert draws.shape == (5, 4, 3, 6)
    assert (draws.sum(-1) == distribution.total_count).all()
    np.testing.assert_allclose(
        log_prob_of(distribution, draws), log_prob(jnp.zeros(6), 0.0, draws), rtol=1e-5, atol=1e-5
    )
    expanded = distribution.expand((2, 4, 3)).to_event(1)
    assert (expanded.batch_shape, expanded.event_shape) == ((2, 4), (3, 6))
    assert log_prob_of(expanded, draws[:2]).shape == (2, 4)


def test_distribution_is_a_pytree():
    distribution = DirichletCategorical(jnp.zeros((3, 4)), jnp.arange(3.0), 9)
    counts = jnp.array([[9, 0, 0, 0], [1, 2, 3, 3], [4, 5, 0, 0]])
    expected = log_prob(jnp.zeros((3, 4)), jnp.arange(3.0), counts)
    np.testing.assert_allclose(log_prob_of(distribution, counts), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(log_prob_of))(distribution, counts), expected, rtol=1e-5)


def test_support_and_validation():
    distribution = DirichletCategorical(jnp.zeros((2, 3)), jnp.zeros(2), jnp.array([4, 5]), validate_args=True)
    inside = jnp.array([[4, 0, 0], [1, 2, 2]])
    np.testing.assert_array_equal(distribution.support(inside), [True, True])
    np.testing.assert_array_equal(distribution.support(inside[::-1]), [False, False])
    np.testing.assert_array_equal(distribution.support(jnp.array([[5, -1, 0], [5, 0, 0]])), [False, True])
    assert np.isfinite(distribution.log_prob(inside)).all()
    with pytest.warns(UserWarning, match="Out-of-support"):
        distribution.log_prob(inside[::-1])
    for wrong in ({"total_count": -1}, {"log_concentration": jnp.nan}, {"logits": jnp.array([0.0, jnp.nan])}):
        with pytest.raises(ValueError, match=f"invalid {next(iter(wrong))}"):
            DirichletCategorical(
                **({"logits": jnp.zeros(2), "log_concentration": 0.0, "total_count": 3} | wrong), validate_args=True
            )


def test_in_a_numpyro_model():
    def story(counts):
        level = numpyro.sample("level", numpyro.distributions.Normal())
        with numpyro.plate("gene", 5):
            return numpyro.sample("counts", DirichletCategorical(level * jnp.arange(4.0), 2.0, 30), obs=counts)

    counts = jnp.asarray(np.random.default_rng(0).multinomial(30, np.full(4, 0.25), size=5))
    log_joint = jax.jit(lambda level: numpyro.infer.util.log_density(story, (counts,), {}, {"level": level})[0])(0.7)
    expected = log_prob(0.7 * jnp.arange(4.0), 2.0, counts).sum() + stats.norm.logpdf(0.7)
    np.testing.assert_allclose(log_joint, expected, rtol=1e-6)


def test_categorical_is_the_log_probability_of_cells_in_order():
    rng = np.random.default_rng(0)
    logits, counts = rng.normal(size=(4, 3, 5)), rng.integers(0, 40, (4, 3, 5))
    ours = jax.jit(lambda x, n: Categorical(x).log_prob(n))(logits, counts)
    expected = [[stats.multinomial.logpmf(n, n.sum(), softmax(x)) for x, n in zip(*row, strict=True)]
                for row in zip(logits, counts, strict=True)]  # fmt: skip
    arrangements = gammaln(counts.sum(axis=-1) + 1) - gammaln(counts + 1).sum(axis=-1)
    np.testing.assert_allclose(ours, expected - arrangements, rtol=1e-5)


def test_categorical_is_the_limit_of_a_great_concentration():
    logits, counts = jnp.array([0.3, -1.0, 2.0]), jnp.array([4.0, 0.0, 7.0])
    np.testing.assert_allclose(Categorical(logits).log_prob(counts), log_prob(logits, 18.0, counts), rtol=1e-5)


def test_categorical_in_a_model():
    distribution = Categorical(jnp.zeros((2, 3, 4)))
    assert (distribution.batch_shape, distribution.event_shape) == ((2, 3), (4,))
    assert distribution.to_event(2).log_prob(jnp.ones((2, 3, 4))) == pytest.approx(24 * np.log(1 / 4))
    # Far in the tail, the difference from one bin to all keeps its digits.
    assert Categorical(jnp.array([0.0, -80.0])).log_prob(jnp.array([5.0, 1.0])) == pytest.approx(-80)
