"""The cells that a prediction is compared with, in the layout of the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distpert._shared.labels import listed
from distpert.histograms.counting import count_histograms
from distpert.histograms.histograms import Histograms

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
        Histograms with the bins to use. Their names of columns are used to read the cells.
    adata
        Cells, or histograms of them in the same bins. Cells of other perturbations and contexts are left out.
    perturbations, contexts
        Labels of the rows, in order.

    Returns
    -------
    Dataset
        ``counts`` (perturbation, context, gene, bin), ``n_cells`` (perturbation, context), ``out_of_range``
        (perturbation, context, gene), as in `Histograms.dataset`; 0 for a group without cells. ``context`` is a
        dimension also if the training has no contexts.

    Raises
    ------
    ValueError
        If a perturbation has no cells in any of the contexts, or the histograms have other genes, bins or contexts than
        the training.
    """
    import xarray as xr

    if isinstance(adata, Histograms):
        _check_same_bins(adata, training)
        histograms = adata
    else:
        histograms = count_histograms(adata, bins=training, **training.columns)
    cells = histograms.dataset
    names = zip(cells["perturbation"].to_numpy(), cells["context"].to_numpy(), strict=True)
    row_of = {(str(label), str(context)): row for row, (label, context) in enumerate(names)}
    rows = np.array([[row_of.get((label, context), -1) for context in contexts] for label in perturbations])
    if absent := [label for label, found in zip(perturbations, rows, strict=True) if (found < 0).all()]:
        raise ValueError(_no_cells(absent, contexts, histograms))
    groups = {}
    for name in ("counts", "n_cells", "out_of_range"):
        values = cells[name].to_numpy()[rows]
        values = values.astype(np.result_type(values, np.int32))  # signed, for any arithmetic
        values[rows < 0] = 0
        groups[name] = (("perturbation", "context", *cells[name].dims[1:]), values)
    coords = {"perturbation": list(perturbations), "context": list(contexts), "gene": list(training.genes)}
    return xr.Dataset(groups, coords=coords)


def _no_cells(absent: Sequence[str], contexts: Sequence[str], cells: Histograms) -> str:
    """Return a message about missing cells, and about the cells that are there instead."""
    key, there = cells.context_key, cells.perturbations
    unknown = [label for label in absent if label not in there]
    if unknown or not key:
        return (
            f"no cells of {listed(unknown or absent)} to compare with; the cells have the perturbations "
            f"{listed(there)}. Predict only perturbations that the cells have"
        )
    return (
        f"no cells of {listed(absent)} to compare with in the predicted contexts of {key!r}, {listed(contexts)}; the "
        f"cells have {key!r} {listed(cells.contexts)}. Predict only contexts that the cells have, "
        "with fit.predict(..., context=)"
    )


def _check_same_bins(histograms: Histograms, training: Histograms) -> None:
    same_genes = histograms.genes == training.genes
    if not (same_genes and np.array_equal(histograms.centers.to_numpy(), training.centers.to_numpy())):
        what = "bins" if same_genes else "genes"
        raise ValueError(
            f"the histograms have other {what} than the training. Count the cells in the bins of the training: "
            "count_histograms(adata, bins=prediction.training, **prediction.training.columns)"
        )
    if histograms.context_key != training.context_key:
        theirs, ours = (f"context key {h.context_key!r}" for h in (histograms, training))
        raise ValueError(
            f"the histograms have {theirs}, the training has {ours}. Count the cells as in the training: "
            "count_histograms(adata, bins=prediction.training, **prediction.training.columns)"
        )
