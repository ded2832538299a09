"""Calibration and sharpness of predictions on held-out perturbations."""

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
from distpert.predictions.conformal import ConformalPrediction
from distpert.predictions.moment_prediction import MomentPrediction
from distpert.predictions.prediction import Prediction
from distpert.training.groups import TrainingGroups
from distpert.training.seen_cells import warn_of_training_cells

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from distpert.embeddings.sources import EmbeddingSources
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
    r"""Measure coverage, width and calibration of a prediction's intervals on held-out perturbations.

    Intervals are for the moments of as many cells as were observed (`Prediction.moments` with ``n_cells``). Averages
    are over the genes of a group (a perturbation in a context), and over groups. Bands are 95 % bands from resampling
    perturbations, because the genes of one perturbation are dependent. They are for one number at a time, except for
    the band of all bars.

    Parameters
    ----------
    prediction : HistogramPrediction or ConformalPrediction
        Prediction of a `Fit`, of a baseline or model of your own with histograms, or of `conformalize`.
    adata : AnnData or Histograms
        Held-out cells, or their histograms, as in `score`.
    levels : float or sequence of float
        Probabilities of the central intervals, increasing.
    n_strata : int
        Number of strata, of equal size apart from ties.
    embeddings : DataFrame, dict, str, Embeddings, or list of these, optional
        Embeddings for distances from the training; by default those of the fit. Baselines have none of their own, and
        conformal intervals have those of the prediction inside.
    n_pit_bins : int
        Number of bins of the histograms of probability integral transforms.
    n_resamples : int
        Number of resamples for the bands.
    seed : int
        Seed of the resamples.

    Returns
    -------
    Dataset
        Each variable has attributes ``long_name`` and ``units``. Averages over groups:

        - ``coverage``, ``width``, ``interval_score`` (moment, level), with bands ``_lower`` and ``_upper``.
        - ``pit`` (moment, pit_bin) and ``pit_cells`` (pit_bin): densities of the probability integral transforms of
          moments and of single cells, 1 everywhere if calibrated. ``_lower`` and ``_upper`` are the band of each bar:
          it is around 1 and covers each bar of a calibrated prediction with probability 95 %.
        - ``pit_simultaneous_lower``, ``pit_simultaneous_upper`` (moment, pit_bin), ``pit_p_value`` (moment); the same
          for single cells with ``pit_cells``. This band of all bars covers all bars of a calibrated prediction at once
          with probability 95 %. The p-value is for the hypothesis of a flat density, with the fit taken as given. There
          are five p-values: correct for their number.
        - ``coverage_by_stratum`` with its band (stratifier, stratum, moment, level), ``mean_by_stratum`` and
          ``n_perturbations_by_stratum`` (stratifier, stratum). The stratifiers are ``effect_size``, the Cramér distance
          between held-out cells and controls, corrected for the sampling of both; ``n_cells``; ``expression``, the mean
          of each gene in the context's controls; ``distance``, the Euclidean distance from the embedding of the nearest
          training perturbation; and ``spread``.
        - ``selective_risk`` with its band (share): ``cramer`` of this share of the perturbations, those with the least
          ``spread``, divided by ``cramer`` of all. Only for predictions with more than one draw of the distribution, as
          is ``spread``. NaN, with a warning, if the latter is not above 0.

        Values by perturbation, (…, perturbation, [context]), which `combine_calibrations` pools: the first five
        variables with ``_by_perturbation``, ``coverage_by_expression`` (moment, level, stratum, …), ``expression``
        (stratum, …), ``n_cells``, ``effect_size``, ``distance`` (perturbation), ``spread``, ``cramer``. ``spread`` is
        the width of the 50 % posterior interval of the distribution's mean, averaged over genes, without the sampling
        of cells; like the Cramér distance, it is in units of expression. Groups without cells are NaN. For a group of
        one cell, all moments except the mean are NaN and do not enter averages.

        Conformal intervals have no ``cramer`` and no ``pit``, and only the mean if the method predicts means only. An
        unknown stratifier is NaN.

    Raises
    ------
    TypeError
        If ``prediction`` is not such a prediction, or ``adata`` is neither cells nor histograms.
    ValueError
        If an option is out of its range, a perturbation has no cells, the method predicts means only, or histograms
        have other genes, bins or contexts than the training.
    KeyError
        If genes or columns of the training are not in ``adata``, or a perturbation has no embedding.

    Warns
    -----
    UserWarning
        If the mean Cramér distance is not above 0, which leaves no ``selective_risk``, or if cells are training cells.

    See Also
    --------
    distpert.combine_calibrations, distpert.width_at_coverage, distpert.conformalize
    distpert.score, distpert.plots.plot_coverage, distpert.plots.plot_pit

    Notes
    -----
    Coverage is averaged over the randomization of the transform. For a calibrated prediction it equals the level, for
    any number of draws and ties. Widths and scores use quantiles of the draws, which reach a level only with (1 +
    level) / (1 − level) draws. Conformal intervals include their ends; otherwise a tie counts in part. Widths and
    scores are averages over genes, in units of the moment: genes with much variation dominate. The effect size is
    measured on the same cells: even for a calibrated prediction, coverage is lower where the measured effect is large,
    and higher where it is small. Bands take the fit as given.

    Examples
    --------
    >>> table = distpert.calibration(fit.predict(["SALL4", "NANOG"]), held_out)  # doctest: +SKIP
    >>> table["coverage"].sel(moment="mean").to_series()  # doctest: +SKIP
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
    with np.errstate(invalid="ignore", divide="ignore"):  # ties can leave a stratum empty
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
    """Pool the calibrations of several folds.

    Parameters
    ----------
    *calibrations : Dataset
        Tables of `calibration` with the same options, for predictions of the same kind. If several folds hold out a
        perturbation, it is one perturbation in the resampling, and its groups count each time.
    n_resamples : int
        Number of resamples for the bands.
    seed : int
        Seed of the resamples.

    Returns
    -------
    Dataset
        A table as from `calibration`, computed from the concatenated values by perturbation. Groups are divided into
        strata again; strata of genes by expression remain those of each fold.

    Raises
    ------
    TypeError
        If an argument is not such a table, but for instance a list of tables.
    ValueError
        If there is nothing to pool, or options or kinds of prediction differ.

    See Also
    --------
    distpert.calibration, distpert.split_perturbations

    Examples
    --------
    >>> tables = [distpert.calibration(prediction, adata) for prediction in predictions]  # doctest: +SKIP
    >>> distpert.combine_calibrations(*tables)["coverage"]  # doctest: +SKIP
    """
    import xarray as xr

    check_count("n_resamples", n_resamples)
    if not calibrations:
        raise ValueError("nothing to combine. Pass at least one calibration")
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
    """Remove the posterior uncertainty of parameters, which leaves only the Dirichlet variation of histograms.

    Every draw has the mean of the drawn responses and on-target tilts, and of controls, loadings and concentrations.
    Histograms still vary around their expectation, and cells are still sampled. Such a prediction is over-confident.
    Its calibration, compared with that of the full prediction, shows the contribution of the latent uncertainty.

    Parameters
    ----------
    prediction : Prediction
        Made by `Fit.predict`.

    Returns
    -------
    Prediction

    Raises
    ------
    TypeError
        If ``prediction`` was not made by `Fit.predict`.

    See Also
    --------
    distpert.calibration, distpert.Fit.predict

    Examples
    --------
    >>> alone = distpert.without_latent_uncertainty(prediction)  # doctest: +SKIP
    >>> distpert.calibration(alone, held_out)["coverage"]  # doctest: +SKIP
    """
    check_type("prediction", prediction, Prediction, made_by="fit.predict(labels)")
    response, on_target = (
        np.broadcast_to(draws.mean(axis=0), draws.shape).copy() for draws in (prediction.response, prediction.on_target)
    )
    return replace(prediction, response=response, on_target=on_target, shared_at_mean=True)


def _check_options(
    prediction: Forecast, levels: float | Sequence[float], n_strata: int, n_pit_bins: int, n_resamples: int
) -> tuple[float, ...]:
    made_by = "fit.predict(labels) or distpert.conformalize"
    if isinstance(prediction, MomentPrediction) and len(prediction.moment_names) == 1:
        raise ValueError("this method predicts means alone, without intervals. Make some with distpert.conformalize")
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
    """Euclidean distance (perturbation,) from the nearest embedding in training; None without embeddings."""
    from distpert.embeddings.sources import as_embeddings
    from distpert.histograms.histograms import Histograms

    if source is not None:
        embeddings = as_embeddings(source, None if isinstance(adata, Histograms) else adata)
    elif prediction.embeddings is not None:
        embeddings = prediction.embeddings
    else:
        return None
    trained = [label for label in prediction.training.perturbations if embeddings.has(label)]
    if not trained:
        raise ValueError("no training perturbation has an embedding, so there are no distances from the training")
    known = [label for label in prediction.perturbations if embeddings.has(label)]
    found = np.full(len(prediction.perturbations), np.nan)
    # A training perturbation without an embedding can be predicted, but it is at no distance.
    at = [prediction.perturbations.index(label) for label in known]
    found[at] = distances(embeddings.of(known), embeddings.of(trained)).min(axis=1)
    return found
