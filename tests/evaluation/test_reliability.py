"""Calibration tables against loops over public results, in toys where the truth is known, and pooled over folds."""

from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from distpert.embeddings.sources import as_embeddings
from distpert.evaluation.calibration_table import width_at_coverage
from distpert.evaluation.reliability import calibration, combine_calibrations, without_latent_uncertainty
from distpert.evaluation.resampling import flatness
from distpert.evaluation.scores import cramer
from distpert.histograms.counting import count_histograms
from distpert.histograms.moments import MOMENTS
from distpert.predictions.conformal import conformalize
from distpert.predictions.point import MeanPrediction, PointPrediction

LEVELS = (0.5, 0.9)
OPTIONS = {"levels": LEVELS, "n_strata": 2, "n_pit_bins": 5, "n_resamples": 200}
N_BINS = 6


# ----------------------------------------------------------------------------------- a posterior, two contexts, a gap


@pytest.fixture(scope="module")
def held_out(context_screen, context_fit):
    """The training cells serve as well as others to check the arithmetic, with labels exchanged; a group is missing."""
    adata = context_screen.adata.copy()
    obs = adata.obs.replace({"perturbation": {"GENE1": "GENE3", "GENE3": "GENE4", "GENE4": "GENE1"}})
    keep = ~((obs["perturbation"] == "GENE3") & (obs["context"] == "context1"))
    keep &= ~((obs["perturbation"] == "GENE4") & (np.arange(len(obs)) % 2 == 0))
    adata.obs = obs
    return count_histograms(adata[keep.to_numpy()], bins=context_fit.histograms, context_key="context")


@pytest.fixture(scope="module")
def prediction(context_fit):
    return context_fit.predict(["GENE3", "GENE1", "GENE4"], num_draws=40, progress_bar=False)


@pytest.fixture(scope="module")
def table(prediction, held_out):
    return calibration(prediction, held_out, **OPTIONS)


def counts_of(histograms, label, context):
    dataset = histograms.dataset
    (row,) = np.flatnonzero((dataset["perturbation"] == label).values & (dataset["context"] == context).values)
    return dataset["counts"].values[row]


def test_values_of_groups_against_a_loop(prediction, held_out, table):
    centers = prediction.training.centers.to_numpy()
    histogram = prediction.histogram()
    for label, context in (("GENE1", "context0"), ("GENE4", "context1"), ("GENE3", "context0")):
        counts = counts_of(held_out, label, context)
        n = counts[0].sum()
        here = {"perturbation": label, "context": context}
        draws = prediction.moments(n_cells=np.tile([[n]], (3, 2))).sel(here)
        moments = held_out_moments(counts, centers)
        for name, seen in zip(MOMENTS, moments, strict=True):
            sample = draws[name].to_numpy().astype(float)
            less = (sample < seen - 1e-5).sum(axis=0)
            tied = (np.abs(sample - seen) <= 1e-5).sum(axis=0)
            u = (less[:, None] + (np.arange(10_000) + 0.5) / 10_000 * (tied + 1)[:, None]) / 41
            at = table.sel(here | {"moment": name})
            np.testing.assert_allclose(at["pit_by_perturbation"], np.histogram(u, 5, (0, 1))[0] / u.size * 5, atol=0.01)
            for level in LEVELS:
                inside = (np.abs(u - 0.5) <= level / 2).mean(axis=1)
                ends = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=0, method="weibull")
                below, above = np.maximum(ends[0] - seen, 0), np.maximum(seen - ends[1], 0)
                score = ends[1] - ends[0] + 2 / (1 - level) * (below + above)
                of_level = at.sel(level=level)
                np.testing.assert_allclose(of_level["coverage_by_perturbation"], inside.mean(), atol=1e-4)
                np.testing.assert_allclose(of_level["width_by_perturbation"], (ends[1] - ends[0]).mean(), rtol=1e-4)
                np.testing.assert_allclose(of_level["interval_score_by_perturbation"], score.mean(), rtol=1e-4)
                # Seven genes are expressed less in controls than the median, seven more.
                control = counts_of(prediction.training, "control", context)
                order = np.argsort((control * centers).sum(axis=1))
                by_half = [inside[order[:7]].mean(), inside[order[7:]].mean()]
                np.testing.assert_allclose(of_level["coverage_by_expression"], by_half, atol=1e-4)
        control = counts_of(prediction.training, "control", context)
        width = prediction.training.widths.to_numpy()
        at = table.sel(here)
        np.testing.assert_allclose(at["n_cells"], n)
        of_control, n_control = control.cumsum(axis=1) / 200, 200  # whose sampling counts as well
        noise = width * (of_control * (1 - of_control)).sum(axis=1) / (n_control - 1)
        effect = cramer(control / n_control, counts, width) - noise
        np.testing.assert_allclose(at["effect_size"], effect.mean())
        probs = histogram.sel(here).to_numpy()
        np.testing.assert_allclose(at["cramer"], cramer(probs, counts, width).mean(), rtol=1e-4)
        means = prediction.moments()["mean"].sel(here).to_numpy()
        spread = np.diff(np.quantile(means, [0.25, 0.75], axis=0, method="weibull"), axis=0).mean()
        np.testing.assert_allclose(at["spread"], spread, rtol=1e-4)
        np.testing.assert_allclose(at["expression"].mean(), (control * centers).sum() / control[0].sum() / 14)


