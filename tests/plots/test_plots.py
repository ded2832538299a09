from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy.stats import kurtosis, skew

import distpert
from distpert import calibration, conformalize, count_histograms, without_latent_uncertainty
from distpert.baselines import MeanPrediction, PooledHistogram
from distpert.plots import (
    plot_coverage,
    plot_effects,
    plot_explained_share,
    plot_histogram,
    plot_loss,
    plot_moments,
    plot_pit,
    plot_relevance,
    plot_selective_risk,
    plot_shift,
    plot_strata,
)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_draws_what_is_predicted_and_observed(context_screen, context_fit, ax):
    label, gene, context = context_fit.perturbations[0], context_fit.genes[3], context_fit.contexts[1]
    prediction = context_fit.predict(context_fit.perturbations[:2], num_draws=50)
    cells = count_histograms(context_screen.adata, bins=context_fit.histograms, context_key="context")
    returned = plot_histogram(prediction, label, gene, context=context, observed=cells, ax=ax)
    assert returned is ax
    assert ax.get_title() == f"{gene}: {label}, context context1"
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    control, predicted, observed = (line.get_ydata() for line in ax.get_lines())
    where = {"perturbation": label, "gene": gene, "context": context}
    shown = context_fit.histograms.counts.to_numpy()[:, 3].sum(axis=0) > 0
    np.testing.assert_allclose(predicted, prediction.histogram().sel(where).to_numpy()[shown], rtol=1e-6)
    np.testing.assert_allclose(control, context_fit.control[1, 3][shown], rtol=1e-6)
    assert observed.sum() == pytest.approx(1)
    (band,) = ax.collections
    interval = prediction.histogram_interval(n_cells=60).sel(where)
    vertices = band.get_paths()[0].vertices[:, 1]
    assert vertices.max() == pytest.approx(float(interval.sel(statistic="upper").max()), rel=1e-5)


def test_without_cells_and_axes(fitted):
    prediction = fitted.predict(fitted.perturbations[0], num_draws=20)
    ax = plot_histogram(prediction, fitted.perturbations[0], fitted.genes[0])
    assert len(ax.get_lines()) == 2
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["control", "predicted, 90% band of probability"]
    plt.close(ax.figure)


def test_the_legend_says_what_is_drawn(others, context_screen, ax):
    def texts(prediction, **options):
        ax.clear()
        plot_histogram(prediction, "GENE1", "GENE2", context="context0", ax=ax, **options)
        return [text.get_text() for text in ax.get_legend().get_texts()]

    assert texts(others["baseline"]) == ["control", "predicted"]
    assert texts(others["baseline"], observed=context_screen.adata, ci_prob=0.5) == [
        "control",
        "predicted, 50% band for 60 cells",
        "observed (60 cells)",
    ]
    assert not ax.get_legend().get_frame_on()


@pytest.fixture(scope="module")
def others(context_fit):
    """Predictions that a fit, its labels and its seed alone do not tell, by what they are."""
    labels = ["GENE1", "GENE3", "GENE11"]
    posterior = context_fit.predict(labels, num_draws=30, progress_bar=False)
    return {
        "prior": context_fit.prior_predictive(labels, num_draws=30, progress_bar=False),
        "without latent uncertainty": without_latent_uncertainty(posterior),
        "other draws": replace(posterior, response=posterior.response[::-1] + 1),
        "baseline": PooledHistogram().fit(context_fit.histograms, context_fit.embeddings).predict(labels),
    }


