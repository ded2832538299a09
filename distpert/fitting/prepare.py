"""Input of the optimization, from training counts and embeddings; and names of the parameters that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.model.basis import coordinates, information, shift_basis
from distpert.model.design import on_target_tilts, target_indices
from distpert.model.gaussian_process import explained_variance, remainder
from distpert.model.generative import Batch, Design
from distpert.model.kernel_choice import choose_kernel
from distpert.model.kernels import Kernel
from distpert.model.priors import Priors
from distpert.model.sizes import shrink
from distpert.model.warm_start import SHRINK_CELLS, Factors, factorize, learn_tilts
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr

MOST_FACTORS = 24  # factors that the data do not need cost time, but no accuracy
SHIFTS = ("level", "common", "shift", "loading")  # sites of coordinates
UNIT = 20.0  # Adam moves them in units of this many posterior standard deviations, so at first by about one a step


class Prepared(NamedTuple):
    """Input of the optimization.

    Attributes
    ----------
    design
        Arrays that the model conditions on.
    batch
        All groups of perturbed cells.
    start
        Initial values, by site of the model.
    kernel
        Kernel between perturbations, chosen by marginal likelihood.
    """

    design: Design
    batch: Batch
    start: dict[str, NDArray]
    kernel: Kernel

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return len(self.start["loading"])


def default_leading(n_perturbations: int) -> int:
    """Return the number of factors for the choice of the kernel: one for each four perturbations, from 2 to 20."""
    return min(max(n_perturbations // 4, 2), 20)


def prepare(groups: TrainingGroups, embeddings: Embeddings, n_factors: int | None, priors: Priors) -> Prepared:
    """Prepare the optimization.

    Parameters
    ----------
    groups
        The training counts.
    embeddings
        Embeddings of the perturbed genes.
    n_factors
        Number of factors, at most one less than there are perturbations; None for the default.
    priors
        Prior scales.
    """
    perturbations, perturbation, control = groups.perturbations, groups.perturbation, groups.smoothed_control
    counts, n_cells, context = (array[groups.perturbed] for array in (groups.counts, groups.n_cells, groups.context))
    n_factors = min(n_factors or MOST_FACTORS, len(perturbations) - 1)
    factors = factorize(counts, n_cells, perturbation, context, control, n_factors)
    # Factors of noise would blur the choice of the kernel.
    leading = default_leading(len(perturbations))
    weight = (factors.loading[:leading] ** 2 * groups.pooled.mean(axis=0)).sum(axis=(1, 2))
    chosen = choose_kernel(embeddings, perturbations, factors.response[:, :leading], weight / weight.sum())
    kernel, eigenvalues, eigenvectors = chosen
    share, _ = explained_variance(factors.response, eigenvalues, eigenvectors)

    tilts, targets = on_target_tilts(control), target_indices(perturbations, groups.histograms.genes)
    learned = learn_tilts(counts, n_cells, perturbation, context, control, factors.common, tilts, targets)
    pooled, overall = groups.pooled, np.average(groups.pooled, axis=0, weights=groups.n_control + groups.n_perturbed)
    basis = shift_basis(overall, priors.loading_smoothness)
    design = Design(
        log_pooled=np.log(pooled).astype(np.float32),
        basis=basis.astype(np.float32),
        perturbed_share=(groups.n_perturbed / (groups.n_control + groups.n_perturbed)).astype(np.float32),
        control_counts=groups.control_counts.astype(np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=tilts.astype(np.float32),
        targets=targets,
        kernel_rest=np.asarray(remainder(eigenvalues, len(perturbations)), np.float32),
    )
    batch = Batch(counts, n_cells.astype(np.int32), perturbation, context)
    start = {
        **_initial_shifts(groups, factors, basis, information(basis, overall), control, pooled, priors),
        "direction_size": np.ones(basis.shape[-1]),
        "explained_share": share,
        "response": factors.response.T,
        "response_scale": np.full_like(factors.response.T, 0.1),
        "tilt_mean": learned.mean,
        "tilt_scale": learned.scale,
        "on_target": learned.on_target,
        "on_target_scale": learned.on_target_scale,
        "typical_log_concentration": np.array(priors.log_concentration[0]),
        "log_concentration_spread": np.array(0.5),
        "log_concentration": np.full(control.shape[1], priors.log_concentration[0]),
        "log_concentration_scale": np.full(control.shape[1], 0.1),
    }
    return Prepared(design, batch, start, kernel)


def _initial_shifts(
    groups: TrainingGroups,
    factors: Factors,
    basis: NDArray,
    per_cell: NDArray,
    control: NDArray,
    pooled: NDArray,
    priors: Priors,
) -> dict[str, NDArray]:
    """Level, common shift and loadings, as coordinates, with standard deviations, sizes of priors and units of steps.

    Estimates from log-ratios are shrunk by as much as they show that they are noise. Otherwise sizes would have to fall
    a long way where there is no effect.
    """
    n_control, n_perturbed = groups.n_control[:, None, None], groups.n_perturbed[:, None, None]
    total = n_control + n_perturbed
    informed = groups.n_perturbed > 0
    with np.errstate(divide="ignore"):  # no information: an infinite variance
        variance = 1 / (per_cell * n_perturbed * (n_control / total))
        of_loading = 1 / (per_cell * n_perturbed.sum())
    estimate = coordinates(factors.common, basis)
    start: dict[str, NDArray] = {}
    if len(groups.contexts) > 1:
        # A context without perturbed cells has no shift of its own.
        common = shrink(estimate[informed].mean(axis=0), variance[informed].sum(axis=0) / informed.sum() ** 2)
        center = common.mean
        own = shrink(estimate[informed], variance[informed], center)
        start |= {"common": center, "common_scale": common.scale, "common_size": np.array(common.size)}
        start |= {"context_size": np.array(own.size)}
        shift, scale = np.tile(center, (len(informed), 1, 1)), np.full(estimate.shape, own.size)
        shift[informed], scale[informed] = own.mean, own.scale
    else:
        own = shrink(estimate, variance)
        start |= {"common_size": np.array(own.size)}
        shift, scale = own.mean, own.scale
    level = coordinates(np.log(control) - np.log(pooled), basis) + n_perturbed / total * shift
    # Log-ratios were shrunk towards no effect, which made loadings smaller.
    typical = float(np.median(groups.n_cells[groups.perturbed]))
    loading = coordinates(factors.loading, basis) * (1 + SHRINK_CELLS / typical)
    shrunk = [shrink(one, of_loading) for one in loading]
    start |= {
        "level": level,
        "level_scale": 1 / np.sqrt(priors.level**-2 + total * per_cell),
        "shift": shift,
        "shift_scale": scale,
        "factor_size": np.array([one.size for one in shrunk]),
        "loading": np.stack([one.mean for one in shrunk]),
        "loading_scale": np.stack([one.scale for one in shrunk]),
    }
    units = {f"{name}_unit": UNIT * start[f"{name}_scale"] for name in SHIFTS if name in start}
    return start | units


def name_parameters(parameters: Mapping[str, NDArray], groups: TrainingGroups, design: Design) -> xr.Dataset:
    """Return the parameters of the guide as a Dataset, with names and dimensions."""
    import xarray as xr

    def along_bins(coordinates: NDArray) -> NDArray[np.float32]:
        return np.einsum("...gj,gbj->...gb", coordinates, design.basis)

    level, shift = parameters["level_mean"], parameters["shift_mean"]
    control = level - np.asarray(design.perturbed_share)[:, None, None] * shift
    return xr.Dataset(
        {
            "control": (("context", "gene", "bin"), design.log_pooled + along_bins(control)),
            "common": (("context", "gene", "bin"), along_bins(shift)),
            "loading": (("factor", "gene", "bin"), along_bins(parameters["loading_mean"])),
            "level_scale": (("context", "gene", "direction"), parameters["level_scale"]),
            "common_scale": (("context", "gene", "direction"), parameters["shift_scale"]),
            "loading_scale": (("factor", "gene", "direction"), parameters["loading_scale"]),
            "basis": (("gene", "bin", "direction"), design.basis),
            "perturbed_share": ("context", design.perturbed_share),
            "common_size": parameters["common_size_value"],
            "factor_size": ("factor", parameters["factor_size_value"]),
            "direction_size": ("direction", parameters["direction_size_value"]),
            "explained_share": ("factor", parameters["explained_share_value"]),
            "response": (("perturbation", "factor"), parameters["response_mean"].T),
            "response_scale": (("perturbation", "factor"), parameters["response_scale"].T),
            "tilt_mean": ("tilt", parameters["tilt_mean_value"]),
            "tilt_scale": ("tilt", parameters["tilt_scale_value"]),
            "on_target": (("perturbation", "tilt"), parameters["on_target_mean"]),
            "on_target_scale": (("perturbation", "tilt"), parameters["on_target_scale"]),
            "log_concentration": ("gene", parameters["log_concentration_mean"]),
            "log_concentration_scale": ("gene", parameters["log_concentration_scale"]),
            "typical_log_concentration": parameters["typical_log_concentration_value"],
            "log_concentration_spread": parameters["log_concentration_spread_value"],
            "eigenvalues": ("eigen", design.eigenvalues),
            "eigenvectors": (("perturbation", "eigen"), design.eigenvectors),
        },
        coords={
            "gene": list(groups.histograms.genes),
            "perturbation": list(groups.perturbations),
            "context": list(groups.contexts),
        },
    )
