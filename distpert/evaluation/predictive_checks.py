"""Predictive checks: comparisons of observed cells with cells replicated from the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distpert._shared.symbols import check_known
from distpert.evaluation.intervals import SAME
from distpert.histograms.observed import observed_cells
from distpert.histograms.statistics import named_statistic
from distpert.predictions.blocks import Block
from distpert.predictions.histogram_prediction import HistogramPrediction, check_histograms

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms
    from distpert.histograms.statistics import Statistic


def predictive_check(
    prediction: HistogramPrediction,
    adata: AnnData | Histograms,
    statistic: str | Statistic = "zero_fraction",
    *,
    genes: str | Sequence[str] | None = None,
) -> xr.Dataset:
    r"""Compare a statistic of the observed cells with the same statistic of replicated cells.

    .. math:: p = \Pr(T(y^\mathrm{rep}) > T(y)) + \tfrac12 \Pr(T(y^\mathrm{rep}) = T(y))

    over draws from the predictive distribution, each with as many cells as were observed.

    Parameters
    ----------
    prediction : HistogramPrediction
        Posterior (`Fit.predict`), prior (`Fit.prior_predictive`), or prediction of a baseline with histograms, in which
        replicates vary only by the sampling of cells.
    adata : AnnData or Histograms
        Cells of the predicted perturbations, or their histograms, as in `score`.
    statistic : str or callable
        One of `distpert.statistics.STATISTICS`: ``"zero_fraction"``, ``"mean"``, ``"variance"``, ``"skewness"``,
        ``"kurtosis"``, ``"bimodality"``. Or a function ``f(probs, centers)`` of histograms (draw, gene, bin) and bin
        centers (gene, bin) that returns (draw, gene), with NaN where a histogram has no value. The function is called
        for blocks of genes, from several threads.
    genes : str or sequence of str, optional
        Genes to check, in this order; by default all. Replicates of other genes are not kept.

    Returns
    -------
    Dataset
        ``replicated`` (draw, perturbation, [context,] gene), float32; ``observed`` and ``p_value`` (perturbation,
        [context,] gene); ``n_cells`` (perturbation, [context]). Each has attributes ``long_name`` and ``units``. A
        replicate without a value (cells in a single bin have no skewness) is NaN and does not count in the p-value. The
        p-value is NaN where the observed cells have no value.

    Raises
    ------
    KeyError
        If there is no such statistic, or a gene is not predicted.
    ValueError
        If a predicted perturbation has no cells, the method predicts means only, the function does not return one value
        for each histogram, or ``genes`` is empty.
    TypeError
        If the statistic is neither a name nor a function, ``prediction`` has no histograms, or ``adata`` is neither
        cells nor histograms.

    See Also
    --------
    distpert.plots.plot_predictive_check, distpert.calibration, distpert.statistics

    Notes
    -----
    Near 0 or 1, the model hardly ever replicates the observed value [1]_. For held-out perturbations, p-values of a
    calibrated prediction are uniform, apart from ties. For training perturbations, the cells are used twice, and
    p-values crowd around one half even if the model is wrong [2]_. Few extreme values are then no sign of a good fit.
    P-values show where to look; they are not tests. Among thousands of genes, some are small by chance.

    References
    ----------
    .. [1] Gelman, Meng & Stern (1996), Statistica Sinica 6, 733; Gabry, Simpson, Vehtari, Betancourt & Gelman (2019),
       Journal of the Royal Statistical Society A 182, 389.
    .. [2] Bayarri & Berger (2000), Journal of the American Statistical Association 95, 1127.

    Examples
    --------
    >>> prediction = fit.predict("NANOG")  # doctest: +SKIP
    >>> check = distpert.predictive_check(prediction, held_out, "zero_fraction")  # doctest: +SKIP
    >>> distpert.plots.plot_predictive_check(check, gene="SOX2", context="5")  # doctest: +SKIP
    """
    check_histograms(prediction)
    function, long_name, units = named_statistic(statistic)
    chosen = _positions(prediction.genes, genes)
    perturbations, contexts = prediction.perturbations, prediction.contexts
    cells = observed_cells(prediction.training, adata, perturbations, contexts)
    given, n_cells = cells["counts"].to_numpy(), cells["n_cells"].to_numpy()
    replicated = np.maximum(n_cells, 1)  # groups without cells count as one cell here and become NaN below
    centers = prediction.centers.astype(np.float32)

    def of_block(block: Block) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Positions among the chosen genes, and the statistic of the observed cells and then of each replicate."""
        places = np.flatnonzero((chosen >= block.genes.start) & (chosen < block.genes.stop))
        if not places.size:
            return places, np.empty(0, np.float32)
        here = chosen[places]
        replicates = prediction.draw(block, replicated)[:, here - block.genes.start]
        number = replicated[block.perturbation, block.context]
        seen = (given[block.perturbation, block.context, here] / number).astype(np.float32)
        # The observed histogram goes through the same arithmetic as the replicates, so equal histograms tie.
        histograms = np.concatenate([seen[None], replicates])
        values = np.asarray(function(histograms, centers[here]))
        if values.shape != histograms.shape[:-1]:
            raise ValueError(
                f"{long_name} must return one value for each histogram, {histograms.shape[:-1]} for probs "
                f"{histograms.shape}, not {values.shape}"
            )
        return places, values.astype(np.float32)

    found = np.empty(0, np.float32)
    for block, (places, values) in prediction.map_blocks(of_block):
        if places.size:
            if not found.size:
                found = np.empty((len(values), len(perturbations), len(contexts), len(chosen)), np.float32)
            found[:, block.perturbation, block.context, places] = values
    found[:, n_cells == 0] = np.nan
    return _dataset(prediction, chosen, found, n_cells, long_name, units)


