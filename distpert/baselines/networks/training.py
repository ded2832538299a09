"""A network that predicts shifts of all genes from an embedding, trained with early stopping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int
from numpy.typing import NDArray

FEWEST_BATCHES = 4

Layers = list[dict[str, Array]]  # weight (in, out) and bias (out) of each layer
Batches = tuple[NDArray[np.int32], NDArray[np.float32]]  # rows and their weights, both (batch, position)


class Groups(NamedTuple):
    """The training data: the inputs of each group, and the bin shares of its cells."""

    embedding: Float[Array, "group dim"]
    context: Int[Array, " group"]
    shares: Float[Array, "group gene bin"]


class Head(Protocol):
    """The meaning of a network's outputs: a JAX pytree with arrays in single precision."""

    @property
    def n_outputs(self) -> int:
        """Number of outputs of a network."""
        ...

    def losses(
        self,
        output: Float[Array, "group output"],
        context: Int[Array, " group"],
        shares: Float[Array, "group gene bin"],
    ) -> Float[Array, " group"]:
        """Loss of each group. An output of zeros is the prediction before training."""
        ...


class Setting(NamedTuple):
    """One choice of the settings that are tuned.

    Attributes
    ----------
    hidden
        Widths of the hidden layers.
    dropout
        Share of hidden units dropped at random in each step of the training.
    decay
        Weight decay (Loshchilov & Hutter 2019); biases do not decay.
    learning_rate
        Step size of AdamW.
    """

    hidden: tuple[int, ...]
    dropout: float
    decay: float
    learning_rate: float

    def __str__(self) -> str:
        widths = " × ".join(map(str, self.hidden))
        return f"hidden {widths}, dropout {self.dropout:g}, decay {self.decay:g}, learning rate {self.learning_rate:g}"


class Trained(NamedTuple):
    """Outcome of `train`.

    Attributes
    ----------
    layers
        The weights after the epoch with the least validation loss, or after the last epoch without validation.
    losses
        Validation loss before the first epoch and after each, (1 + epoch,); empty without validation.
    """

    layers: Layers
    losses: NDArray[np.float64]