@pytest.mark.parametrize("name", ["prior", "without latent uncertainty", "other draws", "baseline"])
def test_the_prediction_that_is_given_is_drawn(others, context_fit, context_screen, ax, name):
    prediction, gene = others[name], others[name].genes[3]
    where = {"perturbation": "GENE3", "gene": gene, "context": "context1"}
    shown = prediction.training.counts.to_numpy()[:, 3].sum(axis=0) > 0
    plot_histogram(prediction, "GENE3", gene, context="context1", observed=context_screen.adata, ax=ax)
    _, predicted, _ = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(predicted, prediction.histogram().sel(where).to_numpy()[shown], rtol=1e-5)
    upper = prediction.histogram_interval(n_cells=60).sel(where).sel(statistic="upper")
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(float(upper.max()), rel=1e-5)
    ax.clear()
    plot_moments(prediction, context_screen.adata, "GENE3", context="context1", ax=ax)
    y = np.concatenate([line.get_ydata() for line in ax.get_lines()[:2]])
    summary = prediction.summary(n_cells=60)["mean"].sel(perturbation="GENE3", context="context1")
    np.testing.assert_allclose(np.sort(y), np.sort(summary.sel(statistic="median")), rtol=1e-5)
    ax.clear()
    (image,) = plot_shift(prediction, genes=[gene], context="context1", ax=ax).images
    shift = prediction.summary()["mean"] - context_fit.control_moments()["mean"]
    shift = shift.sel(statistic="median", context="context1", gene=[gene])
    np.testing.assert_allclose(image.get_array(), shift, atol=1e-5)


def test_conformal_intervals_have_a_plot_of_moments_alone(context_fit, context_screen, others, ax):
    baseline = PooledHistogram().fit(context_fit.histograms.select(["GENE4"]), context_fit.embeddings)
    calibrating = baseline.predict(["GENE1", "GENE2", "GENE5"])
    intervals = conformalize(baseline.predict(["GENE3", "GENE6"]), calibrating, context_screen.adata)
    options = {"context": "context0", "ci_prob": 0.5}
    plot_moments(intervals, context_screen.adata, "GENE6", ax=ax, **options)
    summary = intervals.summary(0.5, n_cells=60)["mean"].sel(perturbation="GENE6", context="context0")
    ends = np.concatenate([[path.vertices[:, 1] for path in group.get_paths()] for group in ax.collections])
    np.testing.assert_allclose(np.sort(ends[:, 1]), np.sort(summary.sel(statistic="upper")), rtol=1e-5)
    with pytest.raises(TypeError, match=r"expected HistogramPrediction, .*; got ConformalPrediction"):
        plot_histogram(intervals, "GENE6", intervals.genes[0], context="context0", ax=ax)
    with pytest.raises(TypeError, match=r"expected MomentPrediction, .*; got ConformalPrediction"):
        plot_shift(intervals, context="context0", ax=ax)


