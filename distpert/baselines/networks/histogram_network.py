"""The network of Ramakrishnan et al. (2025), which shifts control histograms, and one that shifts means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass
from jaxtyping import Float, Int

from distpert.baselines.networks.predictor import NetworkPredictor, check_networks, fit_networks, pooled_logits
from distpert.baselines.networks.tuning import NetworkSettings
from distpert.baselines.shares import TrainingShares
from distpert.embeddings.sources import EmbeddingSources
from distpert.histograms.histograms import Histograms

WASSERSTEIN_WEIGHT = 0.75


@dataclass(frozen=True, kw_only=True)
class HistogramNetwork(NetworkSettings):
    r"""A network that predicts shifts Δ of the logits of all bins from the embedding e (Ramakrishnan et al. 2025).

    .. math:: \hat h_{pcg} = \operatorname{softmax}\big(\log h^\text{base}_{cg} + \Delta_{\theta, g}(e_p)\big)

    It is trained on one of two losses, averaged over genes and training groups (a perturbation in a context). With F
    and F_n the predicted and empirical CDF, w the bin width, and x_b the bin centers, they are

    .. math::
        \tfrac34 \, w \sum_b |F_b - F_{n,b}| + \tfrac14 \Big(\sum_b x_b (\hat h_b - n_b / n)\Big)^2
        \qquad\text{or}\qquad -\tfrac1n \sum_b n_b \log \hat h_b

    In the paper, shifts start from the control histograms. Four changes make the network stronger here:

    - Settings are tuned, and training is stopped early, on held-out training perturbations (see the parameters from
      ``hidden`` on).
    - Control histograms are smoothed as in the model.
    - Shifts start from the pooled histogram of each context. The Wasserstein loss hardly sees the tails, which matter
      for the likelihood, and contexts differ in the shift that all perturbations share.
    - The predictions of a few networks are averaged.

    Parameters
    ----------
    loss : {"wasserstein", "cross_entropy"}
        Loss of the training; the paper uses ``"wasserstein"``.
    start : {"pooled", "control"}
        Histogram of the context from which shifts start, and which an untrained network predicts; the paper uses
        ``"control"``.
    hidden : tuple of tuple of int
        Widths of the hidden layers, to choose from.
    learning_rates : tuple of float
        Step sizes of AdamW, to choose from.
    dropouts : tuple of float
        Shares of hidden units to drop in each step, to choose from.
    decays : tuple of float
        Weight decays, to choose from.
    max_epochs : int
        Largest number of epochs.
    patience : int
        Training stops after this many epochs without a lower validation loss.
    validation_share : float
        Share of the training perturbations in a validation fold.
    batch_size : int
        Largest number of groups in a step.
    n_networks : int
        Number of networks to average.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    distpert.baselines.MeanNetwork, distpert.baselines.TruncatedGaussian

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> network = distpert.baselines.HistogramNetwork(loss="cross_entropy")  # doctest: +SKIP
    >>> network.fit(histograms, embeddings).predict("NANOG").histogram()  # doctest: +SKIP
    """

    loss: Literal["wasserstein", "cross_entropy"] = "wasserstein"
    start: Literal["pooled", "control"] = "pooled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ("wasserstein", "cross_entropy"):
            raise ValueError(f"loss must be 'wasserstein' or 'cross_entropy', not {self.loss!r}")
        if self.start not in ("pooled", "control"):
            raise ValueError(f"start must be 'pooled' or 'control', not {self.start!r}")

    @property
    def name(self) -> str:
        """Short name."""
        return "network" if self.loss == "wasserstein" else "network_cross_entropy"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> NetworkPredictor:
        """Tune and train networks; see `Baseline.fit`.

        Raises
        ------
        ValueError
            If a context has no control cells, or fewer than 3 training perturbations have an embedding.

        Warns
        -----
        UserWarning
            If training perturbations have no embedding. The warning names them; the network does not learn from them.

        Examples
        --------
        >>> network = distpert.baselines.HistogramNetwork(n_networks=1)  # doctest: +SKIP
        >>> predictor = network.fit(histograms, embeddings, seed=1)  # doctest: +SKIP
        >>> predictor.predict(["NANOG", "SOX2"], context="5").histogram()  # doctest: +SKIP
        """
        embeddings = check_networks(histograms, embeddings)
        return fit_networks(self.name, histograms, embeddings, self._head, self, seed=seed)

    def _head(self, shares: TrainingShares) -> HistogramHead:
        base = pooled_logits(shares) if self.start == "pooled" else np.log(shares.smoothed_control)
        return HistogramHead(
            log_base=jnp.asarray(base, jnp.float32),
            width=jnp.asarray(shares.histograms.widths.to_numpy(), jnp.float32),
            centers=jnp.asarray(shares.histograms.centers.to_numpy(), jnp.float32),
            loss=self.loss,
        )


@dataclass(frozen=True, kw_only=True)
class MeanNetwork(NetworkSettings):
    r"""A network that predicts shifts of the means of all genes from the embedding (MLP + mean in Ramakrishnan et al.).

    .. math:: \hat\mu_{pcg} = \mu^\text{pooled}_{cg} + \Delta_{\theta, g}(e_p)

    It is trained on squared errors in the units of the data, averaged over genes and training groups. Shifts start from
    the mean of all perturbed cells of a context. Settings are tuned and networks averaged as in `HistogramNetwork`.
    Predicts means only.

    Parameters
    ----------
    hidden : tuple of tuple of int
        Widths of the hidden layers, to choose from.
    learning_rates : tuple of float
        Step sizes of AdamW, to choose from.
    dropouts : tuple of float
        Shares of hidden units to drop in each step, to choose from.
    decays : tuple of float
        Weight decays, to choose from.
    max_epochs : int
        Largest number of epochs.
    patience : int
        Training stops after this many epochs without a lower validation loss.
    validation_share : float
        Share of the training perturbations in a validation fold.
    batch_size : int
        Largest number of groups in a step.
    n_networks : int
        Number of networks to average.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    distpert.baselines.HistogramNetwork, distpert.baselines.Ridge

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> network = distpert.baselines.MeanNetwork().fit(histograms, embeddings)  # doctest: +SKIP
    >>> network.predict("NANOG").moments()["mean"]  # doctest: +SKIP
    """

    name: ClassVar[str] = "network_mean"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> NetworkPredictor:
        """Tune and train networks; see `HistogramNetwork.fit`.

        Examples
        --------
        >>> network = distpert.baselines.MeanNetwork(n_networks=1)  # doctest: +SKIP
        >>> predictor = network.fit(histograms, embeddings, seed=1)  # doctest: +SKIP
        >>> predictor.predict(["NANOG", "SOX2"], context="5").moments()["mean"]  # doctest: +SKIP
        """
        embeddings = check_networks(histograms, embeddings)
        return fit_networks(self.name, histograms, embeddings, _mean_head, self, seed=seed, what="means")


def _mean_head(shares: TrainingShares) -> MeanHead:
    centers = shares.histograms.centers.to_numpy()
    base = (shares.pooled * centers).sum(axis=-1)
    return MeanHead(base=jnp.asarray(base, jnp.float32), centers=jnp.asarray(centers, jnp.float32))


@register_dataclass
@dataclass(frozen=True, eq=False)
class HistogramHead:
    """Reads the outputs of a network as shifts of the logits of base histograms.

    Attributes
    ----------
    log_base : Array, shape (context, gene, bin)
    width : Array, shape (gene,)
    centers : Array, shape (gene, bin)
    loss : str
    """

    log_base: Float[Array, "context gene bin"]
    width: Float[Array, " gene"]
    centers: Float[Array, "gene bin"]
    loss: str = field(metadata={"static": True})

    @property
    def n_outputs(self) -> int:
        """One number for each bin."""
        return self.centers.size

    def losses(
        self,
        output: Float[Array, "group output"],
        context: Int[Array, " group"],
        shares: Float[Array, "group gene bin"],
    ) -> Float[Array, " group"]:
        """Loss of each group; see `HistogramNetwork`."""
        log_probs = jax.nn.log_softmax(self.log_base[context] + output.reshape(shares.shape), axis=-1)
        if self.loss == "cross_entropy":
            return -(shares * log_probs).sum(axis=-1).mean(axis=-1)
        excess = jnp.exp(log_probs) - shares
        wasserstein = self.width * jnp.abs(excess.cumsum(axis=-1)).sum(axis=-1)
        squared = (excess * self.centers).sum(axis=-1) ** 2
        return (WASSERSTEIN_WEIGHT * wasserstein + (1 - WASSERSTEIN_WEIGHT) * squared).mean(axis=-1)

    def predict(self, output: Float[Array, " output"]) -> Float[Array, "context gene bin"]:
        """Bin probabilities."""
        return jax.nn.softmax(self.log_base + output.reshape(self.centers.shape), axis=-1)


@register_dataclass
@dataclass(frozen=True, eq=False)
class MeanHead:
    """Reads the outputs of a network as shifts of base means.

    Attributes
    ----------
    base : Array, shape (context, gene)
    centers : Array, shape (gene, bin)
    """

    base: Float[Array, "context gene"]
    centers: Float[Array, "gene bin"]

    @property
    def n_outputs(self) -> int:
        """One number for each gene."""
        return len(self.centers)

    def losses(
        self,
        output: Float[Array, "group output"],
        context: Int[Array, " group"],
        shares: Float[Array, "group gene bin"],
    ) -> Float[Array, " group"]:
        """Squared error of each group's means."""
        observed = (shares * self.centers).sum(axis=-1)
        return ((self.base[context] + output - observed) ** 2).mean(axis=-1)

    def predict(self, output: Float[Array, " output"]) -> Float[Array, "context gene"]:
        """Means."""
        return self.base + output
