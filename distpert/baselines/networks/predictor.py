"""Networks fitted to a screen, and their predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

from distpert._shared.arguments import check_seed
from distpert.baselines.networks.training import Groups, Head, Layers, apply_layers
from distpert.baselines.networks.tuning import NetworkSettings, Tuned, tune
from distpert.baselines.predictor import LabelPredictor
from distpert.baselines.shares import TrainingShares, check_training, stand_in
from distpert.embeddings.sources import EmbeddingSources
from distpert.embeddings.vectors import Embeddings
from distpert.histograms.histograms import Histograms
from distpert.model.warm_start import SHRINK_CELLS
from distpert.training.checks import check_embedded
from distpert.training.groups import TrainingGroups


class PredictingHead(Head, Protocol):
    """A head that also turns outputs into a prediction."""

    def predict(self, output: Float[Array, " output"]) -> Array:
        """Probabilities (context, gene, bin) or means (context, gene)."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class NetworkPredictor(LabelPredictor):
    """Fitted networks. The print-out says how they were chosen.

    Attributes
    ----------
    tuned : Tuned
        The networks, the settings that were tried, and their validation losses.
    """

    tuned: Tuned = field(kw_only=True)

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{self.tuned}"


def fit_networks(
    name: str,
    histograms: Histograms,
    embeddings: Embeddings,
    head_of: Callable[[TrainingShares], PredictingHead],
    settings: NetworkSettings,
    *,
    seed: int,
    what: Literal["probs", "means"] = "probs",
) -> NetworkPredictor:
    """Tune and train networks on the training perturbations that have an embedding.

    Parameters
    ----------
    name
        Name of the baseline.
    histograms, embeddings
        As in `Baseline.fit`, and checked by `check_networks`.
    head_of
        Function that makes the head from the shares of the perturbations to train on.
    settings
        The settings to try.
    seed
        Seed of all random numbers.
    what
        What the head predicts.
    """
    training = TrainingGroups(histograms)
    known = [label for label in training.perturbations if embeddings.has(label)]
    rows = np.flatnonzero(np.isin(training.label, known))
    perturbation = np.searchsorted(known, training.label[rows])
    groups = Groups(
        embedding=jnp.asarray(embeddings.of(known)[perturbation]),
        context=jnp.asarray(training.context[rows], jnp.int32),
        shares=jnp.asarray(training.counts[rows] / training.n_cells[rows, None, None], jnp.float32),
    )

    def head_without(validation: NDArray[np.integer]) -> PredictingHead:
        held_out = {known[i] for i in validation}
        return head_of(TrainingShares(histograms.drop(held_out) if held_out else histograms))

    tuned = tune(head_without, groups, perturbation, settings, seed=check_seed(seed))

    def of_label(label: str) -> NDArray[np.float64]:
        # One label at a time: a matrix product of several labels would differ in the last bits.
        predicted = np.asarray(_predict(tuned.head, tuned.networks, embeddings.of([label])), np.float64)
        return predicted / predicted.sum(axis=-1, keepdims=True) if what == "probs" else predicted

    return NetworkPredictor(name, histograms, embeddings, of_label, what, tuned=tuned)


@jax.jit
def _predict(head: PredictingHead, networks: tuple[Layers, ...], embedding: Float[Array, "1 dim"]) -> Array:
    return jnp.mean(jnp.stack([head.predict(apply_layers(layers, embedding)[0]) for layers in networks]), axis=0)


def check_networks(histograms: Histograms, embeddings: EmbeddingSources) -> Embeddings:
    """Check that networks can learn from the training, and read the embeddings.

    Returns
    -------
    Embeddings

    Raises
    ------
    TypeError, ValueError
        As `check_training` does, or if fewer than 3 training perturbations have an embedding.

    Warns
    -----
    UserWarning
        If training perturbations have no embedding. The warning names them.
    """
    embeddings = check_training(histograms, embeddings)
    others = "the network does not learn from them"
    check_embedded(histograms.perturbations, embeddings, others=others, stacklevel=4)
    return embeddings


def pooled_logits(shares: TrainingShares) -> NDArray[np.float64]:
    """Log of the pooled histograms (context, gene, bin), shrunk towards those of control.

    In a context without perturbed cells, the control histogram gets the average shift of the other contexts.
    """
    n = shares.n_pooled[:, None, None]
    control = shares.smoothed_control
    shrunken = (n * shares.pooled + SHRINK_CELLS * control) / (n + SHRINK_CELLS)
    return np.log(control) + stand_in(np.log(shrunken / control), shares.n_pooled > 0)