def test_means_alone_have_a_plot_of_the_shift_of_the_mean(prediction, small, ax):
    means = prediction.moments()["mean"].mean("draw").to_numpy()[:, None]
    baseline = MeanPrediction(prediction.training, prediction.perturbations, ["all"], means)
    (image,) = plot_shift(baseline, genes=["GENE1"], ax=ax).images
    expected = means[:, 0, 1] - prediction.posterior.control_moments()["mean"].sel(gene="GENE1").item()
    np.testing.assert_allclose(np.asarray(image.get_array())[:, 0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="moment must be one of mean, not 'variance'"):
        plot_shift(baseline, "variance", ax=ax)
    with pytest.raises(ValueError, match="means alone, without intervals to plot"):
        plot_moments(baseline, small.adata, "GENE2", ax=ax)
    with pytest.raises(ValueError, match="means alone: there are no histograms"):
        plot_histogram(baseline, "GENE2", "GENE1", ax=ax)


def test_unknown_names(context_fit, ax):
    prediction = context_fit.predict(context_fit.perturbations[0], num_draws=5)
    label, gene = context_fit.perturbations[0], context_fit.genes[0]
    with pytest.raises(KeyError, match="'NOPE' is not among the predicted perturbations"):
        plot_histogram(prediction, "NOPE", gene, ax=ax)
    with pytest.raises(KeyError, match="'NOPE' is not among the predicted genes"):
        plot_histogram(prediction, label, "NOPE", ax=ax)
    with pytest.raises(KeyError, match="'NOPE' is not among the predicted contexts"):
        plot_histogram(prediction, label, gene, context="NOPE", ax=ax)
    with pytest.raises(KeyError, match="there are several contexts, choose one with context=: context0, context1"):
        plot_histogram(prediction, label, gene, ax=ax)


@pytest.fixture(scope="module")
def prediction(small_fit):
    return small_fit.predict(small_fit.perturbations, num_draws=50, progress_bar=False)


@pytest.fixture(scope="module")
def exchanged(prediction, small):
    """Cells under the label of another perturbation: of their own, the fit knows all."""
    adata = small.adata.copy()
    labels = list(prediction.perturbations)
    adata.obs["perturbation"] = (
        adata.obs["perturbation"].astype(str).replace(dict(zip(labels, labels[::-1], strict=True)))
    )
    return adata


@pytest.fixture(scope="module")
def table(prediction, exchanged):
    return calibration(prediction, exchanged, n_pit_bins=10, n_resamples=50)


@pytest.mark.parametrize("moment", ["mean", "variance", "skewness", "kurtosis"])
def test_moments_against_observed(prediction, small, ax, moment):
    assert plot_moments(prediction, small.adata, "GENE2", moment=moment, ci_prob=0.5, ax=ax) is ax
    cells = small.adata.X[(small.adata.obs["perturbation"] == "GENE2").to_numpy()].astype(float)
    function = {"mean": np.mean, "variance": np.var, "skewness": skew, "kurtosis": kurtosis}[moment]
    has_shape = np.ptp(cells, axis=0) > 0
    chosen = has_shape if moment in ("skewness", "kurtosis") else np.ones(5, bool)
    holds, misses, diagonal = ax.get_lines()
    x, y = (np.concatenate([getattr(line, get)() for line in (holds, misses)]) for get in ("get_xdata", "get_ydata"))
    observed = function(cells[:, chosen], axis=0)
    np.testing.assert_allclose(np.sort(x), np.sort(observed), rtol=1e-3, atol=1e-4)
    summary = prediction.summary(0.5, n_cells=20)[moment].sel(perturbation="GENE2")[:, chosen]
    np.testing.assert_allclose(np.sort(y), np.sort(summary.sel(statistic="median")), rtol=1e-5, atol=1e-6)
    ends = np.concatenate(
        [[path.vertices[:, 1] for path in group.get_paths()] for group in ax.collections if len(group.get_paths())]
    )
    expected = summary.sel(statistic=["lower", "upper"]).to_numpy().T
    np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(expected, axis=0), rtol=1e-5, atol=1e-6)
    inside = (
        (summary.sel(statistic="lower") <= observed + 1e-5) & (observed - 1e-5 <= summary.sel(statistic="upper"))
    ).sum()
    assert len(holds.get_xdata()) == int(inside)
    assert holds.get_label() == f"50% interval covers: {int(inside)} genes"
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()
    assert ax.get_title().startswith("GENE2 (20 cells)")
    assert moment in ax.get_xlabel()


def test_genes_without_shape_are_left_out(prediction, small, ax):
    adata = small.adata.copy()
    adata.X[(adata.obs["perturbation"] == "GENE2").to_numpy(), 1] = 0
    plot_moments(prediction, adata, "GENE2", moment="skewness", ax=ax)
    assert sum(len(line.get_xdata()) for line in ax.get_lines()[:2]) == 4
    assert ax.get_legend().get_texts()[-1].get_text() == "no skewness: 1 genes"


