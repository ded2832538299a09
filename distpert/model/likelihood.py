r"""The Dirichlet-categorical likelihood of histogram counts, accurate in single precision.

With logits giving bin probabilities :math:`\pi`, total concentration :math:`\kappa`, counts
:math:`n_b` of :math:`N` cells and :math:`a_b = \kappa\pi_b`,

.. math::
    \log p(n) = \sum_b \log\frac{\Gamma(a_b + n_b)}{\Gamma(a_b)}
               - \log\frac{\Gamma(\kappa + N)}{\Gamma(\kappa)} .

In this form, terms of size :math:`N \log(N/\kappa)` cancel, and single precision is lost long before
:math:`\kappa` is large. With Stirling's series :math:`\log\Gamma(x) = (x - \tfrac12)\log x - x +
\tfrac12\log 2\pi + s(x)`, they cancel on paper instead. With the residuals
:math:`d_b = n_b - N\pi_b` and :math:`y_b = d_b / (\pi_b(\kappa + N))`, so that
:math:`\pi_b(1 + y_b)` is the posterior mean of the histogram,

.. math::
    \log p(n) = \sum_b n_b \log \pi_b
      + (\kappa + N) \sum_b \pi_b \left[(1 + y_b)\log(1 + y_b) - y_b\right]
      - \tfrac12 \sum_b \log\frac{a_b + n_b}{a_b} + \tfrac12 \log\frac{\kappa + N}{\kappa}
      + \sum_b \left[s(a_b + n_b) - s(a_b)\right] - s(\kappa + N) + s(\kappa) .

The first term is the categorical likelihood. The second is :math:`(\kappa + N)` times the Kullback-Leibler
divergence from posterior mean to prior mean; it and all later terms vanish as :math:`\kappa` grows. The
gradients, with :math:`t(x) = \psi(x) - \log x` and :math:`T_b = t(a_b + n_b) - t(a_b)`, take the same form:

.. math::
    \partial_{\mathrm{logit}_b} &= a_b \Big[\log(1 + y_b) + T_b
        - \sum_c \pi_c \big(\log(1 + y_c) + T_c\big)\Big] \\
    \partial_{\log\kappa} &= \kappa \sum_b \pi_b \left[\log(1 + y_b) - y_b\right]
        + \sum_b a_b T_b - \kappa \left[t(\kappa + N) - t(\kappa)\right] .
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro import distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

_SHIFT = 6  # Stirling's series is used from 6 up, where its first terms are exact in single precision
# Smallest probability: keeps logarithms and ratios finite after underflow, and is far below any that matters.
_TINY = 1e-30


def _stirling_tail(x: Array) -> Array:
    r""":math:`s(x) = 1/(12 x) - 1/(360 x^3) + 1/(1260 x^5)` for :math:`x \ge 6`."""
    inverse = 1 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def stirling_remainder(x: ArrayLike) -> Array:
    r"""Remainder s(x) of Stirling's series for x > 0, with an error of about ``1e-6 max(1, |s|)``.

    .. math:: s(x) = \log\Gamma(x) - (x - \tfrac12) \log x + x - \tfrac12 \log 2\pi
    """
    x = jnp.asarray(x)
    low = jnp.minimum(x, _SHIFT)  # each branch gets only arguments for which it is accurate
    high = low + _SHIFT
    rising = (low + 1) * (low + 2) * (low + 3) * (low + 4) * (low + 5) / high**5
    shifted = (low + 0.5) * jnp.log(high / low) - jnp.log(rising)
    return jnp.where(x < _SHIFT, shifted - _SHIFT, 0) + _stirling_tail(jnp.where(x < _SHIFT, x + _SHIFT, x))


def scaled_digamma_remainder(a: Array, x: Array) -> Array:
    r"""Compute :math:`a\,t(x) = a\,[\psi(x) - \log x]` for :math:`0 < a \le x`."""
    low = jnp.minimum(x, _SHIFT)
    steps = a * sum((1 / (low + i) for i in range(1, _SHIFT)), start=jnp.zeros_like(low))
    shifted = a * jnp.log((low + _SHIFT) / low) - a / low - steps
    inverse = 1 / jnp.where(x < _SHIFT, x + _SHIFT, x)
    square = inverse * inverse
    series = -inverse * (0.5 + inverse * (1 / 12 - square * (1 / 120 - square / 252)))
    return jnp.where(x < _SHIFT, shifted, 0) + a * series


def _log_relative(y: Array, ratio: Array) -> Array:
    r""":math:`\log(1 + y)`, where ``ratio`` is :math:`1 + y`, exact also when it is close to zero."""
    near = jnp.abs(y) < 0.5
    return jnp.where(near, jnp.log1p(jnp.where(near, y, 0)), jnp.log(ratio))


def _bregman(y: Array, ratio: Array, log_ratio: Array) -> Array:
    r""":math:`(1 + y) \log(1 + y) - y`, by its series where the two terms would cancel."""
    small = jnp.where(jnp.abs(y) < 0.05, y, 0)
    series = small * small * (1 / 2 - small * (1 / 6 - small * (1 / 12 - small * (1 / 20 - small / 30))))
    one_plus = jnp.where(jnp.abs(y) < 0.5, 1 + y, ratio)
    return jnp.where(jnp.abs(y) < 0.05, series, one_plus * log_ratio - y)


def _bregman_conjugate(y: Array, log_ratio: Array) -> Array:
    r""":math:`\log(1 + y) - y`, by its series where the two terms would cancel."""
    small = jnp.where(jnp.abs(y) < 0.05, y, 0)
    tail = small * (1 / 4 - small * (1 / 5 - small * (1 / 6 - small / 7)))
    series = -small * small * (1 / 2 - small * (1 / 3 - tail))
    return jnp.where(jnp.abs(y) < 0.05, series, log_ratio - y)


def accurate_log_softmax(logits: ArrayLike) -> Array:
    r"""Log of softmax along the last axis, exact also for a probability close to one.

    .. math:: \log \pi_m = -\log\Big(1 + \sum_{b \ne m} e^{z_b - z_m}\Big)

    with z the logits and m the bin of the largest. The usual form adds the largest term to the sum, and rounding loses
    a sum much smaller than one.
    """
    logits = jnp.asarray(logits)
    largest = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    # Not jnp.max: equal logits would share its derivative, but only one of them is omitted from the sum.
    shifted = logits - jnp.where(largest, logits, 0).sum(axis=-1, keepdims=True)
    others = jnp.where(largest, 0, jnp.exp(shifted)).sum(axis=-1, keepdims=True)
    return shifted - jnp.log1p(others)


def _value_and_gradients(logits: Array, log_concentration: Array, counts: Array) -> tuple[Array, Array, Array]:
    concentration = jnp.exp(log_concentration)[..., None]
    n_cells = counts.sum(axis=-1, keepdims=True)
    log_probs = accurate_log_softmax(logits)
    probs = jnp.maximum(jnp.exp(log_probs), _TINY)
    a = jnp.maximum(concentration * probs, _TINY)
    weight = probs * (concentration + n_cells)
    seen = counts > 0
    # All empty bins have the same y; one number for all of them cancels exactly below.
    y = jnp.where(seen, (counts - n_cells * probs) / weight, -n_cells / (concentration + n_cells))
    ratio = jnp.where(seen, (a + counts) / weight, concentration / (concentration + n_cells))
    log_ratio = _log_relative(y, ratio)
    after = jnp.where(seen, a + counts, a)

    remainder = stirling_remainder(after) - stirling_remainder(a) - 0.5 * jnp.log(after / a)
    total = stirling_remainder(concentration + n_cells) - stirling_remainder(concentration)
    total = total - 0.5 * jnp.log1p(n_cells / concentration)
    value = jnp.where(seen, counts * log_probs, 0) + weight * _bregman(y, ratio, log_ratio) + remainder
    value = value.sum(axis=-1) - total[..., 0]

    digamma = scaled_digamma_remainder(a, after) - scaled_digamma_remainder(a, a)
    # Relative to the likeliest bin. Its gradient would otherwise be the difference of two numbers of size N.
    likeliest = jnp.argmax(logits, axis=-1, keepdims=True)
    slope = log_ratio - jnp.take_along_axis(log_ratio, likeliest, axis=-1)
    mean_slope = (a * slope + digamma).sum(axis=-1, keepdims=True)
    logits_gradient = a * slope + digamma - probs * mean_slope
    total_digamma = scaled_digamma_remainder(concentration, concentration + n_cells)
    total_digamma = total_digamma - scaled_digamma_remainder(concentration, concentration)
    concentration_gradient = (a * _bregman_conjugate(y, log_ratio) + digamma).sum(axis=-1) - total_digamma[..., 0]
    return value, logits_gradient, concentration_gradient


@jax.custom_jvp
def dirichlet_categorical_log_prob(logits: ArrayLike, log_concentration: ArrayLike, counts: ArrayLike) -> Array:
    r"""Log-probability of the bins of N cells under a Dirichlet-categorical, from their counts.

    It is the log-probability of the cells in a given order, so it has no multinomial coefficient, which is a constant
    of the data. Divided by N, it compares with a negative log score. Add `log_multinomial_coefficient` for the
    Dirichlet-multinomial. The gradients are coded by hand, and are accurate in single precision.

    Parameters
    ----------
    logits : Array or ndarray, shape (..., bin)
        Unnormalized log-probabilities.
    log_concentration : Array or ndarray, shape (...)
        Logarithm of the total concentration :math:`\kappa`.
    counts : Array or ndarray, shape (..., bin)
        Numbers of cells: whole numbers in any numeric type.

    Returns
    -------
    Array, shape (...)
        Log-probability in nats. In float32 the error is below :math:`10^{-5} \max(1, \sum_b n_b |\log \pi_b|)` for
        :math:`\kappa` from 1e-3 to 1e8 and up to 1e5 cells.

    See Also
    --------
    log_multinomial_coefficient, DirichletCategorical

    Examples
    --------
    >>> import numpy as np
    >>> log_prob = dirichlet_categorical_log_prob(np.zeros(2), 0.0, np.array([1, 1]))
    >>> round(float(log_prob), 4)  # log(1 / 8)
    -2.0794
    """
    return _value_and_gradients(*_as_floats(logits, log_concentration, counts))[0]


@dirichlet_categorical_log_prob.defjvp
def _log_prob_jvp(
    primals: tuple[ArrayLike, ArrayLike, ArrayLike], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    value, logits_gradient, concentration_gradient = _value_and_gradients(*_as_floats(*primals))
    logits_tangent, concentration_tangent, _ = tangents
    return value, (logits_gradient * logits_tangent).sum(axis=-1) + concentration_gradient * concentration_tangent


def _as_floats(logits: ArrayLike, log_concentration: ArrayLike, counts: ArrayLike) -> tuple[Array, Array, Array]:
    """Broadcast the three against each other; counts become floats like the logits."""
    logits, log_concentration = jnp.asarray(logits), jnp.asarray(log_concentration)
    counts = jnp.asarray(counts, logits.dtype)
    logits, counts, log_concentration = jnp.broadcast_arrays(logits, counts, log_concentration[..., None])
    return logits, log_concentration[..., 0], counts


def log_multinomial_coefficient(counts: ArrayLike) -> Array:
    r"""Logarithm of the number of orders of N cells that give these counts.

    .. math:: \log N! - \sum_b \log n_b! = -\sum_b n_b \log\frac{n_b}{N} + r(N) - \sum_b r(n_b), \qquad
              r(n) = \log n! - n \log n + n

    In the second form, which follows Stirling's formula, no large terms cancel.

    Parameters
    ----------
    counts : Array or ndarray, shape (..., bin)
        Numbers of cells.

    Returns
    -------
    Array, shape (...)
        The logarithm, in nats.

    See Also
    --------
    dirichlet_categorical_log_prob

    Examples
    --------
    >>> import numpy as np
    >>> round(float(log_multinomial_coefficient(np.array([1, 2]))), 4)  # log(3)
    1.0986
    """
    counts = jnp.asarray(counts, jnp.result_type(float))
    n_cells = counts.sum(axis=-1, keepdims=True)
    share = counts / jnp.maximum(n_cells, 1)
    near_one = jnp.log1p(-(n_cells - counts) / jnp.maximum(n_cells, 1))
    log_share = jnp.where(share > 0.5, near_one, jnp.log(jnp.maximum(share, _TINY)))
    entropy = -jnp.where(counts > 0, counts * log_share, 0).sum(axis=-1)

    def small_part(n: Array) -> Array:
        n = jnp.maximum(n, 1)
        return stirling_remainder(n) + 0.5 * jnp.log(n)

    half_log_2pi = 0.9189385332046727
    correction = jnp.where(counts > 0, small_part(counts) + half_log_2pi, 0).sum(axis=-1)
    total = jnp.where(n_cells > 0, small_part(n_cells) + half_log_2pi, 0)[..., 0]
    return entropy + total - correction


class DirichletCategorical(dist.Distribution):
    r"""Histogram counts of N cells, with bin probabilities from Dirichlet(:math:`\kappa\pi`) integrated out.

    A distribution of numpyro with the vector of counts as its event. ``log_prob`` is `dirichlet_categorical_log_prob`:
    the log-probability of the cells in a given order, without the multinomial coefficient.

    Parameters
    ----------
    logits : Array or ndarray, shape (..., bin)
        Unnormalized :math:`\log \pi`.
    log_concentration : Array or ndarray, shape (...)
        Logarithm of the concentration :math:`\kappa`.
    total_count : Array or ndarray, shape (...)
        Number of cells N, for sampling and for the check of values; ``log_prob`` takes it from the counts.
    validate_args : bool, optional
        Whether numpyro checks parameters and values.

    See Also
    --------
    dirichlet_categorical_log_prob, log_multinomial_coefficient

    Examples
    --------
    >>> import numpy as np
    >>> histogram = DirichletCategorical(np.zeros(3), log_concentration=5.0, total_count=30)
    >>> histogram.mean.tolist()
    [10.0, 10.0, 10.0]
    """

    arg_constraints = {  # noqa: RUF012 (numpyro reads this class attribute)
        "logits": constraints.real_vector,
        "log_concentration": constraints.real,
        "total_count": constraints.nonnegative_integer,
    }
    pytree_data_fields = ("logits", "log_concentration", "total_count")

    def __init__(
        self,
        logits: ArrayLike,
        log_concentration: ArrayLike,
        total_count: ArrayLike = 1,
        *,
        validate_args: bool | None = None,
    ) -> None:
        logits = jnp.asarray(logits)
        batch_shape = jax.lax.broadcast_shapes(logits.shape[:-1], jnp.shape(log_concentration), jnp.shape(total_count))
        self.logits = jnp.broadcast_to(logits, batch_shape + logits.shape[-1:])
        self.log_concentration = jnp.broadcast_to(log_concentration, batch_shape)
        self.total_count = jnp.broadcast_to(total_count, batch_shape)
        super().__init__(batch_shape, logits.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Vectors of counts that sum to ``total_count``."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Array:
        r"""Expected counts :math:`N\pi`."""
        return self.total_count[..., None] * jax.nn.softmax(self.logits, axis=-1)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log-probability of cells with the given counts, in a given order.

        Parameters
        ----------
        value : Array or ndarray, shape (..., bin)
            Counts, numbers of cells in each bin.

        Returns
        -------
        Array, shape (...)
            In nats.

        Examples
        --------
        >>> import numpy as np
        >>> histogram = DirichletCategorical(np.zeros(2), log_concentration=0.0, total_count=2)
        >>> round(float(histogram.log_prob(np.array([1, 1]))), 4)  # log(1 / 8)
        -2.0794
        """
        return dirichlet_categorical_log_prob(self.logits, self.log_concentration, value)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw counts: a histogram from the Dirichlet, then a multinomial, faster than a categorical for each cell.

        Parameters
        ----------
        key : Array
            Key of the random numbers, as `jax.random.key` makes it.
        sample_shape : tuple of int
            Shape of the draws; by default one draw.

        Returns
        -------
        Array, shape (..., bin)
            With the axes of ``sample_shape`` first. Counts, which sum to ``total_count`` over bins.

        Examples
        --------
        >>> import numpy as np
        >>> histogram = DirichletCategorical(np.zeros(3), log_concentration=5.0, total_count=30)
        >>> histogram.sample(jax.random.key(0), (4,)).sum(axis=-1).tolist()
        [30.0, 30.0, 30.0, 30.0]
        """
        shape = sample_shape + self.batch_shape + self.event_shape
        key_histogram, key_counts = jax.random.split(key)
        concentration = jnp.exp(self.log_concentration)[..., None] * jax.nn.softmax(self.logits, axis=-1)
        histogram = jax.random.dirichlet(key_histogram, jnp.broadcast_to(concentration, shape), shape[:-1])
        return jax.random.multinomial(key_counts, jnp.broadcast_to(self.total_count, shape[:-1]), histogram)


class Categorical(dist.Distribution):
    r"""Histogram counts of cells with known bin probabilities: `DirichletCategorical` without variation.

    ``log_prob`` is :math:`\sum_b n_b \log \pi_b`, the log-probability of the cells in a given order.

    Parameters
    ----------
    logits : Array or ndarray, shape (..., bin)
        Unnormalized log-probabilities.

    See Also
    --------
    DirichletCategorical
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012 (numpyro reads this class attribute)
    support = constraints.nonnegative_integer
    pytree_data_fields = ("logits",)

    def __init__(self, logits: ArrayLike, *, validate_args: bool | None = None) -> None:
        self.logits = jnp.asarray(logits)
        super().__init__(self.logits.shape[:-1], self.logits.shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Array) -> Array:
        """Log-probability of counts (..., bin), in nats."""
        return (value * accurate_log_softmax(self.logits)).sum(axis=-1)