def held_out_moments(counts, centers):
    from scipy import stats

    cells = [np.repeat(c, n) for c, n in zip(centers, counts, strict=True)]
    functions = (np.mean, np.var, *(lambda x, f=f: f(x) if np.ptp(x) else 0 for f in (stats.skew, stats.kurtosis)))
    return [np.array([function(x) for x in cells]) for function in functions]


def test_pooled_values_are_means_over_groups_with_cells(table):
    missing = {"perturbation": "GENE3", "context": "context1"}
    by_group = [name for name, array in table.items() if "context" in array.dims and name != "n_cells"]
    assert all(np.isnan(table[name].sel(missing)).all() for name in by_group)
    assert table["n_cells"].sel(missing) == 0
    for name in ("coverage", "width", "interval_score", "pit", "pit_cells"):
        mean = table[f"{name}_by_perturbation"].mean(["perturbation", "context"])
        xr.testing.assert_allclose(table[name], mean)
        assert table[name].dims == table[f"{name}_by_perturbation"].dims[:-2]
    for name in ("pit", "pit_cells"):
        np.testing.assert_allclose(table[name].mean("pit_bin"), 1)


def test_bands_are_about_the_value_and_for_transforms_about_one(table):
    assert ((table["coverage_lower"] <= table["coverage"]) & (table["coverage"] <= table["coverage_upper"])).all()
    assert (table["width_lower"] < table["width_upper"]).all()
    assert ((table["pit_lower"] <= 1) & (table["pit_upper"] >= 1) & (table["pit_lower"] >= 0)).all()


def test_transforms_have_a_band_of_all_bars_and_a_p_value(table):
    rows = [("pit", {"moment": moment}) for moment in MOMENTS] + [("pit_cells", {})]
    unit = np.repeat([1, 0, 2], 2)  # labels sorted: the band is that of one seed
    for name, at in rows:
        by_group = table[f"{name}_by_perturbation"].sel(at).to_numpy().reshape(5, 6)
        lower, upper, p_value = flatness(by_group, ~np.isnan(by_group[0]), unit, 200, 0)
        np.testing.assert_allclose(table[f"{name}_simultaneous_lower"].sel(at), lower)
        np.testing.assert_allclose(table[f"{name}_simultaneous_upper"].sel(at), upper)
        assert table[f"{name}_p_value"].sel(at) == p_value
    assert table["pit_p_value"].dims == ("moment",) and table["pit_cells_p_value"].dims == ()
    assert table["pit_simultaneous_upper"].dims == ("moment", "pit_bin")


def test_every_variable_says_what_it_is_in_which_units(table):
    assert all(array.attrs["long_name"] and array.attrs["units"] for array in table.values())
    assert "resampling perturbations" in table.attrs["band"]


def test_strata(table):
    numbers = table["n_perturbations_by_stratum"]
    assert numbers.sel(stratifier="expression").values.tolist() == [3, 3]
    n_cells = table["mean_by_stratum"].sel(stratifier="n_cells").to_numpy()
    groups = np.sort(table["n_cells"].to_numpy()[table["n_cells"] > 0])
    low = groups <= np.median(groups)
    np.testing.assert_allclose(n_cells, [groups[low].mean(), groups[~low].mean() if (~low).any() else np.nan])
    halves = table["effect_size"].to_numpy().ravel()
    for s, chosen in enumerate((halves <= np.nanmedian(halves), halves > np.nanmedian(halves))):
        coverage = table["coverage_by_perturbation"].to_numpy().reshape(4, 2, -1)[..., chosen].mean(axis=-1)
        np.testing.assert_allclose(table["coverage_by_stratum"].sel(stratifier="effect_size", stratum=s), coverage)
    by_gene = table["coverage_by_expression"].mean(["perturbation", "context"])
    by_stratum = table["coverage_by_stratum"].sel(stratifier="expression", drop=True)
    xr.testing.assert_allclose(by_stratum.transpose(*by_gene.dims), by_gene)


