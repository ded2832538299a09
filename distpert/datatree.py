"""A prediction laid out as ArviZ does: groups of draws, of what was observed, and of how likely it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert.draws import Block
from distpert.histograms import Histograms, count_histograms
from distpert.labels import listed
from distpert.moments import MOMENTS, histogram_moments

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

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
    import xarray as xr

    fit = prediction.fit
    if isinstance(adata, Histograms):
        histograms = adata
        if not np.array_equal(histograms.centers, fit.histograms.centers):
            raise ValueError(
                "the histograms have other bins than the fit: count_histograms(adata, bins=fit.histograms)"
            )
    else:
        histograms = count_histograms(adata, bins=fit.histograms, **fit.histograms.columns)
    dataset = histograms.dataset
    rows = {
        (str(label), str(context)): row
        for row, (label, context) in enumerate(
            zip(dataset["perturbation"].to_numpy(), dataset["context"].to_numpy(), strict=True)
        )
    }
    wanted = [[(label, context) for context in prediction.contexts] for label in prediction.perturbations]
    if missing := [pair for pairs in wanted for pair in pairs if pair not in rows]:
        names = listed(label if context == "all" else f"{label} in {context}" for label, context in missing)
        raise ValueError(
            f"no cells to compare with for {names}: predict only perturbations and contexts that the "
            "data have: fit.predict(..., context=)"
        )
    values: NDArray = dataset["counts"].to_numpy()[[[rows[pair] for pair in pairs] for pairs in wanted]]
    array = xr.DataArray(
        values,
        dims=("perturbation", "context", "gene", "bin"),
        coords={
            "perturbation": list(prediction.perturbations),
            "context": list(prediction.contexts),
            "gene": list(prediction.genes),
        },
    )
    return array if fit.histograms.context_key else array.isel(context=0, drop=True)


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
