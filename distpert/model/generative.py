"""The generative model, and the variational family of its posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro import distributions as dist

from distpert.model.gaussian_process import PRECISION, KernelNormal
from distpert.model.likelihood import DirichletCategorical
from distpert.model.priors import Priors
from distpert.model.random_walk import SmoothWalk

Data: TypeAlias = Array | np.ndarray

SHAPES = ("common", "context_shift", "loading")  # sites of logits (…, gene, bin)


class Design(NamedTuple):
    """Arrays that the model conditions on, apart from the counts of a minibatch of groups.

    Attributes
    ----------
    log_control
        (context, gene, bin) log of the smoothed control histograms.
    eigenvalues, eigenvectors
        (perturbation,) and (perturbation, perturbation), of the kernel on embeddings.
    tilts
        (context, gene, tilt, bin) directions in which a perturbed gene's own histogram may shift.
    targets
        (perturbation, target) index of each perturbed gene among the genes; the number of genes if it is not measured.
    """

    log_control: Data
    eigenvalues: Data
    eigenvectors: Data
    tilts: Data
    targets: Data


class Batch(NamedTuple):
    """Groups of cells.

    Attributes
    ----------
    counts
        (group, gene, bin); None if they are drawn.
    n_cells, perturbation, context
        (group,) numbers of cells, and indices of perturbations and contexts.
    weight
        (group,) or one number: 0 for a group that only fills up a minibatch, about 1 for all others.
    """

    counts: Data | None
    n_cells: Data
    perturbation: Data
    context: Data
    weight: Data | float = 1.0


def shifted_logits(
    design: Design,
    perturbation: Data,
    context: Data,
    common: Array,
    loading: Array,
    response: Array,
    on_target: Array,
) -> Array:
    """Logits log h_ctrl + β + z Λ, plus the tilt of each perturbed gene's own histogram.

    Shapes: ``perturbation`` and ``context`` (group,); ``common`` ([context,] gene, bin); ``loading`` (factor, gene,
    bin); ``response`` (perturbation, factor); ``on_target`` (perturbation, tilt). Returns (group, gene, bin).
    """
    base = rows(jnp.asarray(design.log_control) + common, context)
    logits = base + jnp.tensordot(rows(response, perturbation), loading, axes=1, precision=PRECISION)
    targets = design.targets[perturbation]
    padded = jnp.pad(design.tilts, ((0, 0), (0, 1), (0, 0), (0, 0)))  # zero for a target that is not measured
    tilts = padded[context[:, None], targets]
    tilt = jnp.einsum("rj,rtjb->rtb", rows(on_target, perturbation), tilts, precision=PRECISION)
    return logits.at[jnp.arange(len(targets))[:, None], targets].add(tilt, mode="drop")


def rows(values: Array, chosen: Data) -> Array:
    """``values[chosen]`` as a matrix product.

    Its gradient is summed in the same order each time. The gradient of indexing is not, on a GPU, and the same seed
    would give different fits.
    """
    return jnp.tensordot(jax.nn.one_hot(chosen, len(values)), values, axes=1, precision=PRECISION)


def model(design: Design, batch: Batch, n_groups: int, n_factors: int, priors: Priors) -> None:
    """Generate the histograms of a screen; ``batch`` represents all ``n_groups`` groups."""
    n_contexts, n_genes, n_tilts, n_bins = design.tilts.shape
    n_perturbations = len(design.targets)
    walk = dist.GaussianRandomWalk

    # The common shift, which any perturbation causes, and the directions in which perturbations differ.
    common = numpyro.sample("common", walk(priors.common, n_bins).expand([n_genes]).to_event(1))
    if n_contexts > 1:
        deviation = walk(priors.context, n_bins).expand([n_contexts, n_genes]).to_event(2)
        common = common + numpyro.sample("context_shift", deviation)
    direction = SmoothWalk(priors.loading, priors.loading_smoothness, n_bins)
    loading = numpyro.sample("loading", direction.expand([n_factors, n_genes]).to_event(2))

    # The response of each perturbation: a share of its variance follows the kernel, the rest is its own.
    share = numpyro.sample("explained_share", dist.Beta(*priors.share).expand([n_factors]).to_event(1))
    kernel = KernelNormal(share, design.eigenvalues, design.eigenvectors)
    response = numpyro.sample("response", kernel.to_event(1)).T

    # The tilt of the perturbed gene's own histogram, on ranks in its control distribution.
    tilt_mean = numpyro.sample("tilt_mean", dist.Normal(0, 2).expand([n_tilts]).to_event(1))
    tilt_scale = numpyro.sample("tilt_scale", dist.HalfNormal(2).expand([n_tilts]).to_event(1))
    on_target = numpyro.sample(
        "on_target", dist.Normal(tilt_mean, tilt_scale).expand([n_perturbations, n_tilts]).to_event(2)
    )

    # The histogram of a group varies about its expectation, more so if the concentration of the gene is small.
    log_concentration = numpyro.sample(
        "log_concentration", dist.Normal(*priors.log_concentration).expand([n_genes]).to_event(1)
    )
    logits = shifted_logits(design, batch.perturbation, batch.context, common, loading, response, on_target)
    with numpyro.handlers.scale(scale=batch.weight * (n_groups / len(batch.perturbation))):
        histogram = DirichletCategorical(logits, log_concentration, batch.n_cells[:, None])
        numpyro.sample("counts", histogram.to_event(1), obs=batch.counts)


def guide(design: Design, batch: Batch, start: Mapping[str, Array]) -> None:
    """Variational family: normals for the responses and tilts of each perturbation, point estimates for all else.

    ``start`` has the initial values by site, and for normals also the standard deviations by site and ``_scale``. Its
    ``stride`` (gene, bin) is the unit in which `SHAPES` are optimized: each step moves rare bins further than others.
    """
    real, positive = dist.constraints.real, dist.constraints.softplus_positive

    def point(name: str, constraint: dist.constraints.Constraint) -> None:
        unit = start["stride"] if name in SHAPES else 1.0
        value = unit * numpyro.param(f"{name}_value", start[name] / unit, constraint=constraint)
        numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))

    def normal(name: str) -> None:
        mean = numpyro.param(f"{name}_mean", start[name])
        scale = numpyro.param(f"{name}_scale", start[f"{name}_scale"], constraint=positive)
        numpyro.sample(name, dist.Normal(mean, scale).to_event(mean.ndim))

    point("common", real)
    if "context_shift" in start:
        point("context_shift", real)
    point("loading", real)
    point("explained_share", dist.constraints.unit_interval)
    normal("response")
    point("tilt_mean", real)
    point("tilt_scale", positive)
    normal("on_target")
    point("log_concentration", real)
