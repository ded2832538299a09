"""Differences between cross-validated models, with bootstrap intervals over perturbations."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distpert._shared.arguments import check_count, check_seed, check_type
from distpert._shared.labels import listed

if TYPE_CHECKING:
    import xarray as xr

STATISTICS = ("mean", "difference", "lower", "upper", "ratio")
_INTERVAL = (0.025, 0.975)


def compare(
    scores: xr.Dataset,
    reference: str = "distpert",
    *,
    category: str | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    r"""Compare cross-validated models with a reference model, perturbation by perturbation.

    Each perturbation p counts once: its score is first averaged over the folds and contexts that have one. With
    :math:`d_p` the score of a model minus the score of the reference, the mean difference and its interval are

    .. math:: \bar d = \tfrac1P \sum_p d_p, \qquad
              \big[q_{0.025}(\bar d^*),\; q_{0.975}(\bar d^*)\big], \quad
              \bar d^* = \tfrac1P \sum_p w_p d_p,\; w \sim \mathrm{Multinomial}(P, 1/P)

    the 95 % percentile interval of the bootstrap over perturbations (Efron & Tibshirani 1993, section 13.3). It covers
    the variation between perturbations of this screen, not between screens.

    Parameters
    ----------
    scores : Dataset
        As `cross_validate` returns them.
    reference : str
        Model to compare with.
    category : str, optional
        Compare only on perturbations of this category, in the folds where they have it: ``unseen_single``,
        ``combo_seen0``, ``combo_seen1``, ``combo_seen2``. By default all.
    n_resamples : int
        Number of bootstrap resamples.
    seed : int
        Seed of the resamples.

    Returns
    -------
    Dataset
        For each score a variable (model, statistic). The statistics are ``mean``; ``difference`` from the reference
        with its interval from ``lower`` to ``upper``; and ``ratio`` of the means. The ratio is NaN where the mean of
        the reference is not above zero, and means little near zero. Attributes are those of ``scores``, with ``better``
        (``lower`` or ``higher``), and ``n_perturbations``. Where fewer than 2 perturbations have a score of both the
        model and the reference, only the mean is given and the rest is NaN.

    Raises
    ------
    KeyError
        If the reference is not among the models, or no perturbation is of the category.
    TypeError
        If ``scores`` is not a Dataset.
    ValueError
        If ``scores`` does not come from `cross_validate`, fewer than 2 perturbations can be compared, or
        ``n_resamples`` is below 1.

    Warns
    -----
    UserWarning
        If a model lacks scores of perturbations that the reference has. Such a model is compared on the perturbations
        that have both scores.

    See Also
    --------
    distpert.cross_validate

    Examples
    --------
    >>> scores = distpert.cross_validate(adata, "embeddings", models=["distpert", "pooled"])  # doctest: +SKIP
    >>> distpert.compare(scores)["cramer"].sel(model="pooled").to_series()  # doctest: +SKIP
    """
    import xarray as xr

    check_type("scores", scores, xr.Dataset, made_by="distpert.cross_validate")
    if not {"model", "fold", "perturbation"} <= set(scores.dims) or "category" not in scores.coords:
        raise ValueError("scores must have dimensions model, fold and perturbation, as cross_validate returns them")
    seed = check_seed(seed)
    models = [str(name) for name in scores["model"].to_numpy()]
    if reference not in models:
        raise KeyError(f"no model {reference!r} to compare with; there are: {listed(models)}")
    n_resamples = check_count("n_resamples", n_resamples)
    if category is not None:
        has = scores["category"] == category
        if not has.any():
            there = sorted(set(scores["category"].to_numpy().ravel().tolist()) - {""})
            raise KeyError(f"no perturbation is of category {category!r}; there are: {listed(there)}")
        scores = scores.where(has)
    row = models.index(reference)
    compared, lacking = {}, set()
    for name, array in scores.data_vars.items():
        if array.attrs.get("better") not in ("lower", "higher"):  # describes the cells, or the computation
            continue
        rest = [dim for dim in array.dims if dim not in ("model", "perturbation")]
        values = array.mean(rest).transpose("model", "perturbation").to_numpy().astype(np.float64)
        table, n_both = _compare(values, row, n_resamples, seed)
        lacking |= {model for model, n in zip(models, n_both, strict=True) if 0 < n < n_both[row]}
        attrs = {**array.attrs, "n_perturbations": int(n_both[row])}
        compared[name] = (("model", "statistic"), table, attrs)
    if not compared or max(attrs["n_perturbations"] for *_, attrs in compared.values()) < 2:
        raise ValueError("at least 2 perturbations with scores are needed to compare models")
    if lacking:
        warnings.warn(
            f"{listed(sorted(lacking))} lack scores of perturbations that {reference} has. Each is compared on the "
            "perturbations that both have",
            UserWarning,
            stacklevel=2,
        )
    attrs = {"reference": reference, "category": category or "all", "n_resamples": n_resamples}
    return xr.Dataset(compared, coords={"model": models, "statistic": list(STATISTICS)}, attrs=attrs)


def _compare(
    values: NDArray[np.float64], reference: int, n_resamples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Statistics (model, statistic) of scores (model, perturbation), and the number of perturbations behind each."""
    both = ~np.isnan(values) & ~np.isnan(values[reference])
    n_both = both.sum(axis=1)
    table = np.full((len(values), len(STATISTICS)), np.nan)
    for row, kept in zip(table, range(len(values)), strict=True):
        n = int(n_both[kept])
        if n < 2:
            there = values[kept][~np.isnan(values[kept])]
            row[0] = there.mean() if there.size else np.nan
            continue
        own, other = values[kept, both[kept]], values[reference, both[kept]]
        # The same seed for each model, so models with the same perturbations have the same resamples.
        weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples) / n
        with np.errstate(invalid="ignore", divide="ignore"):  # infinite scores
            difference = own - other
            interval = np.quantile(weights @ difference, _INTERVAL)
            ratio = own.mean() / other.mean() if other.mean() > 0 else np.nan
            row[:] = own.mean(), difference.mean(), *interval, ratio
    return table, n_both
