"""Scores of a prediction on unseen cells, for each perturbation."""

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
from distpert.predictions.moment_prediction import MomentPrediction
from distpert.training.groups import TrainingGroups
from distpert.training.seen_cells import warn_of_training_cells

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.histograms.histograms import Histograms


class _About(NamedTuple):
    long_name: str
    units: str
    better: str  # "lower", "higher", or "" for variables that describe the cells, not the prediction


_ABOUT = {
    "n_cells": _About("held-out cells", "cells", ""),
    "out_of_range": _About("share of values beyond the bins of the training", "1", ""),
    "undefined_genes": _About("genes with all cells in one bin: no skewness, no kurtosis", "genes", ""),
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

    Each score uses the answer of the prediction that is best for it. The log score, Cramér distance, CRPS and mean
    shift use `Prediction.histogram` with ``"log"``, the Wasserstein distance uses it with ``"wasserstein"``. The error
    of a moment uses the predictive median of that moment in as many cells as were observed. Scores of genes are
    averaged over genes. The formulas are in `distpert.scores`.

    Parameters
    ----------
    prediction : MomentPrediction
        Prediction of a `Fit` or of a baseline.
    adata : AnnData or Histograms
        Held-out cells, with the same column names as the training, or their histograms in the same bins. Cells of other
        labels and contexts, and control cells, are ignored.
    by_gene : bool
        Whether to return a value for each gene instead of averages.
    ceilings : bool
        Whether to score halves of the held-out cells against each other as well: see Notes. Not with ``by_gene``.
    seed : int
        Seed of the halves.

    Returns
    -------
    Dataset
        Dimensions (perturbation, [context]). Each variable has attributes ``long_name``, ``units`` and ``better``
        (``"lower"``, ``"higher"`` or empty):

        - ``n_cells``: number of observed cells. ``out_of_range``: share of values beyond the bins, which are counted in
          the first or last bin. ``undefined_genes``: number of genes with all cells in one bin; these have no skewness
          and no kurtosis and do not enter the errors of these two.
        - ``nll``, ``nll_density`` (without genes of width 0), ``cramer``, ``crps``, ``wasserstein``,
          ``wasserstein_floor``: averages over genes.
        - ``rmae_mean``, ``rmae_variance``, ``rmae_skewness``, ``rmae_kurtosis``: relative absolute errors over genes.
        - ``pearson_shift``: correlation of shifts from the mean of the context's control cells.
          ``pearson_shift_centered``: correlation of shifts from the mean over training perturbations of their mean
          expression in the context, each perturbation counted once.
        - ``on_target_cramer``: average over the perturbed genes; NaN where none is measured.
        - ``ceiling_`` and the name of a score: its ceiling, where the score has one.

        With ``by_gene``, dimensions (perturbation, [context,] gene): ``n_cells`` (without the gene), ``out_of_range``,
        the scores from ``nll`` to ``wasserstein_floor``, and the absolute errors ``error_mean`` to ``error_kurtosis``.

        A method that predicts means only has ``n_cells`` and the scores of the mean.

        These are NaN: all scores of a group (a perturbation in a context) without cells; Cramér distances of a single
        cell; ceilings of fewer than four cells; ``pearson_shift_centered`` in a context without training perturbations;
        ``nll_density`` of a gene of width 0; ``error_skewness`` and ``error_kurtosis`` where they are not defined; and
        any average without a gene.

    Raises
    ------
    TypeError
        If ``prediction`` is not a prediction with moments, or ``adata`` is neither cells nor histograms.
    ValueError
        If a predicted perturbation has no cells in any of the predicted contexts, or histograms have other genes, bins
        or contexts than the training.
    KeyError
        If genes or columns of the training are not in ``adata``.

    Warns
    -----
    UserWarning
        If cells are training cells. The scores then measure the fit, not the prediction of unseen cells. The warning
        names the perturbations.

    See Also
    --------
    distpert.calibration, distpert.cross_validate, distpert.scores

    Notes
    -----
    A ceiling is the score of one half of the held-out cells as a prediction of the other half, averaged over both
    directions. It shows how much of a score is noise. Both halves are noisy, so it is pessimistic, and a good model
    beats it. Halves are drawn for each gene (`distpert.scores.split_counts`). For ``ceiling_nll``, one cell is added to
    the predicting half to keep every bin possible. It is spread as the histogram of all training cells, which is itself
    smoothed by one cell spread evenly over bins.

    Examples
    --------
    >>> prediction = fit.predict(["SALL4", "NANOG"])  # doctest: +SKIP
    >>> distpert.score(prediction, held_out)["cramer"].to_series()  # doctest: +SKIP
    """
    check_type("prediction", prediction, MomentPrediction, made_by="fit.predict(labels)")
    seed, training = check_seed(seed), prediction.training
    observed = observed_cells(training, adata, prediction.perturbations, prediction.contexts)
    n_cells = observed["n_cells"].to_numpy()
    groups = TrainingGroups(training)
    warn_of_training_cells(groups, observed)
    counts, outside = observed["counts"].to_numpy(), observed["out_of_range"].to_numpy()
    scales = _scales(groups, prediction.contexts)
    # Groups without cells count as one cell here; their answers are not used.
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
    """Bins and reference means of each context, from the training cells."""
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
