"""Stochastic variational inference: a compiled epoch, repeated until the loss stops falling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import SVI, TraceMeanField_ELBO

from distpert.model.generative import Batch, Design, guide, model
from distpert.model.optimization import Optimization
from distpert.model.priors import Priors


class SviResult(NamedTuple):
    """Outcome of `optimize`.

    Attributes
    ----------
    parameters
        Parameters of the guide, by name.
    loss
        (epoch,) negative evidence lower bound, in nats per cell and gene.
    converged
        Whether the stopping rule ended the run, rather than its last epoch.
    """

    parameters: dict[str, NDArray[np.float32]]
    loss: NDArray[np.float64]
    converged: bool


class _Compiled(NamedTuple):
    svi: SVI
    init: Callable[..., Any]
    epoch: Callable[..., tuple[Any, Array]]
    parameters: Callable[[Any], dict[str, Array]]


@lru_cache(maxsize=16)
def _compile(n_groups: int, n_factors: int, priors: Priors, settings: Optimization) -> _Compiled:
    """Compiled initialization and epoch, cached because ``SVI.run`` would compile again for every fit."""
    n_batches = -(-n_groups // settings.batch_size)
    batch_size = -(-n_groups // n_batches)  # even batches: the last lacks at most n_batches - 1 groups
    n_places = n_batches * batch_size
    n_steps = n_epochs(n_groups, settings) * n_batches

    def step_size(step: Array) -> Array:
        return settings.step_size * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / n_steps, 1)))

    def bound_model(design: Design, batch: Batch, start: Mapping[str, Array]) -> None:
        model(design, batch, n_groups=n_groups, n_factors=n_factors, priors=priors)

    def bound_guide(design: Design, batch: Batch, start: Mapping[str, Array]) -> None:
        guide(start)

    # Gradients of minibatches are noisy; with a shorter memory of their squares the step size adapts faster.
    adam = numpyro.optim.Adam(step_size, b2=0.99)
    svi = SVI(bound_model, bound_guide, adam, TraceMeanField_ELBO())

    def take(groups: Batch, chosen: Array) -> Batch:
        # Groups that fill up the last batch have weight zero, so each group counts once in an epoch. Otherwise the loss
        # of an epoch, and with it the stopping rule, would depend on which groups are repeated.
        weight = (chosen < n_groups) * (n_places / n_groups)
        counts, n_cells, perturbation, context = (jnp.asarray(array)[chosen] for array in groups[:4])
        return Batch(counts, n_cells, perturbation, context, weight)

    def init(key: Array, design: Design, groups: Batch, start: Mapping[str, Array]) -> Any:
        return svi.init(key, design, take(groups, jnp.arange(batch_size)), start)

    def epoch(state: Any, key: Array, design: Design, groups: Batch, start: Mapping[str, Array]) -> tuple[Any, Array]:
        order = jnp.pad(jax.random.permutation(key, n_groups), (0, n_places - n_groups), constant_values=n_groups)

        def step(state: Any, chosen: Array) -> tuple[Any, Array]:
            return svi.update(state, design, take(groups, chosen), start)

        state, losses = jax.lax.scan(step, state, order.reshape(n_batches, batch_size))
        return state, losses.mean()

    return _Compiled(svi, jax.jit(init), jax.jit(epoch), jax.jit(svi.get_params))


def optimize(
    design: Design,
    groups: Batch,
    start: Mapping[str, NDArray],
    *,
    n_factors: int,
    priors: Priors,
    settings: Optimization,
    seed: int,
    progress_bar: bool,
) -> SviResult:
    """Fit the guide to the groups, starting from given initial values.

    Raises
    ------
    FloatingPointError
        If the loss becomes NaN or infinite.
    """
    from tqdm.auto import tqdm

    n_groups, n_genes = len(groups.perturbation), len(start["log_concentration"])
    compiled = _compile(n_groups, n_factors, priors, settings)
    n_control = np.asarray(design.control_counts, np.float64)[:, 0].sum()  # every gene has all cells
    observations = float(np.asarray(groups.n_cells).sum() + n_control) * n_genes
    initial = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    # This generator compiles faster than the default, and compiling takes most of the time of a small fit.
    key, key_init = jax.random.split(jax.random.key(seed, impl="rbg"))
    state = compiled.init(key_init, design, groups, initial)
    losses: list[float] = []
    converged = False
    last = n_epochs(n_groups, settings)
    with tqdm(total=last, desc="compiling", unit="epoch", disable=not progress_bar) as bar:
        while len(losses) < last and not converged:
            key, key_epoch = jax.random.split(key)
            state, loss = compiled.epoch(state, key_epoch, design, groups, initial)
            losses.append(float(loss) / observations)
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss became {losses[-1]} in epoch {len(losses)}. Pass "
                    f"optimization=Optimization(step_size=...) with a step size below {settings.step_size}"
                )
            converged = has_converged(losses, settings)
            bar.set_description("fitting", refresh=False)
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
            if converged:
                bar.total = len(losses)
                bar.refresh()
    parameters = {name: np.asarray(value) for name, value in compiled.parameters(state).items()}
    for name in [name.removesuffix("_unit") for name in initial if name.endswith("_unit")]:
        parameters[f"{name}_mean"] = parameters[f"{name}_mean"] * np.asarray(initial[f"{name}_unit"])
    return SviResult(parameters, np.array(losses), converged)


def n_epochs(n_groups: int, settings: Optimization) -> int:
    """Largest number of epochs."""
    n_batches = -(-n_groups // settings.batch_size)
    return max(settings.max_epochs, -(-settings.min_steps // n_batches))


def has_converged(losses: list[float], settings: Optimization) -> bool:
    """Whether the last ``patience`` epochs lowered the best loss by no more than ``tolerance`` of its whole fall.

    The best loss is compared instead of the last one, because losses of minibatches scatter.
    """
    if len(losses) <= 2 * settings.patience:
        return False
    before, now = min(losses[: -settings.patience]), min(losses)
    return before - now <= settings.tolerance * (losses[0] - now)
