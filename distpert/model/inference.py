"""Stochastic variational inference: compiled steps, repeated until the loss stops falling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpy.typing import NDArray
from numpyro.infer import SVI, TraceMeanField_ELBO

from distpert.model.checkpoints import Checkpoint, fingerprint
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


CHUNK_BYTES = 2**28  # of counts that are on the device at a time


class Schedule(NamedTuple):
    """How an epoch is cut into minibatches, and these into chunks whose counts are on the device at a time.

    Attributes
    ----------
    n_groups
        Number of groups.
    n_chunks, n_batches
        Chunks of an epoch, and minibatches of a chunk.
    batch_size
        Groups of a minibatch. Minibatches are even, so the last one lacks few groups.
    n_epochs
        Largest number of epochs.
    """

    n_groups: int
    n_chunks: int
    n_batches: int
    batch_size: int
    n_epochs: int

    @classmethod
    def of(cls, counts: NDArray, settings: Optimization, n_devices: int = 1) -> Schedule:
        """Cut the groups of some counts (group, gene, bin); each device gets as many groups of a minibatch."""
        n_groups = len(counts)
        n_steps = -(-n_groups // settings.batch_size)
        n_chunks = min(n_steps, -(-counts.nbytes // CHUNK_BYTES))
        n_batches = -(-n_steps // n_chunks)
        batch_size = n_devices * -(-n_groups // (n_chunks * n_batches * n_devices))
        return cls(n_groups, n_chunks, n_batches, batch_size, n_epochs(n_groups, settings))

    @property
    def n_places(self) -> int:
        """Places for groups in an epoch; a few are empty."""
        return self.n_chunks * self.n_batches * self.batch_size

    def take(self, groups: Batch, chosen: NDArray[np.integer]) -> Batch:
        """Gather groups, shaped as ``chosen``, from memory or from disk.

        Groups that fill up the last minibatch, with a number of `n_groups`, have weight zero, so each group counts once
        in an epoch. Otherwise the loss of an epoch, and with it the stopping rule, would depend on which are repeated.
        """
        weight = ((chosen < self.n_groups) * (self.n_places / self.n_groups)).astype(np.float32)
        there = np.minimum(chosen, self.n_groups - 1)
        counts, n_cells, perturbation, context = (np.asarray(array)[there] for array in groups[:4])
        return Batch(counts, n_cells, perturbation, context, weight)

    def chunks(self, groups: Batch, key: Array) -> Iterator[Batch]:
        """Yield the chunks (minibatch, group, ...) of an epoch, with the groups in random order."""
        order = np.asarray(jax.random.permutation(key, self.n_groups))
        order = np.pad(order, (0, self.n_places - self.n_groups), constant_values=self.n_groups)
        for chosen in order.reshape(self.n_chunks, self.n_batches, self.batch_size):
            yield self.take(groups, chosen)


class _Compiled(NamedTuple):
    svi: SVI
    init: Callable[..., Any]
    steps: Callable[..., tuple[Any, Array]]
    parameters: Callable[[Any], dict[str, Array]]


@lru_cache(maxsize=16)
def _compile(schedule: Schedule, n_factors: int, priors: Priors, settings: Optimization) -> _Compiled:
    """Compiled initialization and steps, cached because ``SVI.run`` would compile again for every fit."""
    n_steps = schedule.n_epochs * schedule.n_chunks * schedule.n_batches

    def step_size(step: Array) -> Array:
        return settings.step_size * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / n_steps, 1)))

    def bound_model(design: Design, batch: Batch, start: Mapping[str, Array]) -> None:
        model(design, batch, n_groups=schedule.n_groups, n_factors=n_factors, priors=priors)

    def bound_guide(design: Design, batch: Batch, start: Mapping[str, Array]) -> None:
        guide(start)

    # Gradients of minibatches are noisy; with a shorter memory of their squares the step size adapts faster.
    adam = numpyro.optim.Adam(step_size, b2=0.99)
    svi = SVI(bound_model, bound_guide, adam, TraceMeanField_ELBO())

    def steps(state: Any, design: Design, batches: Batch, start: Mapping[str, Array]) -> tuple[Any, Array]:
        """Take a step for each minibatch of a chunk, and return the mean of their losses."""
        state, losses = jax.lax.scan(lambda state, batch: svi.update(state, design, batch, start), state, batches)
        return state, losses.mean()

    return _Compiled(svi, jax.jit(svi.init), jax.jit(steps), jax.jit(svi.get_params))


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
    checkpoint: Path | None = None,
) -> SviResult:
    """Fit the guide to the groups, starting from given initial values, or from a checkpoint if there is one.

    Raises
    ------
    ValueError
        If the checkpoint is damaged, or of other data or settings.
    FloatingPointError
        If the loss becomes NaN or infinite.
    """
    from tqdm.auto import tqdm

    counts, n_genes = np.asarray(groups.counts), len(start["log_concentration"])
    place, n_devices = _placement()
    schedule = Schedule.of(counts, settings, n_devices)
    compiled = _compile(schedule, n_factors, priors, settings)
    n_control = np.asarray(design.control_counts, np.float64)[:, 0].sum()  # every gene has all cells
    observations = float(np.asarray(groups.n_cells).sum() + n_control) * n_genes
    initial = place({name: np.asarray(value, np.float32) for name, value in start.items()})
    # This generator compiles faster than the default, and compiling takes most of the time of a small fit.
    key, key_init = jax.random.split(jax.random.key(seed, impl="rbg"))
    device_design = place(design)  # once
    first = schedule.take(groups, np.arange(schedule.batch_size))
    state = compiled.init(key_init, device_design, place(first, 0), initial)
    losses: list[float] = []
    kept = None
    if checkpoint is not None:
        arrays = {"counts": counts, **design._asdict(), **start}
        of_data = fingerprint(jax.tree.map(np.asarray, arrays), n_factors, priors, settings, seed)
        kept = Checkpoint(checkpoint, of_data)
        if (found := kept.read(state)) is not None:
            state, key, losses = found
    converged = bool(losses) and has_converged(losses, settings)
    last = schedule.n_epochs
    with tqdm(total=last, initial=len(losses), desc="compiling", unit="epoch", disable=not progress_bar) as bar:
        while len(losses) < last and not converged:
            key, key_epoch = jax.random.split(key)
            of_chunks = []
            for chunk in schedule.chunks(groups, key_epoch):
                state, loss = compiled.steps(state, device_design, place(chunk, 1), initial)
                of_chunks.append(float(loss))
            losses.append(float(np.mean(of_chunks)) / observations)
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss became {losses[-1]} in epoch {len(losses)}. Pass "
                    f"optimization=Optimization(step_size=...) with a step size below {settings.step_size}"
                )
            converged = has_converged(losses, settings)
            if kept is not None:
                kept.write(state, key, losses, now=converged or len(losses) == last)
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


def _placement() -> tuple[Callable[..., Any], int]:
    """Return a function that puts arrays on the devices, and the number of devices.

    With an axis, it spreads that axis over the devices; else each device has a copy. Each device then works on its own
    groups, and the compiler adds up their gradients.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        return lambda arrays, axis=None: jax.tree.map(jnp.asarray, arrays), 1
    mesh = jax.sharding.Mesh(np.array(devices), ("groups",))

    def place(arrays: Any, axis: int | None = None) -> Any:
        spread = jax.sharding.PartitionSpec() if axis is None else jax.sharding.PartitionSpec(*[None] * axis, "groups")
        return jax.device_put(arrays, jax.sharding.NamedSharding(mesh, spread))

    return place, len(devices)


def n_epochs(n_groups: int, settings: Optimization) -> int:
    """Largest number of epochs: ``max_epochs``, within the limits on steps."""
    n_batches = -(-n_groups // settings.batch_size)
    fewest, most = -(-settings.min_steps // n_batches), -(-settings.max_steps // n_batches)
    return max(min(settings.max_epochs, max(most, settings.min_epochs)), fewest)


def has_converged(losses: list[float], settings: Optimization) -> bool:
    """Whether the last ``patience`` epochs lowered the best loss by no more than ``tolerance`` of its whole fall.

    The best loss is compared instead of the last one, because losses of minibatches scatter.
    """
    if len(losses) <= 2 * settings.patience:
        return False
    before, now = min(losses[: -settings.patience]), min(losses)
    return before - now <= settings.tolerance * (losses[0] - now)
