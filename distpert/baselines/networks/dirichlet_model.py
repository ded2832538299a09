"""A neural Dirichlet-categorical model in numpyro: a network from embeddings to histograms, and its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpy.typing import NDArray
from numpyro import distributions as dist
from numpyro.infer import SVI, Trace_ELBO

from distpert.model.generative import along_bins, rows
from distpert.model.likelihood import DirichletCategorical, accurate_log_softmax, dirichlet_categorical_log_prob

OUTPUT_SIZE = 0.3  # prior standard deviation of the shift of a coordinate, where hidden units are of size one
LOG_CONCENTRATION = (8.0, 1.5)  # prior mean and standard deviation


class NeuralData(NamedTuple):
    """Groups of perturbed cells and what the model conditions on.

    Attributes
    ----------
    embedding
        (group, dim) embedding of each group's perturbation.
    context
        (group,) position of each group's context.
    counts
        (group, gene, bin) numbers of cells.
    log_base
        (context, gene, bin) logits from which shifts start.
    basis
        (gene, bin, direction) directions along the bins, see `shift_basis`.
    """

    embedding: Any
    context: Any
    counts: Any
    log_base: Any
    basis: Any


class Architecture(NamedTuple):
    """What a compiled training depends on.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    dropout
        Share of hidden units that are dropped at random in each step.
    step_size
        Of Adam.
    batch_size
        Largest number of groups in a step.
    """

    hidden: tuple[int, ...]
    dropout: float
    step_size: float
    batch_size: int


def hidden_units(layers: Sequence[tuple[Array, Array]], embedding: Array, keep: Sequence[Array | float]) -> Array:
    """Hidden units (group, unit) behind the last layer, times what dropout keeps of each layer."""
    units = embedding
    for (weight, bias), kept in zip(layers, keep, strict=True):
        units = jax.nn.relu(units @ weight + bias) * kept
    return units


def model(data: NeuralData, weight: Array, prior_scale: Array, *, hidden: tuple[int, ...], dropout: float) -> None:
    """Generate the histograms of groups; ``weight`` (group,) says how often each counts."""
    n_genes, _, n_directions = data.basis.shape
    fan_in, layers, keep = data.embedding.shape[1], [], []
    for i, width in enumerate(hidden):
        scale = prior_scale / jnp.sqrt(fan_in)
        matrix = numpyro.sample(f"weight{i}", dist.Normal(0, scale).expand([fan_in, width]).to_event())
        bias = numpyro.sample(f"bias{i}", dist.Normal(0, prior_scale).expand([width]).to_event())
        shape = (data.embedding.shape[0], width)
        kept: Array | float = 1.0
        if dropout:
            kept = jax.random.bernoulli(numpyro.prng_key(), 1 - dropout, shape) / (1 - dropout)
        layers.append((matrix, bias))
        keep.append(kept)
        fan_in = width
    of_output = dist.Normal(0, prior_scale * OUTPUT_SIZE / jnp.sqrt(fan_in))
    output = numpyro.sample("output", of_output.expand([fan_in, n_genes, n_directions]).to_event())
    log_concentration = numpyro.sample(
        "log_concentration", dist.Normal(*LOG_CONCENTRATION).expand([n_genes]).to_event()
    )
    shift = jnp.tensordot(hidden_units(layers, data.embedding, keep), output, axes=1)
    logits = rows(data.log_base, data.context) + along_bins(shift, data.basis)
    n_cells = data.counts.sum(axis=-1)
    with numpyro.handlers.scale(scale=weight):
        numpyro.sample("counts", DirichletCategorical(logits, log_concentration, n_cells).to_event(1), obs=data.counts)


def guide(start: Mapping[str, Array]) -> None:
    """Point estimates of all sites, from given initial values."""
    for name, value in start.items():
        found = numpyro.param(f"{name}_value", value)
        numpyro.sample(name, dist.Delta(found, event_dim=found.ndim))


def initial_values(data: NeuralData, architecture: Architecture, seed: int | Sequence[int]) -> dict[str, NDArray]:
    """Return random hidden layers, and an output of zeros: the prediction starts from ``log_base``."""
    rng = np.random.default_rng(seed)
    fan_in, start = data.embedding.shape[1], {}
    for i, width in enumerate(architecture.hidden):
        start[f"weight{i}"] = rng.normal(0, np.sqrt(2 / fan_in), (fan_in, width))
        start[f"bias{i}"] = np.zeros(width)
        fan_in = width
    n_genes, _, n_directions = data.basis.shape
    start["output"] = np.zeros((fan_in, n_genes, n_directions))
    start["log_concentration"] = np.full(n_genes, LOG_CONCENTRATION[0])
    return {name: value.astype(np.float32) for name, value in start.items()}


@lru_cache(maxsize=8)
def _compile(architecture: Architecture) -> tuple[Any, Any]:
    """Compiled initialization and epoch."""

    def bound_model(data: NeuralData, weight: Array, prior_scale: Array, start: Mapping[str, Array]) -> None:
        model(data, weight, prior_scale, hidden=architecture.hidden, dropout=architecture.dropout)

    def bound_guide(data: NeuralData, weight: Array, prior_scale: Array, start: Mapping[str, Array]) -> None:
        guide(start)

    svi = SVI(bound_model, bound_guide, numpyro.optim.Adam(architecture.step_size), Trace_ELBO())

    def take(data: NeuralData, chosen: Array) -> NeuralData:
        return data._replace(**{name: getattr(data, name)[chosen] for name in ("embedding", "context", "counts")})

    def epoch(
        state: Any, order: Array, weight: Array, data: NeuralData, prior_scale: Array, start: Mapping[str, Array]
    ) -> tuple[Any, dict[str, Array]]:
        def step(state: Any, chosen: tuple[Array, Array]) -> tuple[Any, Array]:
            places, weights = chosen
            return svi.update(state, take(data, places), weights, prior_scale, start)

        state, _ = jax.lax.scan(step, state, (order, weight))
        values = svi.get_params(state)
        return state, {name: values[f"{name}_value"] for name in start}

    def init(key: Array, data: NeuralData, prior_scale: Array, start: Mapping[str, Array]) -> Any:
        return svi.init(key, take(data, jnp.arange(1)), jnp.ones(1), prior_scale, start)

    return jax.jit(init), jax.jit(epoch)


@jax.jit
def log_probs(values: Mapping[str, Array], data: NeuralData) -> Array:
    """Log of the expected histograms (group, gene, bin), without dropout."""
    n_layers = sum(name.startswith("weight") for name in values)
    layers = [(values[f"weight{i}"], values[f"bias{i}"]) for i in range(n_layers)]
    shift = jnp.tensordot(hidden_units(layers, data.embedding, [1.0] * n_layers), values["output"], axes=1)
    return accurate_log_softmax(rows(data.log_base, data.context) + along_bins(shift, data.basis))


@jax.jit
def _losses(values: Mapping[str, Array], data: NeuralData) -> Array:
    """Negative log-likelihood of each group, per cell and gene (group,)."""
    of_gene = dirichlet_categorical_log_prob(log_probs(values, data), values["log_concentration"], data.counts)
    return -of_gene.mean(axis=-1) / data.counts[:, 0].sum(axis=-1)


class Trained(NamedTuple):
    """Outcome of `train`.

    Attributes
    ----------
    values
        Values of the sites after the best epoch, or after the last one without validation.
    losses
        Validation loss before the first epoch and after each, (1 + epoch,); empty without validation.
    """

    values: dict[str, Array]
    losses: NDArray[np.float64]


def train(
    data: NeuralData,
    rows_used: NDArray[np.intp],
    architecture: Architecture,
    *,
    prior_scale: float,
    epochs: int,
    seed: int | Sequence[int],
    validation: NDArray[np.intp] | None = None,
    patience: int | None = None,
) -> Trained:
    """Find the posterior mode of the network by jitted SVI on some of the groups.

    Parameters
    ----------
    data
        All groups.
    rows_used
        Groups to train on.
    architecture
        Layers, dropout and steps.
    prior_scale
        Prior standard deviation of weights, times the root of the number of their inputs.
    epochs
        Largest number of epochs.
    seed
        Seed of initial values, order and dropout.
    validation
        Groups whose likelihood decides the best epoch.
    patience
        Stop after this many epochs without a better one.

    Raises
    ------
    FloatingPointError
        If the validation loss is not finite.
    """
    init, epoch = _compile(architecture)
    n_groups = len(data.context)
    n_batches = -(-n_groups // architecture.batch_size)
    size = -(-n_groups // n_batches)
    rng = np.random.default_rng(seed)
    start = {name: jnp.asarray(value) for name, value in initial_values(data, architecture, seed).items()}
    scale = jnp.asarray(prior_scale, jnp.float32)
    state = init(jax.random.key(int(rng.integers(2**31)), impl="rbg"), data, scale, start)
    best, losses = start, []
    held_out = None if validation is None else _some(data, validation)
    for number in range(epochs + 1):
        if number:
            # Every epoch has as many steps for any groups: nothing is compiled again.
            order = np.resize(rng.permutation(rows_used), n_batches * size)
            weight = np.full(n_batches * size, len(rows_used) / size, np.float32)  # a batch stands for all groups
            shaped = order.reshape(n_batches, size), weight.reshape(n_batches, size)
            state, values = epoch(state, *map(jnp.asarray, shaped), data, scale, start)
        else:
            values = start
        if held_out is None:
            best = values
            continue
        losses.append(float(_losses(values, held_out).mean()))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the validation loss became {losses[-1]}: pass a smaller step_size")
        if losses[-1] == min(losses):
            best = values
        if patience is not None and len(losses) - 1 - int(np.argmin(losses)) >= patience:
            break
    return Trained(dict(best), np.array(losses))


def _some(data: NeuralData, chosen: NDArray[np.intp]) -> NeuralData:
    return data._replace(embedding=data.embedding[chosen], context=data.context[chosen], counts=data.counts[chosen])


def fit_log_concentration(log_probabilities: Array, counts: Array, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Most probable log concentration of each gene (gene,), on a grid, given predictions of groups left out.

    ``log_probabilities`` and ``counts`` are (group, gene, bin).
    """

    def of_one(log_concentration: Array) -> Array:
        each = dirichlet_categorical_log_prob(
            log_probabilities, jnp.full(counts.shape[1], log_concentration, jnp.float32), counts
        )
        return each.sum(axis=0)

    likelihood = np.asarray(jax.lax.map(of_one, jnp.asarray(grid, jnp.float32)), np.float64)  # (grid, gene)
    mean, scale = LOG_CONCENTRATION
    return grid[(likelihood - 0.5 * ((grid[:, None] - mean) / scale) ** 2).argmax(axis=0)]