def posterior_p_value(replicated: ArrayLike, observed: ArrayLike) -> NDArray[np.float64]:
    """Share of replicates (draw, ...) above the observed value (...); ties count half.

    Replicates that are NaN do not count. The result is NaN where the observed value or all replicates are NaN. Values
    that differ only by rounding in single precision, relative to the larger of the two, count as ties, and so do equal
    infinite values.
    """
    draws, value = np.asarray(replicated), np.asarray(observed)
    total = np.where(np.isnan(value), 0, (~np.isnan(draws)).sum(axis=0))
    tie = np.isclose(draws, value, rtol=SAME, atol=0)  # NaN ties with nothing
    above = (~tie & (draws > value)).sum(axis=0)
    tied = tie.sum(axis=0)
    return np.where(total > 0, (above + tied / 2) / np.maximum(total, 1), np.nan)


def _positions(known: Sequence[str], genes: str | Sequence[str] | None) -> NDArray[np.intp]:
    if genes is None:
        return np.arange(len(known))
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise ValueError("genes is empty. Name at least one gene, or leave it out to check all")
    position = {gene: i for i, gene in enumerate(known)}
    for name in names:
        check_known(name, position, "genes")
    return np.array([position[name] for name in names])


def _dataset(
    prediction: HistogramPrediction,
    chosen: NDArray[np.intp],
    found: NDArray[np.float32],
    n_cells: NDArray[np.int64],
    long_name: str,
    units: str,
) -> xr.Dataset:
    """Make the dataset from values (1 + draw, perturbation, context, gene), the observed values first."""
    import xarray as xr

    dims = ("perturbation", "context", "gene")
    attrs = {"long_name": long_name, "units": units}
    p_value = posterior_p_value(found[1:], found[0])
    check = xr.Dataset(
        {
            "replicated": (("draw", *dims), found[1:], {**attrs, "long_name": f"replicated {long_name}"}),
            "observed": (dims, found[0], {**attrs, "long_name": f"observed {long_name}"}),
            "p_value": (dims, p_value, {"long_name": "predictive p-value", "units": "1"}),
            "n_cells": (dims[:2], n_cells, {"long_name": "observed cells", "units": "cells"}),
        },
        coords={
            "draw": np.arange(len(found) - 1),
            "perturbation": list(prediction.perturbations),
            "context": list(prediction.contexts),
            "gene": [prediction.genes[i] for i in chosen],
        },
        attrs={
            "statistic": long_name,
            "units": units,
            "prediction": prediction.kind,
            "control": prediction.training.control,
            "context_key": prediction.training.context_key or "",
        },
    )
    return check if prediction.training.context_key else check.isel(context=0, drop=True)
