"""Log-probability of observed cells under posterior draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.labels import listed
from distpert.predictions.blocks import Block
from distpert.predictions.layout import collect, labeled
from distpert.predictions.posterior_draws import PosteriorDraws

if TYPE_CHECKING:
    import xarray as xr


def log_likelihood(prediction: PosteriorDraws, counts: xr.DataArray) -> xr.DataArray:
    """Log-probability of observed cells; see `Prediction.log_likelihood`."""
    import jax

    from distpert.model.likelihood import dirichlet_categorical_log_prob

    log_prob = jax.jit(dirichlet_categorical_log_prob)
    training = prediction.training
    wanted = {"perturbation": list(prediction.perturbations), "gene": list(prediction.genes)}
    if training.context_key:
        wanted["context"] = list(prediction.contexts)
    _check_counts(counts, wanted, training.n_bins)
    observed = counts.sel(wanted).transpose("perturbation", ..., "gene", "bin").to_numpy()
    observed = observed.reshape(len(prediction.perturbations), len(prediction.contexts), *observed.shape[-2:])

    def of_block(block: Block) -> NDArray:
        logits = np.log(np.maximum(prediction.probs(block), np.finfo(np.float32).tiny))
        seen = observed[block.perturbation, block.context, block.genes].astype(np.float32)
        return np.asarray(log_prob(logits, np.log(prediction.shared(block).concentration), seen))

    found = labeled(prediction, collect(prediction, of_block, (), draws=True), draws=True)
    return found.assign_attrs(long_name="log-probability of the observed cells", units="nats")


def _check_counts(counts: xr.DataArray, wanted: dict[str, list[str]], n_bins: int) -> None:
    """Refuse an array that has no counts (perturbation, [context,] gene, bin) of all that is predicted."""
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