def test_no_selective_risk_where_there_is_no_error_on_average(table):
    with pytest.warns(UserWarning, match="no selective risk: the mean Cramér distance of all perturbations is -"):
        found = combine_calibrations(table.assign(cramer=table["cramer"] - 1))
    assert found["selective_risk"].isnull().all() and found["coverage"].notnull().all()
    assert table["selective_risk"].notnull().all()


def test_distance_from_the_nearest_training_perturbation(context_fit, held_out):
    (near, *_) = context_fit.perturbations
    unseen = sorted(set(context_fit.embeddings.genes) - set(context_fit.perturbations))[0]
    cells = count_histograms_of(held_out, near, unseen)
    with pytest.warns(UserWarning, match=f"the cells of {near} are training cells") as caught:
        found = calibration(context_fit.predict([near, unseen], num_draws=5, progress_bar=False), cells, **OPTIONS)
    assert caught[0].filename == __file__
    vectors = context_fit.embeddings.of([unseen, *context_fit.perturbations]).astype(float)
    expected = np.sqrt(((vectors[1:] - vectors[0]) ** 2).sum(axis=1)).min()
    np.testing.assert_allclose(found["distance"], [0, expected], rtol=1e-5)


def test_conformal_intervals_around_a_fit_know_the_distance(context_fit, held_out):
    training = context_fit.histograms
    fit = replace(context_fit, histograms=training.drop(["GENE1", "GENE3", "GENE4"]))
    unseen, calibrating = (
        replace(context_fit.predict(labels, num_draws=5, progress_bar=False), training=fit.histograms, posterior=fit)
        for labels in (["GENE1", "GENE4"], ["GENE3"])
    )
    intervals = conformalize(unseen, calibrating, held_out)
    options = OPTIONS | {"levels": (0.5,)}
    distance = calibration(intervals, held_out, **options)["distance"]
    assert (distance > 0).all()
    xr.testing.assert_identical(distance, calibration(unseen, held_out, **options)["distance"])


def count_histograms_of(histograms, label, other):
    """The same with the cells of one label twice, the second time under another name."""
    dataset = histograms.select([label]).dataset
    renamed = dataset.isel(group=(dataset["perturbation"] == label).values)
    renamed = renamed.assign_coords(perturbation=("group", [other] * renamed.sizes["group"]))
    return replace(histograms, dataset=xr.concat([dataset, renamed], "group", data_vars="minimal"))


# ----------------------------------------------------------------------- toys in which the truth is known, and bands


