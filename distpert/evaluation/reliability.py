"""How far a prediction knows what it does not know: coverage, sharpness and calibration on held-out perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed, check_type
from distpert.evaluation.calibration_table import BY_PERTURBATION, POOLED, pool_groups
from distpert.evaluation.group_calibration import Forecast, Grid, calibrate_groups
from distpert.evaluation.resampling import quantile_strata
from distpert.histograms.moments import MOMENTS
from distpert.histograms.observed import observed_cells
from distpert.model.kernels import distances
from distpert.predictions.base import MomentPrediction
from distpert.predictions.conformal import ConformalPrediction
from distpert.predictions.prediction import Prediction
from distpert.training.groups import TrainingGroups
from distpert.training.seen_cells import warn_of_training_cells

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.embeddings.vectors import EmbeddingSources
    from distpert.histograms.histograms import Histograms

_DIMS = {
    **dict.fromkeys(("coverage", "width", "interval_score"), ("level", "moment")),
    "coverage_by_expression": ("level", "moment", "stratum"),
    "pit": ("moment", "pit_bin"),
    "pit_cells": ("pit_bin",),
}


def calibration(
    prediction: Forecast,
    adata: AnnData | Histograms,
    *,
    levels: float | Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    n_strata: int = 4,
    embeddings: EmbeddingSources | None = None,
    n_pit_bins: int = 20,
    n_resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    r"""Ask how often the intervals of a prediction hold, how wide they are, and where.

    Intervals are of the moments that as many cells as were observed would show (`Prediction.moments` with ``n_cells``).
    Averages are over the genes of a group, a perturbation in a context, and over groups. Bands of 95 %, point by point
    unless they are called simultaneous, come from resampling perturbations (`distpert.evaluation.resampling`), as genes
    of one perturbation are dependent.

    Parameters
    ----------
    prediction
        Of a `Fit`, of a baseline that predicts histograms, or conformal (`conformalize`).
    adata
        Held-out cells, or histograms of them, as `score` takes them.
    levels
        Probability of the central intervals, or probabilities, increasing.
    n_strata
        Number of strata, equal in size but for ties.
    embeddings
        Where to measure distances from the training; by default those of the fit, for a baseline none. Conformal
        intervals have those of what they are around.
    n_pit_bins
        Bins of the histograms of probability integral transforms.
    n_resamples, seed
        Of the bands.

    Returns
    -------
    Dataset
        Attributes ``long_name`` and ``units`` on each variable. Pooled:

        - ``coverage``, ``width``, ``interval_score`` (moment, level), ``pit`` (moment, pit_bin), ``pit_cells``
          (pit_bin). With ``_lower`` and ``_upper``: the band; for transforms, densities that a calibrated prediction
          has 1 of, the band is that of the resampling shifted to be around 1: where 95 % of the heights should lie.
        - ``pit_simultaneous_lower``, ``pit_simultaneous_upper`` (moment, pit_bin), ``pit_p_value`` (moment), and of
          single cells ``pit_cells_simultaneous_lower``, ``pit_cells_simultaneous_upper`` (pit_bin),
          ``pit_cells_p_value``: the band in which all bars of a calibrated prediction lie at once, in 95 % of screens,
          and the p-value of a flat density (`distpert.evaluation.resampling.flatness`).
        - ``coverage_by_stratum`` with its band (stratifier, stratum, moment, level), ``mean_by_stratum`` and
          ``n_perturbations_by_stratum`` (stratifier, stratum). Stratifiers are ``effect_size``: Cramér distance
          between held-out cells and controls, without what the sampling of either adds; ``n_cells``; ``expression``:
          of genes, their mean in the context's controls; ``distance``: Euclidean, of the embedding from that of the
          nearest training perturbation; ``spread``.
        - ``selective_risk`` with its band (share): ``cramer`` of the share of perturbations with the least ``spread``,
          relative to that of all. Only for a posterior. NaN, with a warning, where that of all is not above 0.

        By perturbation, (…, perturbation, [context]), from which `combine_calibrations` pools anew: the first five with
        ``_by_perturbation``, ``coverage_by_expression`` (moment, level, stratum, …), ``expression`` (stratum, …), and
        ``n_cells``, ``effect_size``, ``distance`` (perturbation), ``spread``, ``cramer``. ``spread`` is the mean
        over genes of the width of the 50 % posterior interval of the distribution's mean, without the sampling of
        cells, in units of expression as the Cramér distance is. Groups without cells are NaN, and of a group of one
        cell all but the mean, which is left out of averages.

        Conformal intervals have no ``cramer`` and nothing that begins with ``pit``, and only the mean where the method
        predicts nothing else. A stratifier that is not known has NaN.

    Raises
    ------
    TypeError
        If `prediction` is none, or `adata` neither cells nor histograms.
    ValueError
        If an option makes no sense, a perturbation has no cells, the prediction is of means alone, or histograms have
        other genes, bins or contexts than the training.
    KeyError
        If genes or columns of the training are not in ``adata``, or a perturbation has no embedding.

    Warns
    -----
    UserWarning
        If the mean Cramér distance is not above 0, so that there is no ``selective_risk``; names perturbations whose
        cells are those of the training.

    Notes
    -----
    Coverage is averaged over the randomization of the transform (`distpert.evaluation.intervals.covered`): it equals
    the level for a calibrated prediction, however few draws there are and however many ties. Widths and scores are of
    quantiles of the draws, which reach a level only with (1 + level) / (1 − level) draws. For conformal intervals, a
    value at an end counts as covered. The effect size is of the cells that are predicted: coverage is lower where the
    effect came out large, and higher where it came out small, for a calibrated prediction too. Bands take the fit as
    given.
    """
    seed = check_seed(seed)
    levels = _check_options(prediction, levels, n_strata, n_pit_bins, n_resamples)
    training = prediction.training
    distance = _distances(prediction, embeddings, adata)
    observed = observed_cells(training, adata, prediction.perturbations, prediction.contexts)
    trained = TrainingGroups(training)
    warn_of_training_cells(trained, observed)
    rows = [training.contexts.index(context) for context in prediction.contexts]
    control, n_control = trained.control[rows], trained.n_control[rows]
    means = (control * prediction.centers).sum(axis=-1)
    stratum = np.stack([quantile_strata(row, n_strata) for row in means])
    edges = np.linspace(0, 1, n_pit_bins + 1)
    grid = Grid(levels, edges, stratum, n_strata)
    found = calibrate_groups(prediction, observed["counts"].to_numpy(), control, n_control, grid)

    import xarray as xr

    groups = observed[["n_cells"]].assign_coords(
        moment=list(MOMENTS[: found["coverage"].shape[1]]),
        level=list(levels),
        stratum=np.arange(n_strata),
        pit_bin=(edges[:-1] + edges[1:]) / 2,
    )
    group = ("perturbation", "context")
    for name, value in found.items():
        if name.startswith("pit"):
            value = value * n_pit_bins  # shares to densities
        groups[name + BY_PERTURBATION if name in POOLED else name] = ((*_DIMS.get(name, ()), *group), value)
    with np.errstate(invalid="ignore", divide="ignore"):  # a stratum that ties leave empty
        by_stratum = [np.where(stratum == s, means, 0).sum(1) / (stratum == s).sum(1) for s in range(n_strata)]
    expression = xr.DataArray(np.stack(by_stratum), dims=("stratum", "context"))
    groups["expression"] = expression.where(groups["n_cells"] > 0).transpose("stratum", *group)
    if distance is not None:
        groups["distance"] = ("perturbation", distance)
    groups = groups.drop_vars("gene", errors="ignore").transpose("moment", "level", "pit_bin", "stratum", *group)
    if not training.context_key:
        groups = groups.isel(context=0, drop=True)
    return pool_groups(groups, n_resamples, seed)


def combine_calibrations(*calibrations: xr.Dataset, n_resamples: int = 1000, seed: int = 0) -> xr.Dataset:
    """Pool what `calibration` found on several folds.

    Parameters
    ----------
    calibrations
        As `calibration` returns them, with the same options, of predictions of the same kind. A perturbation that is
        held out in several of them is one for the resampling, and its groups count each time.
    n_resamples, seed
        Of the bands.

    Returns
    -------
    Dataset
        As from `calibration`, computed anew from the values by perturbation, which are laid one after the other. Groups
        are divided into strata anew; strata of genes by expression stay those of each fold.

    Raises
    ------
    TypeError
        If one is no such table, but for instance a list of them.
    ValueError
        If there is nothing to pool, or options or kinds of prediction differ.
    """
    import xarray as xr

    check_count("n_resamples", n_resamples)
    if not calibrations:
        raise ValueError("give at least one calibration to combine")
    for table in calibrations:
        check_type("calibrations", table, xr.Dataset, made_by="distpert.calibration, each an argument of its own")
    first, *others = (
        dataset[[name for name, array in dataset.items() if "perturbation" in array.dims]] for dataset in calibrations
    )
    for other in others:
        if set(other) != set(first) or set(other.dims) != set(first.dims):
            raise ValueError("calibrations of different kinds of prediction cannot be combined: their variables differ")
        for name in ("moment", "level", "pit_bin", "stratum"):
            if name in first.dims and not np.array_equal(first[name], other[name]):
                raise ValueError(f"calibrations cannot be combined: they differ in {name}")
    options: dict[str, Any] = {"data_vars": "all", "coords": "minimal", "compat": "override", "join": "outer"}
    groups = xr.concat([first, *others], "perturbation", **options)
    groups["n_cells"] = groups["n_cells"].fillna(0).astype(np.int64)  # a context that a fold does not have
    return pool_groups(groups, n_resamples, check_seed(seed))


def without_latent_uncertainty(prediction: Prediction) -> Prediction:
    """Take away what a posterior does not know about the response: the Dirichlet alone.

    Each draw has the mean of the drawn responses and on-target tilts; what varies is the histogram about its
    expectation and the sampling of cells. Such a prediction is over-confident; it shows what latent uncertainty is
    there for.
    """
    check_type("prediction", prediction, Prediction, made_by="fit.predict(labels)")
    response, on_target = (
        np.broadcast_to(draws.mean(axis=0), draws.shape).copy() for draws in (prediction.response, prediction.on_target)
    )
    return replace(prediction, response=response, on_target=on_target)


def _check_options(
    prediction: Forecast, levels: float | Sequence[float], n_strata: int, n_pit_bins: int, n_resamples: int
) -> tuple[float, ...]:
    made_by = "fit.predict(labels) or distpert.conformalize"
    if isinstance(prediction, MomentPrediction) and len(prediction.moment_names) == 1:
        raise ValueError("this method predicts means alone, without intervals: distpert.conformalize gives it some")
    check_type("prediction", prediction, *get_args(Forecast), made_by=made_by)
    given = np.atleast_1d(np.asarray(levels, np.float64))
    if given.ndim != 1 or not given.size or not ((given > 0) & (given < 1)).all() or (np.diff(given) <= 0).any():
        raise ValueError(f"levels must lie between 0 and 1 and increase, not {levels}")
    for name, value in (("n_strata", n_strata), ("n_pit_bins", n_pit_bins), ("n_resamples", n_resamples)):
        check_count(name, value)
    if isinstance(prediction, ConformalPrediction):
        for level in given:
            prediction.radius(level)
    return tuple(given.tolist())


def _distances(
    prediction: Forecast, source: EmbeddingSources | None, adata: AnnData | Histograms
) -> NDArray[np.float64] | None:
    """Euclidean distance (perturbation,) from the nearest embedding in training, None without embeddings."""
    from distpert.embeddings.vectors import as_embeddings
    from distpert.histograms.histograms import Histograms

    if source is not None:
        embeddings = as_embeddings(source, None if isinstance(adata, Histograms) else adata)
    elif prediction.embeddings is not None:
        embeddings = prediction.embeddings
    else:
        return None
    trained = [label for label in prediction.training.perturbations if embeddings.has(label)]
    if not trained:
        raise ValueError("no training perturbation has an embedding, so no distance can be measured")
    return distances(embeddings.of(prediction.perturbations), embeddings.of(trained)).min(axis=1)
