"""Sums of two floats, against exact fractions. Compiled too: a compiler that reorders sums loses what they are for."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from distpert._float_pairs import exp_pair, residual_counts, two_product, two_sum

MODES = {"eager": lambda f: f, "compiled": jax.jit}
normal_floats = st.floats(2.0**-20, 2.0**20, width=32) | st.floats(-(2.0**20), -(2.0**-20), width=32) | st.just(0.0)
vectors = st.lists(st.tuples(normal_floats, normal_floats), min_size=16, max_size=16)


def fractions(high, low):
    return [Fraction(float(h)) + Fraction(float(x)) for h, x in zip(high, low, strict=True)]


@pytest.mark.parametrize("mode", MODES)
def test_sum_and_product_are_exact(mode):
    add, multiply = MODES[mode](two_sum), MODES[mode](two_product)
    square = MODES[mode](lambda a: two_product(a, a))

    @settings(max_examples=40, deadline=None)
    @given(vectors)
    def check(pairs):
        a, b = np.array(pairs, np.float32).T
        left, right = [Fraction(float(x)) for x in a], [Fraction(float(x)) for x in b]
        assert fractions(*add(a, b)) == [x + y for x, y in zip(left, right, strict=True)]
        assert fractions(*multiply(a, b)) == [x * y for x, y in zip(left, right, strict=True)]
        assert fractions(*square(a)) == [x * x for x in left]

    check()


@pytest.mark.parametrize("mode", MODES)
def test_exp_pair(mode):
    rng = np.random.default_rng(0)
    high = -np.concatenate([10.0 ** rng.uniform(-7, np.log10(80), 500), rng.uniform(0, 5, 500), [0, 80]])
    high = high.astype(np.float32)
    low = (high * rng.uniform(-3e-8, 3e-8, high.size)).astype(np.float32)
    total, error = MODES[mode](exp_pair)(high, low)
    with mpmath.workdps(30):
        exact = [mpmath.exp(mpmath.mpf(float(h)) + mpmath.mpf(float(x))) for h, x in zip(high, low, strict=True)]
        ours = [mpmath.mpf(float(t)) + mpmath.mpf(float(e)) for t, e in zip(total, error, strict=True)]
        relative = np.array([float(abs(x - e) / e) for x, e in zip(ours, exact, strict=True)])
    assert (relative < np.where(high > -65, 3e-9, 3e-7)).all()


def exact_residuals(logits, counts):
    with mpmath.workdps(30):
        weights = [mpmath.exp(mpmath.mpf(float(x))) for x in logits]
        return np.array(
            [float(int(n) - int(counts.sum()) * w / sum(weights)) for n, w in zip(counts, weights, strict=True)]
        )


@pytest.mark.parametrize("mode", MODES)
def test_residual_counts(mode):
    residuals = MODES[mode](residual_counts)
    rng = np.random.default_rng(0)
    for _ in range(100 if mode == "compiled" else 20):
        logits = (rng.normal(size=15) * rng.choice([0.3, 1, 3, 8]) + rng.choice([0, 40])).astype(np.float32)
        n_cells = int(10 ** rng.uniform(0, 6))
        counts = rng.multinomial(n_cells, softmax(logits.astype(float)))
        exact = exact_residuals(logits, counts)
        ours = residuals(logits, counts.astype(np.float32))
        np.testing.assert_allclose(ours, exact, rtol=3e-7, atol=6e-9 * n_cells)


def test_residual_counts_at_the_limit_of_whole_numbers():
    counts = np.array([2**24 - 1, 0, 0], np.float32)
    logits = np.array([0.0, -12.0, -85.0], np.float32)
    np.testing.assert_allclose(
        jax.jit(residual_counts)(logits, counts), exact_residuals(logits, counts), rtol=1e-6, atol=0.1
    )


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 4), (2, 1, 5)])
def test_shapes(shape):
    logits = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    counts = jnp.ones(shape)
    expected = counts - counts.sum(-1, keepdims=True) * jax.nn.softmax(logits)
    np.testing.assert_allclose(jax.jit(residual_counts)(logits, counts), expected, atol=1e-5)


@pytest.mark.parametrize("logits", [[0.5, -2.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0], [30.0, 0.0, -40.0, 29.0]])
def test_derivative_is_that_of_the_softmax(logits):
    logits, counts = jnp.array(logits), jnp.array([3.0, 0.0, 40.0, 7.0])
    jacobian = jax.jit(jax.jacobian(residual_counts))(logits, counts)
    probs = softmax(np.asarray(logits, float))
    np.testing.assert_allclose(jacobian, -50 * (np.diag(probs) - np.outer(probs, probs)), atol=1e-4)
    by_counts = jax.jit(jax.jacobian(residual_counts, 1))(logits, counts)
    np.testing.assert_allclose(by_counts, np.eye(4) - probs[:, None], atol=1e-6)
