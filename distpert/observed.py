"""The cells that a prediction is compared with, laid out as the prediction is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert.histograms import Histograms
from distpert.labels import listed
from distpert.screen_counts import count_histograms

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData


def observed_cells(
    training: Histograms, adata: AnnData | Histograms, perturbations: Sequence[str], contexts: Sequence[str]
) -> xr.Dataset:
    """Count the cells of some perturbations and contexts in the bins of the training.

    Parameters
    ----------
    training
        Histograms whose bins to use; cells are read by the names that these were read by.
    adata
        Cells, or histograms of them in the same bins. Cells of other perturbations and contexts are left out.
    perturbations, contexts
        Labels, in the order wanted.

    Returns
    -------
    Dataset
        ``counts`` (perturbation, context, gene, bin), ``n_cells`` (perturbation, context), ``out_of_range``
        (perturbation, context, gene), as in `Histograms.dataset`; all zero where there are no cells. ``context`` is a
        dimension whether or not the training has contexts.

    Raises
    ------
    ValueError
        If histograms have other genes, bins or contexts than the training.
    """
    if isinstance(adata, Histograms):
        _check_same_bins(adata, training)
        cells = adata.dataset
    else:
        cells = count_histograms(adata, bins=training, **training.columns).dataset
    names = zip(cells["perturbation"].to_numpy(), cells["context"].to_numpy(), strict=True)
    row_of = {(str(label), str(context)): row for row, (label, context) in enumerate(names)}
    rows = np.array([[row_of.get((label, context), -1) for context in contexts] for label in perturbations])
    groups = {}
    for name in ("counts", "n_cells", "out_of_range"):
        values = cells[name].to_numpy()[rows]
        values[rows < 0] = 0
        groups[name] = (("perturbation", "context", *cells[name].dims[1:]), values)
    import xarray as xr

    coords = {"perturbation": list(perturbations), "context": list(contexts), "gene": list(training.genes)}
    return xr.Dataset(groups, coords=coords)


def warn_of_training_cells(training: Histograms, observed: xr.Dataset) -> None:
    """Name perturbations whose observed cells, laid out by `observed_cells`, are those of the training.

    Warns
    -----
    UserWarning
        For the caller's caller: what is measured on such cells is how well a model fits, not how well it predicts.
    """
    groups = training.dataset
    names = zip(groups["perturbation"].to_numpy(), groups["context"].to_numpy(), strict=True)
    fitted = dict(zip(names, groups["counts"].to_numpy(), strict=True))
    n_cells, counts = observed["n_cells"].to_numpy(), observed["counts"].to_numpy()
    contexts = observed["context"].to_numpy().tolist()
    same = [
        label
        for p, label in enumerate(observed["perturbation"].to_numpy().tolist())
        if any(
            n_cells[p, c] and (label, context) in fitted and np.array_equal(counts[p, c], fitted[label, context])
            for c, context in enumerate(contexts)
        )
    ]
    if same:
        warnings.warn(
            f"the cells of {listed(same)} are those of the training: this tells how well the model fits them, not how "
            "well it predicts; leave them out of the training, as cross_validate does",
            UserWarning,
            stacklevel=3,
        )


def _check_same_bins(histograms: Histograms, training: Histograms) -> None:
    same_genes = histograms.genes == training.genes
    if not (same_genes and np.array_equal(histograms.centers.to_numpy(), training.centers.to_numpy())):
        what = "bins" if same_genes else "genes"
        raise ValueError(
            f"the histograms have other {what} than the fit: count_histograms(adata, bins=fit.histograms), which a "
            "prediction has too, as prediction.training"
        )
    if histograms.context_key != training.context_key:
        theirs, ours = (f"context key {h.context_key!r}" for h in (histograms, training))
        raise ValueError(
            f"the histograms have {theirs}, the fit has {ours}: count_histograms(adata, bins=fit.histograms, "
            "**fit.histograms.columns)"
        )
