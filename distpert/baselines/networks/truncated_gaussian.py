"""Truncated Gaussians with parameters from a network, with or without a separate share of zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import log_ndtr
from jax.tree_util import register_dataclass
from jaxtyping import Float, Int
from scipy.special import softmax

from distpert.baselines.networks.predictor import NetworkPredictor, check_networks, fit_networks, pooled_logits
from distpert.baselines.networks.tuning import NetworkSettings
from distpert.baselines.shares import TrainingShares
from distpert.embeddings.sources import EmbeddingSources
from distpert.histograms.histograms import Histograms

NEWTON_STEPS = 40
# Fixes parameters that the histogram does not determine, for instance where nearly all cells are in one bin.
RIDGE = 1e-5
# Log scales, in units of the gene's range. Beyond them, the bins look the same for all scales.
LOG_SCALE_BOUNDS = (math.log(0.005), math.log(20.0))
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class TruncatedGaussian(NetworkSettings):
    r"""A Gaussian truncated to the range of each gene, optionally with extra zeros (TG, ZITG in Ramakrishnan et al.).

    With the gene's bins as B equal parts of [0, 1],

    .. math::
        q_b \propto \Phi\Big(\frac{b/B - m}{s}\Big) - \Phi\Big(\frac{(b-1)/B - m}{s}\Big), \qquad
        \hat h_b = (1 - \varepsilon) \big[ z \, 1\{b = 1\} + (1 - z) \, q_b \big] + \frac{\varepsilon}{B}

    where z is the share of cells at zero in excess of the Gaussian; TG has z = 0. (m₀, s₀, z₀) are the parameters of
    greatest likelihood for the pooled histogram of each context. A network predicts shifts from the embedding:

    .. math::
        m = m_0 + s_0 \Delta^m(e_p), \quad \log s = \log s_0 + \Delta^s(e_p), \quad
        \operatorname{logit} z = \operatorname{logit} z_0 + \Delta^z(e_p)

    It is trained on the cross-entropy of the cells. The paper's network predicts mean and variance and is trained on
    them. But moments of a truncated Gaussian cannot take every value, and errors of moments are no proper score of the
    whole distribution, which is compared here. ε has the weight of one cell among the controls, and keeps every bin
    possible. Settings are tuned and networks averaged as in `HistogramNetwork`.

    Parameters
    ----------
    zero_inflated : bool
        Whether zeros, a point mass in the first bin, have a probability of their own.
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
    distpert.baselines.HistogramNetwork

    References
    ----------
    Ramakrishnan et al. (2025), arXiv:2507.02980.

    Examples
    --------
    >>> gaussian = distpert.baselines.TruncatedGaussian(zero_inflated=True)  # doctest: +SKIP
    >>> gaussian.fit(histograms, embeddings).predict("NANOG").histogram()  # doctest: +SKIP
    """

    zero_inflated: bool = False

    @property
    def name(self) -> str:
        """Short name."""
        return "zero_inflated_gaussian" if self.zero_inflated else "truncated_gaussian"

    def fit(self, histograms: Histograms, embeddings: EmbeddingSources, *, seed: int = 0) -> NetworkPredictor:
        """Tune and train networks; see `HistogramNetwork.fit`.

        Examples
        --------
        >>> gaussian = distpert.baselines.TruncatedGaussian(n_networks=1)  # doctest: +SKIP
        >>> predictor = gaussian.fit(histograms, embeddings, seed=1)  # doctest: +SKIP
        >>> predictor.predict(["NANOG", "SOX2"], context="5").histogram()  # doctest: +SKIP
        """
        embeddings = check_networks(histograms, embeddings)
        return fit_networks(self.name, histograms, embeddings, self._head, self, seed=seed)

    def _head(self, shares: TrainingShares) -> GaussianHead:
        probs = softmax(pooled_logits(shares), axis=-1)
        epsilon = 1 / (shares.n_control + 1)
        flat = jnp.asarray(probs.reshape(-1, probs.shape[-1]), jnp.float32)
        repeated = jnp.asarray(np.repeat(epsilon, probs.shape[1]), jnp.float32)
        base = fit_parameters(flat, repeated, zero_inflated=self.zero_inflated).reshape(*probs.shape[:-1], -1)
        return GaussianHead(base, jnp.asarray(epsilon, jnp.float32), probs.shape[-1])


@register_dataclass
@dataclass(frozen=True, eq=False)
class GaussianHead:
    """Reads outputs of a network as shifts of parameters: location in units of the scale, log scale, logit of zeros.

    Attributes
    ----------
    base : Array, shape (context, gene, parameter)
    epsilon : Array, shape (context,)
    n_bins : int
    """

    base: Float[Array, "context gene parameter"]
    epsilon: Float[Array, " context"]
    n_bins: int = field(metadata={"static": True})

    @property
    def n_outputs(self) -> int:
        """One number for each parameter of each gene."""
        return self.base[0].size

    def losses(
        self,
        output: Float[Array, "group output"],
        context: Int[Array, " group"],
        shares: Float[Array, "group gene bin"],
    ) -> Float[Array, " group"]:
        """Cross-entropy of each group."""
        shift = output.reshape(*shares.shape[:-1], -1)
        return -(shares * jnp.log(self._probs(shift, context))).sum(axis=-1).mean(axis=-1)

    def predict(self, output: Float[Array, " output"]) -> Float[Array, "context gene bin"]:
        """Bin probabilities."""
        return self._probs(output.reshape(self.base.shape[1:]), jnp.arange(len(self.base)))

    def _probs(self, shift: Array, context: Array) -> Array:
        base = self.base[context]
        probs = bin_probs(base + _units(base) * shift, self.n_bins)
        return smooth_probs(probs, self.epsilon[context][:, None])


def bin_probs(parameters: Float[Array, "... parameter"], n_bins: int) -> Float[Array, "... bin"]:
    """Probabilities of the bins, B equal parts of [0, 1], under a Gaussian truncated to [0, 1].

    Parameters
    ----------
    parameters
        Location, log scale and, with separate zeros, the logit of their share, which is added to the first bin.
    n_bins
        Number B of bins.
    """
    log_scale = jnp.clip(parameters[..., 1], *LOG_SCALE_BOUNDS)
    probs = _gaussian_probs(parameters[..., 0], log_scale, n_bins)
    if parameters.shape[-1] == 2:
        return probs
    zeros = jax.nn.sigmoid(parameters[..., 2, None])
    return (1 - zeros) * probs + zeros * (jnp.arange(n_bins) == 0)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _gaussian_probs(location: Array, log_scale: Array, n_bins: int) -> Array:
    return _gaussian_bins(location, log_scale, n_bins)[0]


@_gaussian_probs.defjvp
def _gaussian_probs_jvp(
    n_bins: int, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Differentiate through the densities at the edges. JAX's own derivative takes five times as long on a CPU."""
    probs, edges, log_total = _gaussian_bins(*primals, n_bins)
    density = jnp.exp(-0.5 * edges**2 - HALF_LOG_TWO_PI - log_total)
    location, log_scale = (tangent[..., None] for tangent in tangents)
    cdf = -density * (location * jnp.exp(-primals[1])[..., None] + edges * log_scale)
    return probs, jnp.diff(cdf, axis=-1) - probs * (cdf[..., -1:] - cdf[..., :1])