def test_moments_of_one_context(context_fit, context_screen, ax):
    prediction = context_fit.predict(["GENE1", "GENE3"], num_draws=10, progress_bar=False)
    plot_moments(prediction, context_screen.adata, "GENE3", context="context1", ax=ax)
    obs = context_screen.adata.obs
    cells = context_screen.adata.X[((obs["perturbation"] == "GENE3") & (obs["context"] == "context1")).to_numpy()]
    x = np.concatenate([line.get_xdata() for line in ax.get_lines()[:2]])
    np.testing.assert_allclose(np.sort(x), np.sort(cells.mean(axis=0, dtype=float)), rtol=1e-4, atol=1e-5)
    with pytest.raises(KeyError, match="there are several contexts, choose one with context="):
        plot_moments(prediction, context_screen.adata, "GENE3", ax=ax)


def test_coverage(table, ax):
    assert plot_coverage(table, ax=ax) is ax
    calibrated, *lines = ax.get_lines()
    assert [line.get_label() for line in lines] == ["mean", "variance", "skewness", "kurtosis"]
    for line, band in zip(lines, ax.collections, strict=True):
        moment = table.sel(moment=line.get_label())
        np.testing.assert_array_equal(line.get_xdata(), [0.5, 0.8, 0.9, 0.95])
        np.testing.assert_array_equal(line.get_ydata(), moment["coverage"])
        ends = band.get_paths()[0].vertices[:, 1]
        assert ends.min() == moment["coverage_lower"].min()
        assert ends.max() == moment["coverage_upper"].max()
    np.testing.assert_array_equal(calibrated.get_xdata(), calibrated.get_ydata())


@pytest.mark.parametrize("moment", ["kurtosis", "cells"])
def test_transforms(table, ax, moment):
    assert plot_pit(table, moment, ax=ax) is ax
    of = table if moment == "cells" else table.sel(moment=moment)
    name = "pit_cells" if moment == "cells" else "pit"
    value, lower, upper = (of[name + end] for end in ("", "_lower", "_upper"))
    *bars, band, highest, lowest = ax.patches
    np.testing.assert_array_equal([bar.get_height() for bar in bars], value)
    outside = ((value < lower) | (value > upper)).to_numpy()
    assert [bool(bar.get_hatch()) for bar in bars] == outside.tolist()
    ends, steps, base = band.get_data()
    np.testing.assert_allclose(steps, np.linspace(0, 1, 11))
    np.testing.assert_array_equal(ends, upper)
    np.testing.assert_array_equal(base, lower)
    for outline, end in ((highest, "upper"), (lowest, "lower")):
        np.testing.assert_array_equal(outline.get_data().values, of[f"{name}_simultaneous_{end}"])
        assert not outline.get_fill()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    p_value = float(of[f"{name}_p_value"])
    assert labels == ["95 % band, each bar", f"95 % band, all bars (flat: p = {p_value:.2g})"]
    assert ax.get_title() == ("single cells" if moment == "cells" else moment)


def test_transforms_of_one_perturbation_have_no_band(prediction, exchanged, ax):
    one = calibration(prediction.select_position(2, 0), exchanged, n_pit_bins=10, n_resamples=50)
    plot_pit(one, ax=ax)
    np.testing.assert_array_equal([bar.get_height() for bar in ax.patches], one["pit"].sel(moment="mean"))
    assert ax.get_legend() is None


def test_transforms_that_there_are_not(table, ax):
    with pytest.raises(ValueError, match="moment must be one of mean, variance, skewness, kurtosis, cells, not 'mode'"):
        plot_pit(table, "mode", ax=ax)
    with pytest.raises(ValueError, match="conformal intervals have no distribution"):
        plot_pit(table.drop_vars(["pit", "pit_cells"]), ax=ax)
    with pytest.raises(ValueError, match="no transforms of skewness: each group has a single cell"):
        plot_pit(table.assign(pit=table["pit"].where(table["moment"] == "mean")), "skewness", ax=ax)


def test_selective_risk(table, ax):
    assert plot_selective_risk(table, ax=ax) is ax
    line = ax.get_lines()[1]
    np.testing.assert_allclose(line.get_xdata(), np.arange(10, 101, 10))
    np.testing.assert_array_equal(line.get_ydata(), table["selective_risk"])
    ends = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert ends.min() == table["selective_risk_lower"].min()
    assert ends.max() == table["selective_risk_upper"].max()
    with pytest.raises(ValueError, match="only a posterior has a spread"):
        plot_selective_risk(table.drop_vars("selective_risk"), ax=ax)


