"""n_b - N pi_b to more digits than one float32 holds, by arithmetic on unevaluated sums of two floats.

The gradient of a categorical likelihood is a difference of numbers as large as the number of cells. With 1e5
cells a single-precision softmax leaves an error of 1e-2 in it. A number written as ``high + low`` has about 48
bits, and needs no 64-bit mode. The operations are the classical error-free transformations of Dekker (1971)
and Knuth; see Ogita, Rump & Oishi (2005), "Accurate sum and dot product", SIAM J. Sci. Comput. 26.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

# log 2 in two parts, the first short enough for its product with an exponent (|k| < 256) to be exact.
_LOG2_HIGH = 0.693145751953125
_LOG2_LOW = 1.42860677e-06
_SPLIT = 4097.0  # 2**12 + 1: cuts a 24-bit significand in two halves of 12


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Add: a + b as (rounded sum, exact error)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """Multiply: a * b as (rounded product, exact error)."""
    product = a * b
    a_high = _SPLIT * a - (_SPLIT * a - a)
    b_high = _SPLIT * b - (_SPLIT * b - b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def exp_pair(high: Array, low: Array) -> tuple[Array, Array]:
    """exp(high + low) for -80 <= high <= 0, relative error about 2e-9; 2e-7 below -65, where low underflows."""
    exponent = jnp.round(high / _LOG2_HIGH)
    reduced, rest = two_sum(high - exponent * _LOG2_HIGH, low - exponent * _LOG2_LOW)
    square, square_error = two_product(reduced, reduced)
    tail = 1 / 120 + reduced * (1 / 720 + reduced * (1 / 5040 + reduced / 40320))
    tail = reduced * square * (1 / 6 + reduced * (1 / 24 + reduced * tail))
    # Scaled before, not after, it is added up: given a constant to add to, XLA reorders the sum and loses its error.
    scale = jnp.ldexp(jnp.ones_like(reduced), exponent.astype(jnp.int32))  # exp2 is not exact for whole numbers
    total, error_1 = two_sum(scale, scale * reduced)
    total, error_2 = two_sum(total, scale * square / 2)
    return two_sum(total, error_1 + error_2 + scale * (rest * (1 + reduced) + square_error / 2 + tail))


def residual_counts(logits: Array, counts: Array) -> Array:
    """d_b = n_b - N softmax(logits)_b along the last axis, for integer N below 2**24.

    Parameters
    ----------
    logits
        (..., bin) real numbers, taken as exact.
    counts
        (..., bin) integers held as floats.
    """
    high, low = two_sum(logits, -jnp.max(logits, axis=-1, keepdims=True))
    weight, weight_low = exp_pair(jnp.maximum(high, -80.0), low)
    total, total_low = weight[..., 0], weight_low[..., 0]
    for b in range(1, logits.shape[-1]):
        total, error = two_sum(total, weight[..., b])
        total_low = total_low + (error + weight_low[..., b])
    total, total_low = total[..., None], total_low[..., None]
    n_cells = counts.sum(axis=-1, keepdims=True)
    left, left_error = two_product(counts, total)
    right, right_error = two_product(n_cells, weight)
    low = (left_error - right_error) + (counts * total_low - n_cells * weight_low)
    return ((left - right) + low) / total