def _gaussian_bins(location: Array, log_scale: Array, n_bins: int) -> tuple[Array, Array, Array]:
    """Probabilities of the bins, their standardized edges, and the log of Φ's increase over all of them."""
    edges = (jnp.arange(n_bins + 1, dtype=jnp.float32) / n_bins - location[..., None]) / jnp.exp(log_scale)[..., None]
    low, high = edges[..., :-1], edges[..., 1:]
    # Above the location, use the tails of the other side. Φ is small there, and differences keep their digits.
    above = low + high > 0
    low, high = jnp.where(above, -high, low), jnp.where(above, -low, high)
    less, greater = log_ndtr(low), log_ndtr(high)
    # In units of the greatest value, because the whole range may lie far out in a tail.
    unit = greater.max(axis=-1, keepdims=True)
    masses = jnp.exp(greater - unit) - jnp.exp(less - unit)
    total = masses.sum(axis=-1, keepdims=True)
    return masses / total, edges, unit + jnp.log(total)


def smooth_probs(probs: Float[Array, "... bin"], epsilon: Float[Array, ...]) -> Float[Array, "... bin"]:
    """Probabilities with a share ε spread evenly over the bins."""
    return (1 - epsilon[..., None]) * probs + epsilon[..., None] / probs.shape[-1]