def toy(n_perturbations, n_genes, *, n_cells=60, off=0.0, copies=False, seed=0):
    """A prediction and cells from it, or from histograms that are off by so much."""
    rng = np.random.default_rng(seed)
    labels = [f"P{i}" for i in range(n_perturbations)]
    n_drawn = 1 if copies else n_genes
    probs = np.repeat(rng.dirichlet(np.full(N_BINS, 3.0), (n_perturbations, n_drawn)), n_genes // n_drawn, axis=1)
    true = probs * np.exp(off * rng.normal(size=(n_perturbations, n_drawn, N_BINS)))
    true /= true.sum(axis=-1, keepdims=True)
    values, names = [np.repeat([[0], [N_BINS - 1]], n_genes, axis=1)], ["control"] * 2
    for label, truth in zip(labels, true, strict=True):
        drawn = np.stack([rng.choice(N_BINS, n_cells, p=p) for p in truth[:n_drawn]], axis=1)
        values.append(np.repeat(drawn, n_genes // n_drawn, axis=1))
        names += [label] * n_cells
    obs = pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"g{i}" for i in range(n_genes)])
    adata = anndata.AnnData(0.13 + 0.25 * np.concatenate(values).astype(np.float32), obs=obs, var=var)
    training = count_histograms(adata[:2], n_bins=N_BINS)
    return PointPrediction(training, labels, ["all"], probs[:, None]), adata


def test_coverage_is_nominal_where_cells_come_from_the_prediction_and_less_where_not():
    prediction, adata = toy(30, 40)
    found = calibration(prediction, adata, **OPTIONS)
    error = np.sqrt(np.array(LEVELS) * (1 - np.array(LEVELS)) / (30 * 40))
    assert (np.abs(found["coverage"] - LEVELS) < 4 * error + 0.01).all()
    assert (np.abs(found["pit"] - 1) < 4 * np.sqrt(4 / 1200)).all()
    assert (np.abs(found["pit_cells"] - 1) < 4 * np.sqrt(4 / 1200 / 60)).all()
    inside = (found["pit_lower"] <= found["pit"]) & (found["pit"] <= found["pit_upper"])
    assert inside.mean() >= 0.8
    prediction, adata = toy(30, 40, off=0.4)
    found = calibration(prediction, adata, **OPTIONS)
    assert (found["coverage"].sel(moment="mean") < np.array(LEVELS) - 4 * error).all()
    assert (found["pit"].sel(moment="mean")[[0, -1]] > found["pit_upper"].sel(moment="mean")[[0, -1]]).all()


def test_copies_of_one_gene_make_no_narrower_bands():
    (one, *_), (copies, *_), (many, *_) = (
        [calibration(*toy(40, n_genes, copies=copies), **OPTIONS)] for n_genes, copies in ((1, 1), (25, 1), (25, 0))
    )

    def height(found):
        return (found["coverage_upper"] - found["coverage_lower"]).sel(level=0.5).to_numpy()

    # Replicates of the copies are drawn anew for each, so that they do not agree on all.
    np.testing.assert_allclose(height(copies), height(one), rtol=0.25)
    assert (height(many) < 0.35 * height(one)).all()


def test_one_perturbation_has_no_band():
    found = calibration(*toy(1, 3), **OPTIONS)
    assert found["coverage"].notnull().all() and found["coverage_lower"].isnull().all()
    for name in ("pit", "pit_cells"):
        assert found[f"{name}_simultaneous_upper"].isnull().all() and found[f"{name}_p_value"].isnull().all()


def test_a_single_cell_has_a_mean_and_no_other_moment():
    prediction, adata = toy(12, 5)
    label = adata.obs["perturbation"].astype(str)
    singles = [f"P{i}" for i in range(4)]
    few = adata[(~(label.isin(singles) & label.duplicated())).to_numpy()].copy()
    with pytest.warns(UserWarning, match="fewer than 2 cells"):
        found = calibration(prediction, few, **OPTIONS)
    of_singles, of_others = found.sel(perturbation=singles), found.isel(perturbation=slice(4, None))
    for name in ("coverage", "width", "interval_score", "pit"):
        by_group = of_singles[f"{name}_by_perturbation"]
        assert by_group.sel(moment="mean").notnull().all()
        assert by_group.drop_sel(moment="mean").isnull().all()
        assert found[name].notnull().all() and found[f"{name}_upper"].notnull().all()
        pooled = of_others[f"{name}_by_perturbation"].mean("perturbation").drop_sel(moment="mean")
        xr.testing.assert_allclose(found[name].drop_sel(moment="mean"), pooled)
        everyone = found[f"{name}_by_perturbation"].sel(moment="mean").mean("perturbation")
        xr.testing.assert_allclose(found[name].sel(moment="mean"), everyone)
    alone = combine_calibrations(of_others, n_resamples=200)
    for name in ("pit_simultaneous_lower", "pit_simultaneous_upper", "pit_p_value"):
        xr.testing.assert_allclose(found[name].drop_sel(moment="mean"), alone[name].drop_sel(moment="mean"))
        assert found[name].notnull().all() and not np.allclose(found[name], alone[name])
    for stratifier in ("n_cells", "expression"):
        assert found["coverage_by_stratum"].sel(stratifier=stratifier, stratum=0).notnull().all()


# ------------------------------------------------------------------------------------- other kinds of prediction


def test_baselines_have_no_spread_and_distances_only_with_embeddings():
    prediction, adata = toy(6, 3)
    found = calibration(prediction, adata, **OPTIONS)
    assert not {"spread", "selective_risk", "distance", "share"} & {*found, *found.coords}
    assert found["coverage_by_stratum"].sel(stratifier=["distance", "spread"]).isnull().all()
    assert (found["n_perturbations_by_stratum"].sel(stratifier=["distance", "spread"]) == 0).all()
    assert "perturbation" in found["coverage_by_perturbation"].dims and "context" not in found.dims
    trained = PointPrediction(count_histograms(adata[:120]), ["P2", "P4"], ["all"], np.full((2, 1, 3, 15), 1 / 15))
    vectors = as_embeddings({f"P{i}": [float(i), 1.0] for i in range(6)})
    given = calibration(trained, adata, embeddings=vectors, **OPTIONS)
    unit = float(np.linalg.norm(vectors.of(["P1"]) - vectors.of(["P0"])))
    np.testing.assert_allclose(given["distance"], [unit, 3 * unit], rtol=1e-5)
    with pytest.raises(ValueError, match="no training perturbation has an embedding"):
        calibration(trained, adata, embeddings=as_embeddings({"P2": [1.0], "P4": [2.0]}), **OPTIONS)


def test_width_at_equal_coverage_does_not_depend_on_how_intervals_are_named(table):
    dense = table.assign_coords(level=[0.3, 0.7])
    pd.testing.assert_frame_equal(
        width_at_coverage(dense, [0.6]).to_pandas(), width_at_coverage(table, [0.6]).to_pandas()
    )
    at = {"moment": "skewness"}
    (low, high), (narrow, wide) = table["coverage"].sel(at).values, table["width"].sel(at).values
    found = width_at_coverage(table, [low, (low + high) / 2, high, (1 + high) / 2]).sel(at)
    np.testing.assert_allclose(found, [narrow, (narrow + wide) / 2, wide, np.nan])
    xr.testing.assert_identical(width_at_coverage(table, 0.6), width_at_coverage(table, [0.6]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        width_at_coverage(table, [1.5])
    lowest, highest = float(table["coverage"].min()), float(table["coverage"].max())
    message = (
        f"coverage {lowest / 2:g} is below the coverages of the table, {lowest:.3g} to {highest:.3g}. .*lower levels="
    )
    with pytest.raises(ValueError, match=message):
        width_at_coverage(table, lowest / 2)


def test_width_at_coverage_is_the_least_that_holds_as_often():
    dims, at = ("moment", "level"), {"level": [0.1, 0.5, 0.8, 0.9]}
    for widest in (4.0, np.inf):
        held, width = np.array([[0.2, 0.6, 0.6, 0.9]]), np.array([[1.0, 2, 3, widest]])
        made = xr.Dataset({"coverage": (dims, held), "width": (dims, width)}, {"moment": ["mean"], **at})
        found = width_at_coverage(made, [0.2, 0.4, 0.6, 0.75, 0.9])
        np.testing.assert_allclose(found[0], [1, 1.5, 2, (3 + widest) / 2, widest])


def test_a_single_level():
    one, several = (calibration(*toy(3, 3), **OPTIONS | {"levels": levels}) for levels in (0.9, (0.9,)))
    xr.testing.assert_identical(one, several)


def test_conformal_intervals_are_calibrated_the_same_way():
    prediction, adata = toy(24, 4, off=0.5, n_cells=40)
    few = {**OPTIONS, "levels": (0.5, 0.8)}
    calibrating, tested = (
        PointPrediction(prediction.training, prediction.perturbations[part], ["all"], prediction.probs[part])
        for part in (slice(12), slice(12, None))
    )
    intervals = conformalize(tested, calibrating, adata)
    found = calibration(intervals, adata, **few)
    assert "cramer" not in found and not [name for name in found if name.startswith("pit")]
    summary = intervals.summary(0.8, n_cells=40)
    counts = count_histograms(adata, bins=prediction.training).select(tested.perturbations)
    seen = np.array([held_out_moments(c, prediction.training.centers.to_numpy()) for c in counts.counts.values[1:]])
    order = [counts.perturbations.index(label) for label in tested.perturbations]
    for i, name in enumerate(MOMENTS):
        lower, upper = (summary[name].sel(statistic=end).to_numpy() for end in ("lower", "upper"))
        x = seen[order, i]
        at = found.sel(moment=name, level=0.8)
        np.testing.assert_allclose(at["coverage_by_perturbation"], ((lower <= x) & (x <= upper)).mean(axis=1))
        np.testing.assert_allclose(at["width"], (upper - lower).mean(), rtol=1e-5)
    xr.testing.assert_identical(combine_calibrations(found, n_resamples=200), found)
    means, base = (
        MeanPrediction(p.training, p.perturbations, ["all"], (p.probs * p.centers).sum(axis=-1))
        for p in (tested, calibrating)
    )
    alone = calibration(conformalize(means, base, adata, scaled=False), adata, **few)
    assert alone["moment"].values.tolist() == ["mean"]
    with pytest.raises(ValueError, match="need 19 perturbations"):
        calibration(intervals, adata, levels=(0.5, 0.95))
    with pytest.raises(ValueError, match="means alone"):
        calibration(means, adata)


@pytest.mark.slow
def test_the_prior_is_calibrated_the_same_way(context_fit, held_out, table):
    prior = context_fit.prior_predictive(["GENE3", "GENE1", "GENE4"], num_draws=30, progress_bar=False)
    found = calibration(prior, held_out, **OPTIONS)
    assert (set(found), found.sizes) == (set(table), table.sizes)
    assert (found["width"].sel(moment="mean") > table["width"].sel(moment="mean")).all()
    xr.testing.assert_identical(found["distance"], table["distance"])


def test_without_latent_uncertainty_intervals_are_narrower(context_fit):
    unseen = sorted(set(context_fit.embeddings.genes) - set(context_fit.perturbations))
    prediction = context_fit.predict(unseen, num_draws=60, progress_bar=False)
    alone = without_latent_uncertainty(prediction)
    assert (alone.response == prediction.response.mean(axis=0)).all()
    assert (alone.on_target == prediction.on_target.mean(axis=0)).all()
    assert prediction.response.std(axis=0).min() > 0
    widths = [
        np.ptp(p.summary(0.8)["mean"].sel(statistic=["lower", "upper"]).to_numpy(), axis=0).mean()
        for p in (alone, prediction)
    ]
    assert widths[0] < widths[1]


# --------------------------------------------------------------------------------------------------- several folds


def test_folds_pooled_are_what_the_union_is(prediction, held_out, context_fit, table):
    folds = (
        calibration(context_fit.predict(labels, num_draws=40, progress_bar=False), held_out, **OPTIONS)
        for labels in (["GENE3"], ["GENE1", "GENE4"])
    )
    pooled = combine_calibrations(*folds, n_resamples=200)
    xr.testing.assert_allclose(pooled, table)
    assert pooled.attrs == table.attrs and pooled["pit"].attrs == table["pit"].attrs
    xr.testing.assert_identical(combine_calibrations(table, n_resamples=200), table)


def test_a_perturbation_of_two_folds_is_one_for_the_resampling(table):
    twice = combine_calibrations(table, table, n_resamples=200)
    for name in ("coverage", "coverage_lower", "coverage_upper", "pit_upper", "pit_p_value", "selective_risk"):
        xr.testing.assert_allclose(twice[name], table[name])
    assert twice.sizes["perturbation"] == 6
    assert (twice["n_perturbations_by_stratum"].sel(stratifier="expression") == 3).all()


def test_folds_with_other_contexts(context_fit, held_out):
    one, other = (
        calibration(context_fit.predict("GENE1", context=c, num_draws=5, progress_bar=False), held_out, **OPTIONS)
        for c in ("context0", "context1")
    )
    pooled = combine_calibrations(one, other)
    assert pooled["n_cells"].to_numpy().tolist() == [[60, 0], [0, 60]]
    xr.testing.assert_allclose(pooled["coverage"], (one["coverage"] + other["coverage"]) / 2)


def test_what_cannot_be_combined(table, prediction, held_out):
    with pytest.raises(ValueError, match="at least one"):
        combine_calibrations()
    with pytest.raises(ValueError, match="differ in level"):
        combine_calibrations(table, calibration(prediction, held_out, **OPTIONS | {"levels": (0.5, 0.8)}))
    with pytest.raises(ValueError, match="different kinds"):
        combine_calibrations(table, calibration(*toy(2, 2), **OPTIONS))


# --------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"levels": ()}, "levels must"),
        ({"levels": (0.5, 1.0)}, "levels must"),
        ({"levels": 90}, "levels must"),
        ({"levels": (0.9, 0.5)}, "levels must"),
        ({"n_strata": 0}, "n_strata must be at least 1"),
        ({"n_pit_bins": 0}, "n_pit_bins must be at least 1"),
        ({"n_resamples": 0}, "n_resamples must be at least 1"),
    ],
)
def test_options_are_checked_before_any_work(prediction, option, message):
    with pytest.raises(ValueError, match=message):
        calibration(prediction, None, **option)


def test_perturbations_without_cells(prediction, held_out):
    with pytest.raises(
        ValueError, match="no cells of GENE1 to compare with; the cells have the perturbations GENE0, GENE2"
    ):
        calibration(prediction, held_out.drop(["GENE1"]))