def test_selective_risk_below_zero_is_in_the_picture(table, ax):
    risk = table["selective_risk"]
    lower = table.assign(selective_risk=risk - 2, selective_risk_lower=risk - 2.5, selective_risk_upper=risk - 1.5)
    plot_selective_risk(lower, ax=ax)
    assert ax.get_ylim()[0] < lower["selective_risk_lower"].min()
    ax.clear()
    bare = table.assign({f"selective_risk_{end}": risk * np.nan for end in ("lower", "upper")})
    plot_selective_risk(bare, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["random order"]
    with pytest.raises(ValueError, match="not above 0"):
        plot_selective_risk(table.assign(selective_risk=risk * np.nan), ax=ax)


@pytest.mark.parametrize("stratifier", ["spread", "distance", "n_cells"])
def test_strata(table, ax, stratifier):
    assert plot_strata(table, stratifier, "variance", ax=ax) is ax
    of = table.sel(stratifier=stratifier, moment="variance")
    levels = [0.5, 0.8, 0.9, 0.95]
    assert len(ax.containers) == len(levels)
    for container, level in zip(ax.containers, levels, strict=True):
        line, _, (bars,) = container.lines
        at = of.sel(level=level)
        np.testing.assert_array_equal(line.get_xdata(), of["mean_by_stratum"])
        np.testing.assert_array_equal(line.get_ydata(), at["coverage_by_stratum"])
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        known = at.isel(stratum=(of["n_perturbations_by_stratum"] > 1).to_numpy())
        value = known["coverage_by_stratum"]
        np.testing.assert_allclose(ends[:, 0], np.minimum(known["coverage_by_stratum_lower"], value))
        np.testing.assert_allclose(ends[:, 1], np.maximum(known["coverage_by_stratum_upper"], value))
        assert container.get_label() == f"level {level:g}"
    label = {"spread": "spread (log1p expression)", "n_cells": "number of cells", "distance": "distance"}[stratifier]
    assert ax.get_xlabel() == label
    assert ax.get_title() == f"variance, by {label.split(' (')[0]}"


def test_strata_that_there_are_not(table, ax):
    with pytest.raises(ValueError, match=r"stratifier must be one of effect_size, .*spread, not 'size'"):
        plot_strata(table, "size", ax=ax)
    with pytest.raises(ValueError, match="moment must be one of mean, variance, skewness, kurtosis, not 'cells'"):
        plot_strata(table, moment="cells", ax=ax)
    unknown = table.assign(mean_by_stratum=table["mean_by_stratum"].where(table["stratifier"] != "distance"))
    with pytest.raises(ValueError, match="has no distance"):
        plot_strata(unknown, "distance", ax=ax)


def test_loss(small_fit, ax):
    assert plot_loss(small_fit, ax=ax) is ax
    (line,) = ax.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), small_fit.loss)
    np.testing.assert_array_equal(line.get_xdata(), 1 + np.arange(len(small_fit.loss)))
    assert ("stopping rule" in ax.get_title()) == small_fit.converged


def test_explained_share(context_fit, ax):
    assert plot_explained_share(context_fit, ax=ax) is ax
    width, height = (np.array([getattr(bar, get)() for bar in ax.patches]) for get in ("get_width", "get_height"))
    assert len(width) == context_fit.parameters.sizes["factor"]
    assert (np.diff(width) <= 0).all()
    assert width.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.sort(height), np.sort(context_fit.parameters["explained_share"]), rtol=1e-5)
    explained, left_out = (line.get_ydata()[0] for line in ax.get_lines())
    assert explained == pytest.approx(context_fit.explained_share)
    assert left_out == pytest.approx(context_fit.left_out_r2()["single genes"])


