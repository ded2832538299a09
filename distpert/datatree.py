"""A prediction laid out as ArviZ does: groups of draws, of what was observed, and of how likely it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.draws import Block
from distpert.labels import listed
from distpert.moments import MOMENTS, histogram_moments
from distpert.observed import observed_cells

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms import Histograms
    from distpert.prediction import Prediction


def build_datatree(prediction: Prediction, adata: AnnData | Histograms | None) -> xr.DataTree:
    """Build the tree; see `Prediction.to_datatree`."""
    import xarray as xr

    fit, parameters = prediction.fit, prediction.fit.parameters
    one_chain = {"chain": [0], "draw": np.arange(prediction.num_draws)}
    constant = xr.Dataset(
        {
            "explained_share": ("factor", parameters["explained_share"].to_numpy()),
            "concentration": ("gene", np.exp(parameters["log_concentration"].to_numpy())),
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
    groups = {"posterior": posterior, "constant_data": edges}
    n_cells = None
    if adata is not None:
        counts = observed_counts(prediction, adata)
        n_cells = counts.isel(gene=0).sum("bin")
        moments = histogram_moments(counts.to_numpy() / n_cells.to_numpy()[..., None, None], fit.centers.astype(float))
        observed = {name: (counts.dims[:-1], value) for name, value in zip(MOMENTS, moments, strict=True)}
        groups["observed_data"] = xr.Dataset({"counts": counts, **observed})
        groups["constant_data"] = edges.assign(n_cells=n_cells)
        likelihood = log_likelihood(prediction, counts).to_dataset(name="counts")
        groups["log_likelihood"] = likelihood.expand_dims(chain=[0])
    groups["posterior_predictive"] = prediction.moments(n_cells=n_cells).expand_dims(chain=[0])
    return xr.DataTree.from_dict(groups)


def observed_counts(prediction: Prediction, adata: AnnData | Histograms) -> xr.DataArray:
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
    observed = counts.sel(wanted).transpose("perturbation", ..., "gene", "bin").to_numpy()
    observed = observed.reshape(len(prediction.perturbations), len(prediction.contexts), *observed.shape[-2:])

    def of_block(block: Block) -> NDArray:
        logits = np.log(np.maximum(prediction._probs(block), np.finfo(np.float32).tiny))
        seen = observed[block.perturbation, block.context, block.genes].astype(np.float32)
        return np.asarray(log_prob(logits, log_concentration[block.genes], seen))

    return prediction._labelled(prediction._collect(of_block, (), draws=True), (), draws=True)
