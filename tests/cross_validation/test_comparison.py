"""Paired comparisons against loops and scipy's bootstrap."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from distpert.cross_validation.comparison import compare

MODELS, N_FOLDS, N_PERTURBATIONS = ["distpert", "pooled", "ridge"], 3, 40


@pytest.fixture
def scores():
    """Each perturbation held out in a fold or two; ridge predicts means alone."""
    rng = np.random.default_rng(0)
    shape = (len(MODELS), N_FOLDS, N_PERTURBATIONS)
    category = np.full(shape[1:], "", dtype="<U13")
    for p in range(N_PERTURBATIONS):
        category[p % 3, p] = "unseen_single" if p % 2 else "combo_seen1"
        if p % 4 == 0:
            category[(p + 1) % 3, p] = "combo_seen2"
    held_out = category != ""
    dims = ("model", "fold", "perturbation")
    level = np.arange(1, 4)[:, None, None]
    values = {
        "cramer": (dims, np.where(held_out, level + rng.gamma(2, size=shape), np.nan), {"better": "lower"}),
        "pearson_shift": (dims, np.where(held_out, rng.uniform(-1, 1, shape), np.nan), {"better": "higher"}),
        "wasserstein_floor": (dims, np.ones(shape), {"better": ""}),
        "seconds": (dims[:2], np.ones(shape[:2])),
        "n_cells": (dims[1:], np.ones(shape[1:]), {"better": ""}),
    }
    values["cramer"][1][2] = np.nan
    coords = {
        "model": MODELS,
        "fold": range(N_FOLDS),
        "perturbation": [f"P{p}" for p in range(N_PERTURBATIONS)],
        "category": (dims[1:], category),
    }
    return xr.Dataset(values, coords=coords)


def averages(array, chosen=True):
    """One number a perturbation, by a loop."""
    values, rows = array.where(chosen).transpose("perturbation", ...).to_numpy(), []
    for row in values:
        there = [x for x in row.ravel() if not np.isnan(x)]
        rows.append(sum(there) / len(there) if there else np.nan)
    return np.array(rows)


def test_means_and_differences(scores):
    compared = compare(scores, n_resamples=10)
    assert set(compared) == {"cramer", "pearson_shift"}
    assert compared["statistic"].to_numpy().tolist() == ["mean", "difference", "lower", "upper", "ratio"]
    for name in compared:
        assert compared[name].dims == ("model", "statistic")
        assert compared[name].attrs == {**scores[name].attrs, "n_perturbations": N_PERTURBATIONS}
        reference = averages(scores[name].sel(model="distpert"))
        for model in ("distpert", "pooled"):
            own = averages(scores[name].sel(model=model))
            row = compared[name].sel(model=model)
            assert row.sel(statistic="mean") == pytest.approx(own.mean())
            assert row.sel(statistic="difference") == pytest.approx((own - reference).mean())
            ratio = own.mean() / reference.mean() if reference.mean() > 0 else np.nan
            assert float(row.sel(statistic="ratio")) == pytest.approx(ratio, nan_ok=True)
    assert compared["cramer"].sel(model="distpert").to_numpy()[1:].tolist() == [0, 0, 0, 1]
    assert compared.attrs == {"reference": "distpert", "category": "all", "n_resamples": 10}


def test_intervals_are_those_of_the_bootstrap(scores):
    row = compare(scores, n_resamples=20_000)["cramer"].sel(model="pooled")
    difference = averages(scores["cramer"].sel(model="pooled")) - averages(scores["cramer"].sel(model="distpert"))
    expected = scipy.stats.bootstrap(
        (difference,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    )
    tolerance = 0.05 * expected.standard_error  # quantiles of 20,000 resamples: standard error 0.02 of that
    assert float(row.sel(statistic="lower")) == pytest.approx(expected.confidence_interval.low, abs=tolerance)
    assert float(row.sel(statistic="upper")) == pytest.approx(expected.confidence_interval.high, abs=tolerance)


def test_intervals_follow_the_seed_and_not_the_other_models(scores):
    compared = compare(scores, seed=3)
    assert compared.identical(compare(scores, seed=3))
    assert not compared.equals(compare(scores, seed=4))
    fewer = compare(scores.sel(model=["pooled", "distpert"]), seed=3)
    assert fewer.equals(compared.sel(model=["pooled", "distpert"]))


def test_category(scores):
    compared = compare(scores, category="combo_seen2", n_resamples=10)
    own = averages(scores["cramer"].sel(model="pooled"), scores["category"] == "combo_seen2")
    there = ~np.isnan(own)
    assert compared["cramer"].attrs["n_perturbations"] == there.sum() == 10
    assert compared["cramer"].sel(model="pooled", statistic="mean") == pytest.approx(own[there].mean())
    assert compared.attrs["category"] == "combo_seen2"


def test_contexts_count_once_a_perturbation(scores):
    rng = np.random.default_rng(1)
    by_context = scores[["cramer"]].expand_dims(context=["a", "b"], axis=-1)
    by_context = by_context + rng.normal(size=by_context["cramer"].shape)
    by_context["cramer"].attrs = scores["cramer"].attrs
    one_context = by_context["cramer"].sel(perturbation="P0")  # no cells in the other
    by_context["cramer"].loc[{"perturbation": "P0"}] = one_context.where(one_context["context"] == "a")
    compared = compare(by_context, n_resamples=10)["cramer"]
    own = averages(by_context["cramer"].sel(model="pooled"))
    assert compared.sel(model="pooled", statistic="mean") == pytest.approx(own.mean())
    assert compared.attrs["n_perturbations"] == N_PERTURBATIONS


def test_scores_that_a_model_does_not_have(scores):
    compared = compare(scores)
    assert compared["cramer"].sel(model="ridge").isnull().all()
    assert compared["pearson_shift"].drop_sel(statistic="ratio").notnull().all()
    assert compared["pearson_shift"].sel(statistic="mean", model="distpert") < 0  # so that there is no ratio to it
    of_ridge = compare(scores, reference="ridge")["cramer"]
    assert of_ridge.attrs["n_perturbations"] == 0
    assert of_ridge.sel(statistic="mean").notnull().to_numpy().tolist() == [True, True, False]
    assert of_ridge.drop_sel(statistic="mean").isnull().all()


def test_a_model_with_fewer_perturbations_is_named(scores):
    scores["cramer"].loc[{"model": "pooled", "perturbation": ["P1", "P2"]}] = np.nan
    with pytest.warns(UserWarning, match="pooled lack scores of perturbations that distpert has"):
        compared = compare(scores, n_resamples=10)
    own, reference = (averages(scores["cramer"].sel(model=model)) for model in ("pooled", "distpert"))
    difference = np.delete(own - reference, [1, 2]).mean()
    assert compared["cramer"].sel(model="pooled", statistic="difference") == pytest.approx(difference)


def test_infinite_scores_are_not_left_out(scores):
    scores["cramer"].loc[{"model": "pooled", "fold": 1, "perturbation": "P1"}] = np.inf
    row = compare(scores)["cramer"].sel(model="pooled")
    assert np.isinf(row.sel(statistic=["mean", "difference", "ratio"])).all()


def test_one_perturbation_has_a_mean_alone(scores):
    scores["on_target"] = scores["cramer"].where(scores["perturbation"] == "P1").assign_attrs(better="lower")
    row = compare(scores)["on_target"].sel(model="pooled")
    assert row.notnull().to_numpy().tolist() == [True, False, False, False, False]
    with pytest.raises(ValueError, match="at least 2 perturbations"):
        compare(scores.sel(perturbation=["P1"]))


def test_errors(scores):
    with pytest.raises(KeyError, match="no model 'gears' to compare with; there are: distpert, pooled, ridge"):
        compare(scores, "gears")
    with pytest.raises(KeyError, match="'combo_seen0'; there are: combo_seen1, combo_seen2, unseen_single"):
        compare(scores, category="combo_seen0")
    with pytest.raises(ValueError, match="n_resamples must be at least 1"):
        compare(scores, n_resamples=0)
    with pytest.raises(ValueError, match="as cross_validate returns them"):
        compare(scores.isel(fold=0))
    with pytest.raises(ValueError, match="at least 2 perturbations"):
        compare(scores[["n_cells"]].assign_coords(model=MODELS))
