"""Markov chain Monte Carlo on the same model: slow, and the referee of faster inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_number
from distpert.model.generative import SITES, Batch, Design, model
from distpert.model.priors import Priors

# Sites whose prior scale is itself unknown. Chains move more freely in their multiples of the scale.
NON_CENTERED = ("common", "shift", "loading", "log_concentration")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the no-U-turn sampler runs.

    Attributes
    ----------
    num_warmup, num_samples : int
        Steps of each chain: first those that adapt the sampler, then those that are kept.
    num_chains : int
        Number of chains, which run side by side.
    target_accept_prob : float
        Acceptance probability that the step size aims at, between 0 and 1. Greater values take smaller steps, with
        fewer divergences.
    max_tree_depth : int
        A step of the chain evaluates the gradient at most 2 to this power times.

    Raises
    ------
    ValueError
        If a number is out of range.

    See Also
    --------
    distpert.fit, distpert.Optimization

    Examples
    --------
    >>> settings = distpert.Sampling(num_samples=1000)  # doctest: +SKIP
    >>> distpert.fit(adata, embeddings, inference="nuts", sampling=settings)  # doctest: +SKIP
    """

    num_warmup: int = 300
    num_samples: int = 500
    num_chains: int = 4
    target_accept_prob: float = 0.9
    max_tree_depth: int = 7

    def __post_init__(self) -> None:
        least = {"num_warmup": 1, "num_samples": 4, "num_chains": 1, "max_tree_depth": 1}
        for name, smallest in least.items():
            object.__setattr__(self, name, check_count(name, getattr(self, name), smallest))
        accept = check_number("target_accept_prob", self.target_accept_prob, above=0, below=1)
        object.__setattr__(self, "target_accept_prob", accept)


@dataclass(frozen=True, eq=False, repr=False)
class NumpyroModel:
    """The numpyro model of a screen, with its data; made by `Fit.numpyro_model`.

    Attributes
    ----------
    model : callable
        The model, a function of ``design`` and ``batch`` with the priors and the number of factors bound.
    design : Design
        Arrays that the model conditions on, among them the control counts.
    batch : Batch
        Counts of all groups of perturbed cells.
    start : dict
        Initial values by site, for example for ``numpyro.infer.init_to_value``.

    See Also
    --------
    distpert.Fit.numpyro_model, distpert.Fit.with_samples

    Examples
    --------
    >>> story = fit.numpyro_model()  # doctest: +SKIP
    >>> mcmc = numpyro.infer.MCMC(numpyro.infer.NUTS(story.model), num_warmup=500, num_samples=500)  # doctest: +SKIP
    >>> mcmc.run(jax.random.key(0), story.design, story.batch)  # doctest: +SKIP
    >>> own = fit.with_samples(mcmc.get_samples(group_by_chain=True))  # doctest: +SKIP
    """

    model: Callable[[Design, Batch], None]
    design: Design
    batch: Batch
    start: dict[str, NDArray]

    def __repr__(self) -> str:
        sizes = {name: np.shape(value) for name, value in self.start.items() if name in SITES}
        total = sum(int(np.prod(shape)) for shape in sizes.values())
        return f"NumpyroModel: {total:,} parameters in {len(sizes)} sites, {len(self.batch.perturbation):,} groups"


def bind_model(
    design: Design, batch: Batch, start: dict[str, NDArray], *, n_factors: int, priors: Priors
) -> NumpyroModel:
    """Bind the priors and sizes of a screen to the model."""
    n_groups = len(batch.perturbation)

    def story(design: Design, batch: Batch) -> None:
        model(design, batch, n_groups=n_groups, n_factors=n_factors, priors=priors)

    on_device = Design(*map(jnp.asarray, design)), Batch(*map(jnp.asarray, batch))
    return NumpyroModel(story, *on_device, start)


class Chains(NamedTuple):
    """Outcome of `run_chains`.

    Attributes
    ----------
    samples
        (chain, draw, ...) draws of all sites of the model.
    divergences
        Number of divergent transitions.
    at_depth
        Share of transitions that reached the greatest tree depth.
    """

    samples: dict[str, Array]
    divergences: int
    at_depth: float


def run_chains(story: NumpyroModel, settings: Sampling, *, seed: int, progress_bar: bool) -> Chains:
    """Run the no-U-turn sampler (Hoffman & Gelman 2014), from random starting points that differ between chains."""
    from numpyro.infer import MCMC, NUTS
    from numpyro.infer.reparam import LocScaleReparam

    reparameterized = numpyro.handlers.reparam(
        story.model, config={name: LocScaleReparam(0.0) for name in NON_CENTERED}
    )
    kernel = NUTS(
        reparameterized,
        target_accept_prob=settings.target_accept_prob,
        max_tree_depth=settings.max_tree_depth,
    )
    chains = MCMC(
        kernel,
        num_warmup=settings.num_warmup,
        num_samples=settings.num_samples,
        num_chains=settings.num_chains,
        chain_method="vectorized",
        progress_bar=progress_bar,
    )
    chains.run(jax.random.key(seed), story.design, story.batch, extra_fields=("diverging", "num_steps"))
    extra = chains.get_extra_fields()
    at_depth = np.asarray(extra["num_steps"]) >= 2**settings.max_tree_depth - 1
    return Chains(chains.get_samples(group_by_chain=True), int(extra["diverging"].sum()), float(at_depth.mean()))
