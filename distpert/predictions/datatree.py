"""A prediction as a tree in the layout of ArviZ: draws, observations, and their likelihood."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_type
from distpert.histograms.moments import EXPRESSION, MOMENTS, moments_of_cells
from distpert.histograms.observed import observed_cells
from distpert.histograms.statistics import attributes
from distpert.model.kernels import kernel_between
from distpert.predictions.blocks import blocks
from distpert.predictions.histogram_prediction import HistogramPrediction
from distpert.predictions.likelihood import log_likelihood
from distpert.predictions.posterior_draws import PosteriorDraws
from distpert.predictions.prior import PriorPrediction

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms


_SCALES = (
    "explained_share",
    "tilt_mean",
    "tilt_scale",
    "typical_log_concentration",
    "log_concentration_spread",
)
# long_name and units of variables other than moments, which have those of `distpert.statistics`.
_ABOUT = {
    "response": ("latent response of the perturbation", "1"),
    "on_target": ("tilt of the perturbed gene's own histogram", "1"),
    "explained_share": ("share of the variance of responses that follows the embedding", "1"),
    "concentration": ("concentration of the Dirichlet", "1"),
    "inactive": ("whether the perturbation does nothing in the draw", "1"),
    "bin_left": ("left edge of the bin", EXPRESSION),
    "bin_right": ("right edge of the bin", EXPRESSION),
    "in_training": ("whether the fit has seen cells of the perturbation", "1"),
    "n_cells": ("observed cells", "cells"),
    "counts": ("observed cells in the bin", "cells"),
}


def build_datatree(
    prediction: PosteriorDraws, adata: AnnData | Histograms | None, prior: PriorPrediction | None = None
) -> xr.DataTree:
    """Build the tree; see `Prediction.to_datatree`."""
    import xarray as xr

    groups = {
        "posterior": _posterior(prediction),
        "log_prior": _log_prior(prediction),
        "constant_data": _constants(prediction),
    }
    observed = None
    if adata is not None:
        training = prediction.training
        observed = observed_cells(training, adata, prediction.perturbations, prediction.contexts)
        if not training.context_key:
            observed = observed.isel(context=0, drop=True)
        groups["observed_data"] = _observed(prediction, observed)
        groups["constant_data"] = groups["constant_data"].merge(observed[["n_cells", "counts"]])
        likelihood = log_likelihood(prediction, observed["counts"]).where(observed["n_cells"] > 0)
        groups["log_likelihood"] = by_chain(likelihood.to_dataset(name="counts"), prediction.posterior.n_chains)
    groups["posterior_predictive"] = _predictive(prediction, observed, prediction.posterior.n_chains)
    if prior is not None:
        _check_prior(prediction, prior)
        groups["prior"], groups["prior_predictive"] = _prior_sites(prior), _predictive(prior, observed, 1)
    for name in set(groups) - {"log_likelihood", "log_prior"}:
        for variable in groups[name].values():
            if about := _ABOUT.get(str(variable.name)):
                variable.attrs = dict(zip(("long_name", "units"), about, strict=True))
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "inference_library": "distpert",
        "inference_library_version": version("distpert"),
        "seed": prediction.seed,
    }
    return tree


def _posterior(prediction: PosteriorDraws) -> xr.Dataset:
    """Posterior draws, by chain."""
    import xarray as xr

    drawn = {
        "response": (("draw", "perturbation", "factor"), prediction.response),
        "on_target": (("draw", "perturbation", "tilt"), prediction.on_target),
        "inactive": (("draw", "perturbation"), prediction.inactive.astype(np.int8)),
        "concentration": (("draw", "gene"), concentrations(prediction)),
    }
    coords = {"perturbation": list(prediction.perturbations), "gene": list(prediction.genes)}
    return by_chain(xr.Dataset(drawn, coords=coords), prediction.posterior.n_chains)


def _log_prior(prediction: PosteriorDraws) -> xr.Dataset:
    """Log density of the drawn responses, tilts and concentrations under their priors, by chain.

    Responses are those of the predicted perturbations, under the kernel between them; learned scales are as fitted.
    """
    import xarray as xr
    from scipy.stats import norm

    posterior = prediction.posterior
    values = {name: posterior.parameters[name].to_numpy().astype(np.float64) for name in _SCALES}
    labels = prediction.perturbations
    matrix = kernel_between(labels, labels, posterior.embeddings, posterior.kernel)
    np.fill_diagonal(matrix, 1)
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    spectrum = values["explained_share"][:, None] * np.maximum(eigenvalues, 0) + 1 - values["explained_share"][:, None]
    spectrum = np.maximum(spectrum, 1e-6)
    rotated = np.einsum("sfk,fe->ske", prediction.response.astype(np.float64), eigenvectors)
    response = norm.logpdf(rotated, scale=np.sqrt(spectrum)).sum(axis=(1, 2))
    tilts = norm.logpdf(prediction.on_target, values["tilt_mean"], np.maximum(values["tilt_scale"], 1e-6))
    spread = max(float(values["log_concentration_spread"]), 1e-6)
    logs = np.log(concentrations(prediction))
    of_genes = norm.logpdf(logs, float(values["typical_log_concentration"]), spread)
    about = [{"long_name": f"log prior density, {what}", "units": "nats"} for what in ("responses", "tilts", "κ")]
    drawn = {
        "response": ("draw", response, about[0]),
        "on_target": (("draw", "perturbation"), tilts.sum(axis=-1), about[1]),
        "concentration": (("draw", "gene"), of_genes, about[2]),
    }
    coords = {"perturbation": list(labels), "gene": list(prediction.genes)}
    return by_chain(xr.Dataset(drawn, coords=coords), posterior.n_chains)


def concentrations(prediction: PosteriorDraws) -> NDArray[np.float32]:
    """Drawn concentrations κ (draw, gene)."""
    parts = [prediction.shared(block).concentration for block in blocks(1, 1, len(prediction.genes))]
    return np.concatenate(parts, axis=1)


def by_chain(dataset: xr.Dataset, n_chains: int) -> xr.Dataset:
    """Split the draws, chains one after the other, into (chain, draw)."""
    n_each = dataset.sizes["draw"] // n_chains
    parts = [dataset.isel(draw=slice(c * n_each, (c + 1) * n_each)) for c in range(n_chains)]
    import xarray as xr

    named = [part.assign_coords(draw=np.arange(n_each)) for part in parts]
    return xr.concat(named, "chain").assign_coords(chain=np.arange(n_chains)).transpose("chain", "draw", ...)


def _constants(prediction: PosteriorDraws) -> xr.Dataset:
    """Everything that is not drawn: bins, which perturbations were in training, point estimates."""
    import xarray as xr

    posterior, seen = prediction.posterior, set(prediction.posterior.perturbations)
    edges = prediction.training.dataset[["bin_left", "bin_right"]].reset_coords()
    return edges.assign(
        in_training=xr.DataArray(
            [label in seen for label in prediction.perturbations], {"perturbation": list(prediction.perturbations)}
        ),
        explained_share=("factor", posterior.parameters["explained_share"].to_numpy().astype(np.float64)),
    )


def _observed(prediction: PosteriorDraws, observed: xr.Dataset) -> xr.Dataset:
    """Moments of the observed cells; NaN for groups without cells."""
    import xarray as xr

    counts = observed["counts"]
    moments = moments_of_cells(counts.to_numpy(), prediction.posterior.centers)
    found = {name: (counts.dims[:-1], value, attributes(name)) for name, value in zip(MOMENTS, moments, strict=True)}
    return xr.Dataset(found, counts.isel(bin=0, drop=True).coords)


def _predictive(prediction: HistogramPrediction, observed: xr.Dataset | None, n_chains: int) -> xr.Dataset:
    """Moments of replicates of as many cells as were observed, under the same names, and of the distributions."""
    replicates = distributions = prediction.moments()
    if observed is not None:
        n_cells = observed["n_cells"]
        replicates = prediction.moments(n_cells=n_cells.clip(min=1)).where(n_cells > 0)
    renamed = distributions.rename({name: f"distribution_{name}" for name in MOMENTS})
    for variable in renamed.values():
        variable.attrs["long_name"] += " of the distribution"
    return by_chain(replicates.merge(renamed), n_chains)


def _prior_sites(prior: PriorPrediction) -> xr.Dataset:
    """Prior draws in one chain, in the layout of the posterior."""
    import xarray as xr

    sites = prior.sites
    drawn = {
        "response": (("draw", "perturbation", "factor"), np.moveaxis(sites["response"], -1, 1)),
        "on_target": (("draw", "perturbation", "tilt"), sites["on_target"]),
        "explained_share": (("draw", "factor"), sites["explained_share"]),
        "concentration": (("draw", "gene"), np.exp(sites["log_concentration"])),
    }
    coords = {
        "draw": np.arange(prior.num_draws),
        "perturbation": list(prior.perturbations),
        "gene": list(prior.genes),
    }
    return xr.Dataset(drawn, coords=coords).expand_dims(chain=[0])


def _check_prior(prediction: PosteriorDraws, prior: PriorPrediction) -> None:
    """Refuse a prior of other perturbations, contexts or genes: it would not pair with the posterior."""
    check_type("prior", prior, PriorPrediction, made_by="fit.prior_predictive(labels)")
    wanted, found = ((p.perturbations, p.contexts, p.genes) for p in (prediction, prior))
    if wanted != found:
        raise ValueError(
            "the prior is of other perturbations, contexts or genes than the prediction: make it with "
            "fit.prior_predictive(prediction.perturbations, context=prediction.contexts)"
        )
