"""How close a prediction comes to cells that it has not seen: the scores of `distpert.scores` for each perturbation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_seed, check_type
from distpert.evaluation.group_scores import Cells, Scale, average_scores, ceiling_scores, gene_scores
from distpert.histograms.moments import EXPRESSION, MOMENTS
from distpert.histograms.observed import observed_cells
from distpert.model.design import target_indices
from distpert.predictions.base import MomentPrediction
from distpert.training.groups import TrainingGroups
from distpert.training.seen_cells import warn_of_training_cells

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms


class _About(NamedTuple):
    long_name: str
    units: str
    better: str  # "lower", "higher", or "" for what describes the cells and not the prediction


_ABOUT = {
    "n_cells": _About("held-out cells", "cells", ""),
    "out_of_range": _About("share of values beyond the bins of the training", "1", ""),
    "undefined_genes": _About("genes whose cells are all in one bin: no skewness, no kurtosis", "genes", ""),
    "nll": _About("negative log-likelihood", "nats a cell", "lower"),
    "nll_density": _About("negative log density", "nats a cell", "lower"),
    "cramer": _About("Cramér distance, debiased", EXPRESSION, "lower"),
    "crps": _About("continuous ranked probability score", EXPRESSION, "lower"),
    "wasserstein": _About("Wasserstein-1 distance", EXPRESSION, "lower"),
    "wasserstein_floor": _About("Wasserstein-1 distance from the sampling of cells alone", EXPRESSION, ""),
    **{f"rmae_{name}": _About(f"relative absolute error of the {name}", "1", "lower") for name in MOMENTS},
    **{
        f"error_{name}": _About(f"absolute error of the {name}", units, "lower")
        for name, units in zip(MOMENTS, (EXPRESSION, f"{EXPRESSION}²", "1", "1"), strict=True)
    },
    "pearson_shift": _About("correlation of shifts from the control mean", "1", "higher"),
    "pearson_shift_centered": _About("correlation of shifts from the mean training perturbation", "1", "higher"),
    "on_target_cramer": _About("Cramér distance, debiased, of the perturbed genes", EXPRESSION, "lower"),
}


def score(
    prediction: MomentPrediction,
    adata: AnnData | Histograms,
    *,
    by_gene: bool = False,
    ceilings: bool = True,
    seed: int = 0,
) -> xr.Dataset:
    r"""Score a prediction on cells of the predicted perturbations.

    Each score takes that answer of the prediction which is best for it: `Prediction.histogram` with ``"log"`` for the
    log score, Cramér distance, CRPS and mean shift, with ``"wasserstein"`` for the Wasserstein distance, and for the
    error of a moment the predictive median of that moment in as many cells as were observed. The formulas are in
    `distpert.scores`; scores of genes are averaged over genes.

    Parameters
    ----------
    prediction
        Of a `Fit` or of a baseline.
    adata
        Held-out cells, read by the column names that the training was read by, or histograms of them in the same bins.
        Cells of other labels and contexts, controls too, are left out.
    by_gene
        Whether to give a value for each gene instead of averages.
    ceilings
        Whether to score halves of the held-out cells against each other as well: see Notes. Not with ``by_gene``.
    seed
        Of the halves.

    Returns
    -------
    Dataset
        Dimensions (perturbation, [context]), with attributes ``long_name``, ``units`` and ``better`` (``"lower"``,
        ``"higher"`` or empty) on each variable:

        - ``n_cells``; ``out_of_range``, share of values beyond the bins, which are counted in the end bins;
          ``undefined_genes``, number of genes whose cells are all in one bin. These have no skewness and no kurtosis,
          and are left out of the errors of these two.
        - ``nll``, ``nll_density`` (without genes of width 0), ``cramer``, ``crps``, ``wasserstein``,
          ``wasserstein_floor``: averages over genes.
        - ``rmae_mean``, ``rmae_variance``, ``rmae_skewness``, ``rmae_kurtosis``: relative absolute errors over genes.
        - ``pearson_shift``, from the mean of the context's controls, and ``pearson_shift_centered``, from the mean over
          training perturbations of their mean expression in the context, each perturbation counting once.
        - ``on_target_cramer``: average over the perturbed genes; NaN where none is measured.
        - ``ceiling_`` and the name of a score, for those of these scores that have one.

        With ``by_gene``, dimensions (perturbation, [context,] gene): ``n_cells`` (without the gene), ``out_of_range``,
        the scores from ``nll`` to ``wasserstein_floor``, and the absolute errors ``error_mean`` to ``error_kurtosis``.

        A method that predicts means alone has ``n_cells`` and the scores of the mean.

        NaN: all scores of a group (a perturbation in a context) without cells; Cramér distances of a single cell;
        ceilings of fewer than four cells; ``pearson_shift_centered`` in a context without training perturbations;
        ``nll_density`` of a gene of width 0; ``error_skewness`` and ``error_kurtosis`` where they are not defined, and
        any average that has no gene left.

    Raises
    ------
    TypeError
        If `prediction` is none, or `adata` neither cells nor histograms.
    ValueError
        If a predicted perturbation has no cells in any of the predicted contexts, or histograms have other genes, bins
        or contexts than the training.
    KeyError
        If genes or columns of the training are not in ``adata``.

    Warns
    -----
    UserWarning
        Names perturbations whose cells are those of the training, so that scores say how well these are fitted.

    Notes
    -----
    A ceiling is what one half of the held-out cells scores against the other half, averaged over both directions. It
    tells how much of a score is noise. Both halves are noisy, so it is pessimistic: a good model beats it. Halves are
    drawn for each gene (`distpert.scores.split_counts`). For ``ceiling_nll`` one cell spread as the histogram of all
    training cells, itself smoothed by one cell spread evenly over bins, is added to the half that predicts, so that no
    bin is impossible.
    """
    check_type("prediction", prediction, MomentPrediction, made_by="fit.predict(labels)")
    seed, training = check_seed(seed), prediction.training
    observed = observed_cells(training, adata, prediction.perturbations, prediction.contexts)
    n_cells = observed["n_cells"].to_numpy()
    groups = TrainingGroups(training)
    warn_of_training_cells(groups, observed)
    counts, outside = observed["counts"].to_numpy(), observed["out_of_range"].to_numpy()
    scales = _scales(groups, prediction.contexts)
    # Groups without cells are asked for one: their answers are not looked at.
    answers_of = prediction.answers(np.maximum(n_cells, 1))
    targets = target_indices(prediction.perturbations, prediction.genes)

    def scores_of(p: int, c: int) -> Mapping[str, NDArray | float]:
        cells = Cells(counts[p, c], outside[p, c], targets[p][targets[p] < len(prediction.genes)])
        answers, scale = answers_of(p, c), scales[c]
        if by_gene:
            return gene_scores(answers, cells, scale)
        scores = average_scores(answers, cells, scale)
        if ceilings:
            names = prediction.perturbations[p], prediction.contexts[c]
            rng = np.random.default_rng([seed, *(crc32(name.encode()) for name in names)])
            found = ceiling_scores(rng, cells, scale)
            scores |= {f"ceiling_{name}": value for name, value in found.items() if name in scores}
        return scores

    values: dict[str, NDArray] = {}
    for p, c in np.argwhere(n_cells).tolist():
        for name, value in scores_of(p, c).items():
            array = values.setdefault(name, np.full((*n_cells.shape, *np.shape(value)), np.nan))
            array[p, c] = value
    dims = ("perturbation", "context", "gene")
    table = observed[["n_cells", *(["gene"] if by_gene else [])]]
    table = table.assign({name: (dims[: array.ndim], array) for name, array in values.items()})
    for variable in table.values():
        variable.attrs = _attributes(str(variable.name))
    return table if training.context_key else table.isel(context=0, drop=True)


def _scales(groups: TrainingGroups, contexts: tuple[str, ...]) -> list[Scale]:
    """Give what the scores of each context are measured by, all of it from training cells."""
    training = groups.histograms
    centers = training.centers.to_numpy()
    means = np.einsum("rgb,gb->rg", groups.counts, centers) / groups.n_cells[:, None]
    pooled = groups.counts.sum(axis=0) + 1 / training.n_bins
    pooled /= pooled.sum(axis=-1, keepdims=True)

    def mean_of(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        return means[rows].mean(axis=0) if rows.any() else np.full(means.shape[1], np.nan)

    scales = []
    for context in contexts:
        here = groups.context == groups.contexts.index(context)
        control, centroid = mean_of(here & groups.is_control), mean_of(here & ~groups.is_control)
        scales.append(Scale(centers, training.widths.to_numpy(), control, centroid, pooled))
    return scales


def _attributes(name: str) -> dict[str, str]:
    if name.startswith("ceiling_"):
        about = _ABOUT[name.removeprefix("ceiling_")]
        return {"long_name": f"{about.long_name}, of half of the cells", "units": about.units, "better": ""}
    return _ABOUT[name]._asdict()
