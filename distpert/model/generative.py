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
from numpyro.distributions import constraints

from distpert.model.gaussian_process import PRECISION, KernelNormal
from distpert.model.likelihood import Categorical, DirichletCategorical
from distpert.model.priors import Priors

Data: TypeAlias = Array | np.ndarray

# Sites in the order of the model. Those with a constraint get a point estimate in the guide, all others a normal.
_POSITIVE = constraints.softplus_positive
SITES: dict[str, constraints.Constraint | None] = {
    "level": None,
    "common_size": _POSITIVE,
    "common": None,
    "context_size": _POSITIVE,
    "shift": None,
    "factor_size": _POSITIVE,
    "direction_size": _POSITIVE,
    "loading": None,
    "explained_share": constraints.unit_interval,
    "response": None,
    "tilt_mean": constraints.real,
    "tilt_scale": _POSITIVE,
    "on_target": None,
    "typical_log_concentration": constraints.real,
    "log_concentration_spread": _POSITIVE,
    "log_concentration": None,
}


class Design(NamedTuple):
    """Arrays that the model conditions on, apart from the counts of a minibatch of groups.

    Attributes
    ----------
    log_pooled
        (context, gene, bin) log of the histograms of all cells, about which the level varies.
    basis
        (gene, bin, direction) directions in which logits may shift, see `shift_basis`.
    perturbed_share
        (context,) share of the cells that are perturbed.
    control_counts
        (context, gene, bin) counts of the control cells.
    eigenvalues, eigenvectors
        (eigen,) and (perturbation, eigen), of the kernel on embeddings; with thousands of perturbations the leading
        ones.
    kernel_rest
        Eigenvalue that stands for all others, see `remainder`.
    tilts
        (context, gene, tilt, bin) directions in which a perturbed gene's own histogram may shift.
    targets
        (perturbation, target) index of each perturbed gene among the genes; the number of genes if it is not measured.
    """

    log_pooled: Data
    basis: Data
    perturbed_share: Data
    control_counts: Data
    eigenvalues: Data
    eigenvectors: Data
    tilts: Data
    targets: Data
    kernel_rest: Data | float = 1.0


