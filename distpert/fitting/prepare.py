"""Input of the optimization, from training counts and embeddings; and names of the parameters that it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.vectors import Embeddings
from distpert.model.design import bin_strides, on_target_tilts, target_indices
from distpert.model.generative import Batch, Design
from distpert.model.kernels import Kernel, choose_kernel
from distpert.model.priors import Priors
from distpert.model.warm_start import factorize, learn_tilts
from distpert.training.groups import TrainingGroups

if TYPE_CHECKING:
    import xarray as xr


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


def default_n_factors(n_perturbations: int) -> int:
    """One factor for each four perturbations, from 2 to 20."""
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
    n_factors = min(n_factors or default_n_factors(len(perturbations)), len(perturbations) - 1)
    factors = factorize(counts, n_cells, perturbation, context, control, n_factors)
    kernel, eigenvalues, eigenvectors, share = choose_kernel(embeddings, perturbations, factors.response)

    tilts, targets = on_target_tilts(control), target_indices(perturbations, groups.histograms.genes)
    learned = learn_tilts(counts, n_cells, perturbation, context, control, factors.common, tilts, targets)
    design = Design(
        log_control=np.log(control).astype(np.float32),
        eigenvalues=eigenvalues.astype(np.float32),
        eigenvectors=eigenvectors.astype(np.float32),
        tilts=tilts.astype(np.float32),
        targets=targets,
    )
    # A context without perturbed cells has no shift of its own.
    informed = groups.n_perturbed > 0
    common = factors.common[informed].mean(axis=0)
    start = {
        "common": common,
        "loading": factors.loading,
        "explained_share": share,
        "response": factors.response.T,
        "response_scale": np.full_like(factors.response.T, 0.1),
        "tilt_mean": learned.mean,
        "tilt_scale": learned.scale,
        "on_target": learned.on_target,
        "on_target_scale": learned.on_target_scale,
        "log_concentration": np.full(control.shape[1], priors.log_concentration[0]),
        "stride": bin_strides(counts),
    }
    if len(groups.contexts) > 1:
        start["context_shift"] = np.where(informed[:, None, None], factors.common - common, 0)
    batch = Batch(counts.astype(np.float32), n_cells.astype(np.int32), perturbation, context)
    return Prepared(design, batch, start, kernel)


def label_parameters(parameters: Mapping[str, NDArray], groups: TrainingGroups, design: Design) -> xr.Dataset:
    """Return the parameters of the guide as a Dataset, with names and dimensions."""
    import xarray as xr

    common = parameters["common_value"] + parameters.get("context_shift_value", np.zeros((1, 1, 1), np.float32))
    return xr.Dataset(
        {
            "common": (("context", "gene", "bin"), common),
            "loading": (("factor", "gene", "bin"), parameters["loading_value"]),
            "explained_share": ("factor", parameters["explained_share_value"]),
            "response": (("perturbation", "factor"), parameters["response_mean"].T),
            "response_scale": (("perturbation", "factor"), parameters["response_scale"].T),
            "tilt_mean": ("tilt", parameters["tilt_mean_value"]),
            "tilt_scale": ("tilt", parameters["tilt_scale_value"]),
            "on_target": (("perturbation", "tilt"), parameters["on_target_mean"]),
            "on_target_scale": (("perturbation", "tilt"), parameters["on_target_scale"]),
            "log_concentration": ("gene", parameters["log_concentration_value"]),
            "eigenvalues": ("eigen", design.eigenvalues),
            "eigenvectors": (("perturbation", "eigen"), design.eigenvectors),
        },
        coords={
            "gene": list(groups.histograms.genes),
            "perturbation": list(groups.perturbations),
            "context": list(groups.contexts),
        },
    )