def train(
    head: Head,
    groups: Groups,
    rows: NDArray[np.integer],
    setting: Setting,
    *,
    epochs: int,
    batch_size: int,
    seed: int | Sequence[int],
    validation: NDArray[np.integer] | None = None,
    patience: int | None = None,
) -> Trained:
    """Train a network on some of the groups by AdamW.

    Parameters
    ----------
    head
        Turns outputs into losses.
    groups
        All groups. An epoch has the same number of steps for any rows: nothing is compiled again, and a number of
        epochs means the same for some groups as for all.
    rows
        Groups to train on.
    setting
        The settings that are tuned.
    epochs
        Largest number of epochs.
    batch_size
        Largest number of groups in a step.
    seed
        Seed of weights, order and dropout.
    validation
        Groups to measure the validation loss on, which decides the best epoch.
    patience
        Stop after this many epochs without a lower validation loss.

    Raises
    ------
    FloatingPointError
        If the validation loss becomes NaN or infinite.
    """
    n_batches = n_steps(len(groups.context), batch_size)
    rng = np.random.default_rng(seed)
    key, key_layers = jax.random.split(jax.random.key(int(rng.integers(2**31))))
    layers = initial_layers(key_layers, groups.embedding.shape[1], setting.hidden, head.n_outputs)
    state = _optimizer(0.0, 0.0).init(layers)
    settings = (setting.learning_rate, setting.decay, setting.dropout)
    held_out = None if validation is None else batches(validation, -(-len(validation) // batch_size))
    best, losses = layers, []
    for epoch in range(epochs + 1):
        if epoch:
            order = batches(rng.permutation(rows), n_batches)
            layers, state = _epoch(head, groups, layers, state, order, jax.random.fold_in(key, epoch), settings)
        if held_out is None:
            best = layers
            continue
        losses.append(float(_mean_loss(head, groups, layers, held_out)))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss on validation perturbations became {losses[-1]} after {epoch} epochs with {setting}"
            )
        since_best = epoch - int(np.argmin(losses))
        if since_best == 0:
            best = layers
        elif patience is not None and since_best >= patience:
            break
    return Trained(best, np.array(losses))


def initial_layers(key: Array, n_inputs: int, hidden: Sequence[int], n_outputs: int) -> Layers:
    """Random hidden layers (He et al. 2015), and a last layer of zeros."""
    layers = []
    for width in hidden:
        key, key_weight = jax.random.split(key)
        weight = jax.random.normal(key_weight, (n_inputs, width), jnp.float32) * np.float32(np.sqrt(2 / n_inputs))
        layers.append({"weight": weight, "bias": jnp.zeros(width, jnp.float32)})
        n_inputs = width
    return [*layers, {"weight": jnp.zeros((n_inputs, n_outputs)), "bias": jnp.zeros(n_outputs)}]


def apply_layers(
    layers: Layers, embedding: Float[Array, "group dim"], dropout: Array | float = 0.0, key: Array | None = None
) -> Float[Array, "group output"]:
    """Multilayer perceptron with GELU units; with a key, some units are dropped at random."""
    hidden = embedding
    for layer in layers[:-1]:
        hidden = jax.nn.gelu(hidden @ layer["weight"] + layer["bias"])
        if key is not None:
            key, key_kept = jax.random.split(key)
            kept = jax.random.bernoulli(key_kept, 1 - dropout, hidden.shape)
            hidden = jnp.where(kept, hidden / (1 - dropout), 0)
    return hidden @ layers[-1]["weight"] + layers[-1]["bias"]


def n_steps(n_groups: int, batch_size: int) -> int:
    """Return the number of steps of an epoch: one for each batch, but at least `FEWEST_BATCHES` with enough groups."""
    return max(-(-n_groups // batch_size), min(FEWEST_BATCHES, n_groups))


def batches(rows: NDArray[np.integer], number: int) -> Batches:
    """Spread rows evenly over a number of batches; positions without a row have weight zero."""
    size = -(-len(rows) // number)
    chosen, weight = np.zeros((size, number), np.int32), np.zeros((size, number), np.float32)
    chosen.flat[: len(rows)], weight.flat[: len(rows)] = rows, 1
    return chosen.T.copy(), weight.T.copy()


def _optimizer(learning_rate: Any, decay: Any) -> optax.GradientTransformation:
    def is_weight(layers: Layers) -> list[dict[str, bool]]:
        return [{"weight": True, "bias": False} for _ in layers]

    return optax.adamw(learning_rate, weight_decay=decay, mask=is_weight)


def _batch_loss(
    head: Head, groups: Groups, layers: Layers, batch: tuple[Array, Array], dropout: Any = 0.0, key: Array | None = None
) -> Array:
    """Sum of the losses of a batch."""
    rows, weight = batch
    output = apply_layers(layers, groups.embedding[rows], dropout, key)
    return weight @ head.losses(output, groups.context[rows], groups.shares[rows])


@jax.jit
def _epoch(
    head: Head,
    groups: Groups,
    layers: Layers,
    state: optax.OptState,
    order: tuple[Array, Array],
    key: Array,
    settings: tuple[Array, Array, Array],
) -> tuple[Layers, optax.OptState]:
    learning_rate, decay, dropout = settings
    optimizer = _optimizer(learning_rate, decay)

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        layers, state = carry
        (rows, weight), key = batch
        gradient = jax.grad(lambda layers: _batch_loss(head, groups, layers, (rows, weight), dropout, key))(layers)
        size = jnp.maximum(weight.sum(), 1)
        gradient = jax.tree.map(lambda array: array / size, gradient)
        update, state = optimizer.update(gradient, state, layers)
        return (optax.apply_updates(layers, update), state), None

    carry, _ = jax.lax.scan(step, (layers, state), (order, jax.random.split(key, len(order[0]))))
    return carry


@jax.jit
def _mean_loss(head: Head, groups: Groups, layers: Layers, order: tuple[Array, Array]) -> Array:
    total, _ = jax.lax.scan(
        lambda total, batch: (total + _batch_loss(head, groups, layers, batch), None), jnp.float32(0), order
    )
    return total / order[1].sum()
