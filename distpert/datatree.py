"""A prediction laid out as ArviZ does: groups of draws, of what was observed, and of how likely it was."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.arguments import check_type
from distpert.draws import Block
from distpert.intervals import moments_of_cells
from distpert.labels import listed
from distpert.moments import EXPRESSION, MOMENTS
from distpert.observed import observed_cells
from distpert.statistics import attributes

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms import Histograms
    from distpert.predicted import Predicted
    from distpert.prediction import Prediction
    from distpert.prior_prediction import PriorPrediction


# long_name and units of what has none yet; of moments those of `distpert.statistics`.
_ABOUT = {
    "response": ("latent response of the perturbation", "1"),
    "on_target": ("tilt of the perturbed gene's own histogram", "1"),
    "explained_share": ("share of the variance of responses that follows the embedding", "1"),
    "concentration": ("concentration of the Dirichlet", "1"),
    "bin_left": ("left edge of the bin", EXPRESSION),
    "bin_right": ("right edge of the bin", EXPRESSION),
    "in_training": ("whether the fit has seen cells of the perturbation", "1"),
    "n_cells": ("observed cells", "cells"),
    "counts": ("observed cells in the bin", "cells"),
}


def build_datatree(
    prediction: Prediction, adata: AnnData | Histograms | None, prior: PriorPrediction | None = None
) -> xr.DataTree:
    """Build the tree; see `Prediction.to_datatree`."""
    import xarray as xr

    fit, parameters = prediction.fit, prediction.fit.parameters
    one_chain = {"chain": [0], "draw": np.arange(prediction.num_draws)}
    constant = xr.Dataset(
        {
            # In double precision: the spread of draws that are all the same is then rounding that nobody sees.
            "explained_share": ("factor", parameters["explained_share"].to_numpy().astype(np.float64)),
            "concentration": ("gene", np.exp(parameters["log_concentration"].to_numpy().astype(np.float64))),
        },
        coords={"gene": list(prediction.genes)},
    )
    drawn = xr.Dataset(
        {
            "response": (("draw", "perturbation", "factor"), prediction.response),
            "on_target": (("draw", "perturbation", "tilt"), prediction.on_target),
        },
        coords={"perturbation": list(prediction.perturbations)},
    )
    posterior = xr.merge([drawn, constant]).expand_dims(chain=[0]).assign_coords(one_chain)
    # What is not drawn is the same in each draw; ArviZ wants the dimension all the same.
    for name in constant:
        posterior[name] = posterior[name].expand_dims(draw=one_chain["draw"], axis=1)
    edges = fit.histograms.dataset[["bin_left", "bin_right"]].reset_coords()
    trained_on = set(fit.perturbations)
    edges["in_training"] = xr.DataArray(
        [label in trained_on for label in prediction.perturbations], {"perturbation": list(prediction.perturbations)}
    )
    groups = {"posterior": posterior, "constant_data": edges}
    n_cells = None
    if adata is not None:
        counts = observed_counts(prediction, adata)
        n_cells = counts.isel(gene=0).sum("bin")
        moments = moments_of_cells(counts.to_numpy(), fit.centers)
        observed = {
            name: (counts.dims[:-1], value, attributes(name)) for name, value in zip(MOMENTS, moments, strict=True)
        }
        groups["observed_data"] = xr.Dataset(observed, counts.isel(bin=0, drop=True).coords)
        groups["constant_data"] = edges.assign(n_cells=n_cells, counts=counts)
        likelihood = log_likelihood(prediction, counts).to_dataset(name="counts")
        groups["log_likelihood"] = likelihood.expand_dims(chain=[0])
    groups["posterior_predictive"] = _predictive(prediction, n_cells)
    if prior is not None:
        _check_prior(prediction, prior)
        groups["prior"], groups["prior_predictive"] = _prior_sites(prior), _predictive(prior, n_cells)
    for name in set(groups) - {"log_likelihood"}:
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


def _predictive(prediction: Prediction | PriorPrediction, n_cells: xr.DataArray | None) -> xr.Dataset:
    """Moments of replicates of so many cells, under the names that observed ones have, and of the distributions."""
    distributions = prediction.moments()
    replicates = distributions if n_cells is None else prediction.moments(n_cells=n_cells)
    renamed = distributions.rename({name: f"distribution_{name}" for name in MOMENTS})
    for variable in renamed.values():
        variable.attrs["long_name"] += " of the distribution"
    return replicates.merge(renamed).expand_dims(chain=[0])


def _prior_sites(prior: PriorPrediction) -> xr.Dataset:
    """Lay out the prior's draws as the posterior's are."""
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


def _check_prior(prediction: Prediction, prior: PriorPrediction) -> None:
    """Refuse a prior of other things, whose variables would not pair with the posterior's."""
    from distpert.prior_prediction import PriorPrediction

    check_type("prior", prior, PriorPrediction, made_by="fit.prior_predictive(labels)")
    asked, found = ((p.perturbations, p.contexts, p.genes) for p in (prediction, prior))
    if asked != found:
        raise ValueError(
            "the prior is of other perturbations, contexts or genes than the prediction: make it with "
            "prediction.fit.prior_predictive(prediction.perturbations, context=...)"
        )