@partial(jax.jit, static_argnames="zero_inflated")
def fit_parameters(
    histograms: Float[Array, "histogram bin"], epsilon: Float[Array, " histogram"], *, zero_inflated: bool
) -> Float[Array, "histogram parameter"]:
    """Parameters of greatest likelihood for histograms, as `bin_probs` takes them.

    Newton's method for each histogram, with the damping of Levenberg and Marquardt: a step that does not raise the
    likelihood is not taken, and the next one is shorter.
    """
    n_bins = histograms.shape[-1]
    initial = jax.vmap(partial(_from_moments, zero_inflated=zero_inflated))(histograms)

    def loss(parameters: Array, start: Array, histogram: Array, epsilon: Array) -> Array:
        log_probs = jnp.log(smooth_probs(bin_probs(parameters, n_bins), epsilon))
        return -(histogram * log_probs).sum() + RIDGE * ((parameters - start) ** 2).sum()

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        parameters, damping = state
        about = (parameters, initial, histograms, epsilon)
        value, gradient = jax.vmap(jax.value_and_grad(loss))(*about)
        curvature = jax.vmap(jax.hessian(loss))(*about)
        damped = curvature + damping[:, None, None] * jnp.eye(parameters.shape[-1], dtype=jnp.float32)
        proposed = parameters - jnp.linalg.solve(damped, gradient[..., None])[..., 0]
        better = jax.vmap(loss)(proposed, *about[1:]) < value
        damping = jnp.where(better, jnp.maximum(damping / 3, 1e-6), jnp.minimum(damping * 4, 1e6))
        return (jnp.where(better[:, None], proposed, parameters), damping), None

    damping = jnp.ones(len(histograms), jnp.float32)
    (parameters, _), _ = jax.lax.scan(step, (initial, damping), length=NEWTON_STEPS)
    return parameters


def _from_moments(probs: Float[Array, " bin"], zero_inflated: bool) -> Float[Array, " parameter"]:
    """Start of the search: mean and log standard deviation; with separate zeros, those of the other bins."""
    n_bins = len(probs)
    bins = jnp.arange(n_bins)
    centers = (bins + 0.5) / n_bins
    counted = jnp.where(zero_inflated & (bins == 0), 0, probs)
    total = counted.sum()
    mean = (counted @ centers) / total
    log_scale = 0.5 * jnp.log((counted @ (centers - mean) ** 2) / total + (0.3 / n_bins) ** 2)
    if not zero_inflated:
        return jnp.stack([mean, log_scale])
    zeros = jnp.clip(1 - total, 0.01, 0.99)
    return jnp.stack([mean, log_scale, jnp.log(zeros / (1 - zeros))])


def _units(base: Float[Array, "... parameter"]) -> Float[Array, "... parameter"]:
    """Return the units of shifts: the scale for locations, one for the other parameters."""
    return jnp.ones_like(base).at[..., 0].set(jnp.exp(base[..., 1]))