class Batch(NamedTuple):
    """Groups of cells.

    Attributes
    ----------
    counts
        (group, gene, bin), of any numeric type; None if they are drawn.
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


def along_bins(coordinates: Array, basis: Data) -> Array:
    """Shifts (..., gene, bin) with given coordinates (..., gene, direction)."""
    return jnp.einsum("...gj,gbj->...gb", coordinates, basis, precision=PRECISION)


def base_logits(design: Design, level: Array, shift: Array) -> tuple[Array, Array]:
    r"""Logits (context, gene, bin) of controls, and of perturbed cells with the response zero.

    .. math:: \log \bar h + V (a - \phi\, b) \quad \text{and} \quad \log \bar h + V (a + (1 - \phi)\, b)

    with the level a, the shift b and the share :math:`\phi` of perturbed cells. The more cells, the nearer to
    the level: what all cells tell about it does not depend on the shift, and the two are nearly independent in the
    posterior.
    """
    share = jnp.asarray(design.perturbed_share)[:, None, None]
    control = jnp.asarray(design.log_pooled) + along_bins(level - share * shift, design.basis)
    return control, control + along_bins(shift, design.basis)


def shifted_logits(
    design: Design,
    perturbation: Data,
    context: Data,
    base: Array,
    loadings: Array,
    response: Array,
    on_target: Array,
) -> Array:
    """Logits base + z Λ, plus the tilt of each perturbed gene's own histogram.

    Shapes: ``perturbation`` and ``context`` (group,); ``base`` (context, gene, bin); ``loadings`` (factor, gene,
    bin); ``response`` (perturbation, factor); ``on_target`` (perturbation, tilt). Returns (group, gene, bin).
    """
    logits = rows(base, context)
    logits = logits + jnp.tensordot(rows(response, perturbation), loadings, axes=1, precision=PRECISION)
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


def model(design: Design, batch: Batch, *, n_groups: int, n_factors: int, priors: Priors) -> None:
    """Generate the histograms of a screen; ``batch`` represents all ``n_groups`` groups of perturbed cells."""
    n_contexts, n_genes, n_tilts, _ = design.tilts.shape
    n_perturbations, n_directions = len(design.targets), design.basis.shape[-1]

    def normal(name: str, mean: Array | float, size: Array | float, *lead: int) -> Array:
        """Coordinates of shifts."""
        return numpyro.sample(name, dist.Normal(mean, size).expand([*lead, n_genes, n_directions]).to_event())

    # The level of each context, and the shift that any perturbation causes there.
    level = normal("level", 0.0, priors.level, n_contexts)
    size = numpyro.sample("common_size", dist.HalfNormal(priors.common))
    common: Array | float = 0.0
    if n_contexts > 1:
        common = normal("common", 0.0, size)
        size = numpyro.sample("context_size", dist.HalfNormal(priors.context))
    shift = normal("shift", common, size, n_contexts)
    control, base = base_logits(design, level, shift)
    numpyro.sample("control_counts", Categorical(control).to_event(2), obs=design.control_counts)

    # The directions in which perturbations differ. A factor that the data do not need gets a size near zero.
    factor_size = numpyro.sample("factor_size", dist.HalfNormal(priors.loading).expand([n_factors]).to_event())
    direction_size = numpyro.sample(
        "direction_size", dist.LogNormal(0, priors.direction).expand([n_directions]).to_event()
    )
    loading = normal("loading", 0.0, factor_size[:, None, None] * direction_size, n_factors)

    # The response of each perturbation: a share of its variance follows the kernel, the rest is its own.
    share = numpyro.sample("explained_share", dist.Beta(*priors.share).expand([n_factors]).to_event())
    kernel = KernelNormal(share, design.eigenvalues, design.eigenvectors, design.kernel_rest)
    response = numpyro.sample("response", kernel.to_event()).T

    # The tilt of the perturbed gene's own histogram, on ranks in its control distribution.
    tilt_mean = numpyro.sample("tilt_mean", dist.Normal(0, 2).expand([n_tilts]).to_event())
    tilt_scale = numpyro.sample("tilt_scale", dist.HalfNormal(2).expand([n_tilts]).to_event())
    tilt = dist.Normal(tilt_mean, tilt_scale).expand([n_perturbations, n_tilts]).to_event()
    on_target = numpyro.sample("on_target", tilt)

    # The histogram of a group varies about its expectation, more so if the concentration of the gene is small.
    typical = numpyro.sample("typical_log_concentration", dist.Normal(*priors.log_concentration))
    spread = numpyro.sample("log_concentration_spread", dist.HalfNormal(1))
    of_gene = dist.Normal(typical, spread).expand([n_genes]).to_event()
    log_concentration = numpyro.sample("log_concentration", of_gene)

    loadings = along_bins(loading, design.basis)
    logits = shifted_logits(design, batch.perturbation, batch.context, base, loadings, response, on_target)
    with numpyro.handlers.scale(scale=batch.weight * (n_groups / len(batch.perturbation))):
        histogram = DirichletCategorical(logits, log_concentration, jnp.asarray(batch.n_cells)[:, None])
        counts = None if batch.counts is None else jnp.asarray(batch.counts, logits.dtype)
        numpyro.sample("counts", histogram.to_event(1), obs=counts)


def guide(start: Mapping[str, Array]) -> None:
    """Variational family: independent normals, and point estimates of what their priors depend on.

    ``start`` has the initial values by site, and for normals also the standard deviations by site and ``_scale``. A
    mean is optimized in units of ``_unit``, if there is one.
    """
    for name, constraint in SITES.items():
        if name not in start:  # a site of several contexts
            continue
        if constraint is not None:
            value = numpyro.param(f"{name}_value", start[name], constraint=constraint)
            numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))
        else:
            unit = start.get(f"{name}_unit", 1.0)
            mean = unit * numpyro.param(f"{name}_mean", start[name] / unit)
            scale = numpyro.param(f"{name}_scale", start[f"{name}_scale"], constraint=_POSITIVE)
            numpyro.sample(name, dist.Normal(mean, scale).to_event(mean.ndim))