def test_relevance(context_fit, ax):
    assert plot_relevance(context_fit, ax=ax) is ax
    table = context_fit.relevance
    (points,) = (one for one in ax.collections if len(one.get_offsets()) == 2)
    np.testing.assert_allclose(points.get_offsets()[:, 0], table["r2"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["source 1 (weight 1.00)", "all sources"]
    (intervals,) = (one for one in ax.collections if hasattr(one, "get_segments"))
    ends = np.array(intervals.get_segments())[:, :, 0]
    np.testing.assert_allclose(ends, table[["r2_lower", "r2_upper"]])


def test_effects(prediction, ax):
    effects = prediction.effects()
    label = prediction.perturbations[0]
    one = effects.sel(moment="variance", perturbation=label)
    limit = float(one["lfsr"].median())
    assert plot_effects(effects, "variance", perturbation=label, lfsr=limit, n_labels=2, ax=ax) is ax
    called = (one["lfsr"] < limit).to_numpy()
    assert called.any()
    assert not called.all()
    points = np.concatenate([container[0].get_xydata() for container in ax.containers])
    assert len(points) == called.sum()
    plain = np.asarray(ax.collections[0].get_offsets())
    assert len(plain) == (~called).sum()
    np.testing.assert_allclose(np.sort(plain[:, 0]), np.sort(one["shift"].to_numpy()[~called]), rtol=1e-5)
    assert set(np.round(points[:, 0], 5)) <= set(np.round(one["shift"].to_numpy()[called].astype(float), 5))
    assert len(ax.texts) <= 2
    assert {text.get_text() for text in ax.texts} <= set(one["gene"].to_numpy()[called])
    assert ax.yaxis_inverted()
    assert f"{called.sum()} genes called, {float(one['lfsr'].to_numpy()[called].sum()):.1f} wrong" in ax.get_title()


def test_effects_refuses(prediction):
    effects = prediction.effects()
    with pytest.raises(KeyError, match="there are several perturbations, choose one with perturbation="):
        plot_effects(effects)
    with pytest.raises(KeyError, match="NOBODY"):
        plot_effects(effects, perturbation="NOBODY")
    with pytest.raises(TypeError, match=r"made by prediction\.effects\(\)"):
        plot_effects(prediction)
    with pytest.raises(ValueError, match="effects have no 'lfsr'"):
        plot_effects(effects.drop_vars("lfsr"), perturbation=prediction.perturbations[0])
    with pytest.raises(ValueError, match="lfsr must be"):
        plot_effects(effects, perturbation=prediction.perturbations[0], lfsr=2)


def test_shift(prediction, small_fit):
    ax = plot_shift(prediction, "variance", n_genes=3)
    (image,) = ax.images
    shift = prediction.summary()["variance"].sel(statistic="median") - small_fit.control_moments()["variance"]
    shift = shift.transpose("perturbation", "gene")
    genes = [text.get_text() for text in ax.get_xticklabels()]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(prediction.perturbations)
    np.testing.assert_allclose(image.get_array(), shift.sel(gene=genes), rtol=1e-6, atol=1e-7)
    largest = abs(shift).max("perturbation").to_series().sort_values(ascending=False)
    assert genes == largest.index[:3].tolist()
    low, high = image.get_clim()
    assert -low == high == pytest.approx(float(np.quantile(largest[:3], 0.9)))
    assert image.colorbar.ax.get_ylabel() == "shift of the variance (log1p expression²)"
    plt.close(ax.figure)


def test_shift_of_one_gene(prediction, ax):
    plot_shift(prediction, genes="GENE3", ax=ax)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["GENE3"]


def test_shift_of_chosen_genes_in_a_context(context_fit, ax):
    prediction = context_fit.predict(["GENE1", "GENE3"], num_draws=10, progress_bar=False)
    genes = [context_fit.genes[5], context_fit.genes[2]]
    assert plot_shift(prediction, genes=genes, context="context1", ax=ax) is ax
    mean = prediction.summary()["mean"].sel(statistic="median", context="context1", gene=genes)
    control = context_fit.control_moments()["mean"].sel(context="context1", gene=genes)
    expected = mean.transpose("perturbation", "gene").to_numpy() - control.to_numpy()
    np.testing.assert_allclose(ax.images[0].get_array(), expected, rtol=1e-6)


def test_shift_refuses(prediction, context_fit, ax):
    with pytest.raises(ValueError, match="moment must be one of mean, variance, skewness, kurtosis, not 'mode'"):
        plot_shift(prediction, "mode", ax=ax)
    with pytest.raises(KeyError, match="'NOPE' is not among the predicted genes"):
        plot_shift(prediction, genes=["NOPE"], ax=ax)
    with pytest.raises(ValueError, match="n_genes must be at least 1, not 0"):
        plot_shift(prediction, n_genes=0, ax=ax)
    with pytest.raises(ValueError, match="give at least one gene"):
        plot_shift(prediction, genes=[], ax=ax)
    with pytest.raises(KeyError, match="there are several contexts, choose one with context=: context0, context1"):
        plot_shift(context_fit.predict("GENE1", num_draws=5, progress_bar=False), ax=ax)


MISTAKEN = {
    "plot_coverage(prediction)": r"calibration: expected Dataset, made by distpert.calibration\(prediction, adata\)",
    "plot_coverage(scores)": "calibration: expected a table made by .*, got one with nll",
    "plot_pit(prediction)": "calibration: expected Dataset",
    "plot_strata(prediction)": "calibration: expected Dataset",
    "plot_selective_risk(prediction)": "calibration: expected Dataset",
    "plot_loss(prediction)": r"fit: expected Fit, made by distpert.fit\(adata, embeddings\); got Prediction",
    "plot_explained_share(prediction)": "fit: expected Fit",
    "plot_relevance(prediction)": "fit: expected Fit",
    "plot_moments(fit, adata, 'GENE2')": r"prediction: expected BasePrediction, made by fit.predict\(labels\); got Fit",
    "plot_moments(prediction, 'GENE2', adata)": "a perturbation is named by its label, a str, not AnnData",
    "plot_histogram(fit, 'GENE2', 'GENE1')": r"prediction: expected HistogramPrediction, .*; got Fit",
    "plot_histogram(prediction, ['GENE2'], 'GENE1')": r"a perturbation is named by its label, a str, not \['GENE2'\]",
    "plot_histogram(prediction, 'GENE2', ['GENE1'])": r"^name one of the genes as a str, not \['GENE1'\]",
    "plot_predictive_check(prediction)": "check: expected Dataset, made by distpert.predictive_check",
    "plot_predictive_check(scores)": "check: expected what distpert.predictive_check returns, got a table of nll",
}


@pytest.mark.parametrize("call", MISTAKEN)
def test_mistaken_objects(call, prediction, small, small_fit):
    names = {"prediction": prediction, "fit": small_fit, "adata": small.adata}
    names["scores"] = xr.Dataset({"nll": ("perturbation", [1.0])})
    with pytest.raises(TypeError, match=MISTAKEN[call]):
        eval(f"plots.{call}", {"plots": distpert.plots, **names})
    plt.close("all")


def test_coverage_shows_the_bands_of_all_levels_and_of_one(table, ax):
    lowest = float(table["coverage_lower"].min())
    wide = table.assign(coverage_lower=table["coverage_lower"] * 0.5)
    assert plot_coverage(wide, ax=ax).get_ylim()[0] < lowest * 0.5
    ax.clear()
    plot_coverage(table.isel(level=[1]), ax=ax)
    ends = [path.vertices[:, 1] for group in ax.collections for path in group.get_paths()]
    expected = table.isel(level=1)[["coverage_lower", "coverage_upper"]].to_array().T
    np.testing.assert_allclose(ends, expected)
