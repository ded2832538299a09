"""Random walk with correlated steps, the prior of loadings along the bins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro import distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample


class SmoothWalk(dist.Distribution):
    r"""Random walk along the last axis with autoregressive steps.

    .. math:: x_0 \sim \mathrm{Normal}(0, s^2), \qquad x_b = x_{b-1} + \delta_b, \qquad
              \operatorname{cov}(\delta_a, \delta_b) = s^2 \rho^{|a - b|}

    Into bins without cells, a walk without smoothness continues level; with smoothness it continues in its direction.
    The logarithm of a density behaves like this when a distribution moves: it changes more, the farther out the bin.

    Parameters
    ----------
    scale
        Standard deviation s of each step.
    smoothness
        Correlation ρ of each step with the next, from 0 to below 1.
    num_steps
        Length of the walk, at least 2.
    """

    arg_constraints = {  # noqa: RUF012 (numpyro reads this class attribute)
        "scale": constraints.positive,
        "smoothness": constraints.unit_interval,
    }
    support = constraints.real_vector
    pytree_aux_fields = ("num_steps",)
    pytree_data_fields = ("scale", "smoothness")

    def __init__(
        self, scale: ArrayLike, smoothness: ArrayLike, num_steps: int, *, validate_args: bool | None = None
    ) -> None:
        self.scale, self.smoothness, self.num_steps = jnp.asarray(scale), jnp.asarray(smoothness), num_steps
        shape = jnp.broadcast_shapes(jnp.shape(scale), jnp.shape(smoothness))
        super().__init__(shape, (num_steps,), validate_args=validate_args)

    @property
    def _innovation_scale(self) -> Array:
        """Standard deviation of a step, given the step before."""
        return self.scale * jnp.sqrt(1 - self.smoothness**2)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density of ``value`` (..., num_steps)."""
        steps = jnp.diff(value, axis=-1)
        new = steps[..., 1:] - self.smoothness[..., None] * steps[..., :-1]
        free = dist.Normal(0, self.scale[..., None]).log_prob(
            jnp.concatenate([value[..., :1], steps[..., :1]], axis=-1)
        )
        return free.sum(-1) + dist.Normal(0, self._innovation_scale[..., None]).log_prob(new).sum(-1)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw (..., num_steps)."""
        noise = dist.Normal().sample(key, sample_shape + self.batch_shape + self.event_shape)
        first, free = jnp.split(self.scale[..., None] * noise[..., :2], 2, axis=-1)
        new = self._innovation_scale[..., None] * noise[..., 2:]

        def step(before: Array, change: Array) -> tuple[Array, Array]:
            now = self.smoothness * before + change
            return now, now

        _, rest = jax.lax.scan(step, free[..., 0], jnp.moveaxis(new, -1, 0))
        steps = jnp.concatenate([free, jnp.moveaxis(rest, 0, -1)], axis=-1)
        return jnp.concatenate([first, steps], axis=-1).cumsum(axis=-1)
