"""The cells that a prediction is compared with, laid out as the prediction is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert.histograms import Histograms, count_histograms

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