def observed_counts(prediction: Predicted, adata: AnnData | Histograms) -> xr.DataArray:
    """Count the cells of the predicted perturbations in the bins of the fit: (perturbation, [context,] gene, bin).

    Raises
    ------
    ValueError
        If a predicted perturbation has no cells, in one of the predicted contexts.
    """
    cells = observed_cells(prediction.training, adata, prediction.perturbations, prediction.contexts)
    absent = np.argwhere(cells["n_cells"].to_numpy() == 0).tolist()
    if missing := [(prediction.perturbations[p], prediction.contexts[c]) for p, c in absent]:
        names = listed(label if context == "all" else f"{label} in {context}" for label, context in missing)
        raise ValueError(
            f"no cells to compare with for {names}: predict only perturbations and contexts that the "
            "data have: fit.predict(..., context=)"
        )
    return cells["counts"] if prediction.training.context_key else cells["counts"].isel(context=0, drop=True)


def log_likelihood(prediction: Prediction, counts: xr.DataArray) -> xr.DataArray:
    """Log-probability of observed cells; see `Prediction.log_likelihood`."""
    import jax

    from distpert.likelihood import dirichlet_categorical_log_prob

    log_prob = jax.jit(dirichlet_categorical_log_prob)
    log_concentration = prediction.fit.parameters["log_concentration"].to_numpy()
    wanted = {"perturbation": list(prediction.perturbations), "gene": list(prediction.genes)}
    if prediction.fit.histograms.context_key:
        wanted["context"] = list(prediction.contexts)
    _check_counts(counts, wanted, prediction.fit.histograms.n_bins)
    observed = counts.sel(wanted).transpose("perturbation", ..., "gene", "bin").to_numpy()
    observed = observed.reshape(len(prediction.perturbations), len(prediction.contexts), *observed.shape[-2:])

    def of_block(block: Block) -> NDArray:
        logits = np.log(np.maximum(prediction._probs(block), np.finfo(np.float32).tiny))
        seen = observed[block.perturbation, block.context, block.genes].astype(np.float32)
        return np.asarray(log_prob(logits, log_concentration[block.genes], seen))

    found = prediction._labelled(prediction._collect(of_block, (), draws=True), (), draws=True)
    return found.assign_attrs(long_name="log-probability of the observed cells", units="nats")


def _check_counts(counts: xr.DataArray, wanted: dict[str, list[str]], n_bins: int) -> None:
    """Refuse what are no counts (perturbation, [context,] gene, bin) of what is predicted."""
    dims = {*wanted, "bin"}
    if set(counts.dims) != dims:
        raise ValueError(f"counts must have the dimensions {listed(sorted(dims))}, not {listed(counts.dims)}")
    for dim, names in wanted.items():
        known = set(counts[dim].to_numpy().tolist()) if dim in counts.coords else set()
        if missing := [name for name in names if name not in known]:
            raise KeyError(f"counts have no {dim} {listed(missing)}, which is predicted")
    if counts.sizes["bin"] != n_bins:
        raise ValueError(f"counts have {counts.sizes['bin']} bins, the fit has {n_bins}")
    if not ((counts >= 0) & (counts % 1 == 0)).all():
        raise ValueError("counts must be numbers of cells, whole and at least 0")
