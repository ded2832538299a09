"""The table of scores against a loop over cells, against other libraries, and against what is known of halves."""

from itertools import combinations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import distpert
from distpert.evaluation.group_scores import WITH_CEILING, Answers, Cells, Scale, average_scores, ceiling_scores
from distpert.evaluation.scores import cramer, crps, negative_log_likelihood, wasserstein, wasserstein_floor
from distpert.evaluation.scoring import score
from distpert.histograms.counting import count_histograms
from distpert.histograms.moments import MOMENTS
from distpert.predictions.point import MeanPrediction, PointPrediction

N_BINS, STEP = 5, 0.25
CENTERS = STEP * np.arange(N_BINS)
GENES = ("A", "B", "g2", "g3", "flat")
CONTEXTS = ("d1", "d2")
DISTANCES = ("nll", "nll_density", "cramer", "crps", "wasserstein", "wasserstein_floor")


def screen_of(groups, seed=0):
    """Cells whose values are bin centers; the first two control cells span the range of all genes but the last."""
    rng = np.random.default_rng(seed)
    bins, obs = [], []
    for (label, context), n_cells in groups.items():
        weight = rng.dirichlet(np.ones(N_BINS), size=len(GENES))
        drawn = np.stack([rng.choice(N_BINS, n_cells, p=w) for w in weight], axis=1)
        if label == "control":
            drawn[:2] = [[0] * len(GENES), [N_BINS - 1] * len(GENES)]
        bins.append(drawn)
        obs += [(label, context)] * n_cells
    values = (STEP * np.concatenate(bins)).astype(np.float32)
    values[:, GENES.index("flat")] = 0.5
    table = pd.DataFrame(obs, columns=["perturbation", "day"], index=[f"c{i}" for i in range(len(obs))])
    return anndata.AnnData(values, obs=table, var=pd.DataFrame(index=list(GENES)))


@pytest.fixture(scope="module")
def training():
    groups = {("control", day): 40 for day in CONTEXTS} | {(p, day): 15 for p in ("B", "X", "Y") for day in CONTEXTS}
    return count_histograms(screen_of(groups), context_key="day", n_bins=N_BINS)


@pytest.fixture(scope="module")
def held_out():
    """A+B is not in d1 and has few cells; Z lies beyond the bins in one gene and in one bin in another."""
    adata = screen_of(
        {("A+B", "d2"): 6, ("Z", "d1"): 30, ("Z", "d2"): 21, ("W", "d1"): 9, ("control", "d1"): 5}, seed=1
    )
    of_z = (adata.obs["perturbation"] == "Z").to_numpy()
    adata.X[np.flatnonzero(of_z)[:3], 2] = [9.0, 7.0, 1.0]
    adata.X[of_z, 3] = 0.75
    return adata


@pytest.fixture(scope="module")
def prediction(training):
    probs = np.random.default_rng(2).dirichlet(np.ones(N_BINS), size=(2, 2, len(GENES)))
    return PointPrediction(training, ["Z", "A+B"], CONTEXTS, probs, seed=3)


@pytest.fixture(scope="module")
def table(prediction, held_out):
    return score(prediction, held_out)


@pytest.fixture(scope="module")
def genes(prediction, held_out):
    return score(prediction, held_out, by_gene=True)


def cells_of(adata, label, context):
    chosen = (adata.obs["perturbation"] == label) & (adata.obs["day"] == context)
    return np.minimum(adata.X[chosen].astype(float), CENTERS[-1])


def means_of(prediction):
    """Means (perturbation, context, gene) of predicted histograms."""
    return (prediction.probs * prediction.centers).sum(axis=-1)


def moments_of(values):
    """Of cells; no shape where all are the same."""
    shape = (stats.skew, stats.kurtosis) if np.ptp(values) else (lambda x: np.nan,) * 2
    return [values.mean(), values.var(), *(function(values) for function in shape)]


# ------------------------------------------------------------------------------------------- against a loop over cells


def brute_force(prediction, adata, label, context):
    """Scores of each gene, cell by cell and pair by pair of cells."""
    cells = cells_of(adata, label, context)
    n = len(cells)
    histogram = prediction.probs[prediction.perturbations.index(label), prediction.contexts.index(context)]
    medians = prediction.summary(n_cells={"Z": n, "A+B": n}).sel(
        perturbation=label, context=context, statistic="median"
    )
    rows = []
    for g, gene in enumerate(GENES):
        x, p = cells[:, g], histogram[g]
        width, centers = (0.0, np.full(N_BINS, 0.5)) if gene == "flat" else (STEP, CENTERS)
        bins = np.zeros(n, int) if gene == "flat" else np.rint(x / STEP).astype(int)
        cdf = p.cumsum()
        row = {"nll": -np.log(p[bins]).mean()}
        row["nll_density"] = -np.log(p[bins] / width).mean() if width else np.nan
        cross = np.mean([p @ abs(centers - value) for value in x])
        within = p @ abs(centers[:, None] - centers) @ p
        pairs = np.mean([abs(a - b) for a, b in combinations(x, 2)])
        row["cramer"] = cross - within / 2 - pairs / 2
        row["crps"] = width * np.mean([((cdf - (b <= np.arange(N_BINS))) ** 2).sum() for b in bins])
        row["wasserstein"] = stats.wasserstein_distance(x, centers, v_weights=p)
        row["wasserstein_floor"] = width * np.sqrt(2 / np.pi / n) * np.sqrt(np.maximum(cdf * (1 - cdf), 0)).sum()
        for name, value in zip(MOMENTS, moments_of(x), strict=True):
            row[f"error_{name}"] = abs(float(medians[name][g]) - value)
            row[name] = value
        rows.append(row)
    return pd.DataFrame(rows, index=list(GENES))


@pytest.fixture(scope="module", params=[("Z", "d1"), ("Z", "d2"), ("A+B", "d2")], ids="-".join)
def group(request, prediction, held_out):
    label, context = request.param
    return {"perturbation": label, "context": context}, brute_force(prediction, held_out, label, context)


def test_genes_against_a_loop_over_cells(group, genes):
    where, expected = group
    names = [name for name in expected if name not in MOMENTS]
    assert set(genes) == {*names, "n_cells", "out_of_range"}
    for name in names:
        np.testing.assert_allclose(genes[name].sel(where), expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_averages_against_a_loop_over_cells(group, table):
    where, expected = group
    ours = table.sel(where)
    for name in DISTANCES:
        np.testing.assert_allclose(ours[name], expected[name].mean(), rtol=1e-6, atol=1e-9, err_msg=name)
    for name in MOMENTS:
        rmae = expected[f"error_{name}"].sum() / expected[name].abs().sum()  # pandas skips what is not defined
        np.testing.assert_allclose(ours[f"rmae_{name}"], rmae, rtol=1e-5, err_msg=name)
    assert ours["undefined_genes"] == expected["skewness"].isna().sum()


def test_shifts_against_scipy(table, prediction, held_out, training):
    adata = screen_of(  # the training's cells again
        {("control", day): 40 for day in CONTEXTS} | {(p, day): 15 for p in ("B", "X", "Y") for day in CONTEXTS}
    )
    for label, context in [("Z", "d1"), ("Z", "d2"), ("A+B", "d2")]:
        predicted = prediction.histogram().sel(perturbation=label, context=context).to_numpy()
        predicted = (predicted * training.centers.to_numpy()).sum(axis=-1)
        seen = cells_of(held_out, label, context).mean(axis=0)
        control = cells_of(adata, "control", context).mean(axis=0)
        centroid = np.mean([cells_of(adata, p, context).mean(axis=0) for p in ("B", "X", "Y")], axis=0)
        for name, reference in (("pearson_shift", control), ("pearson_shift_centered", centroid)):
            expected = stats.pearsonr(predicted - reference, seen - reference)[0]
            ours = table[name].sel(perturbation=label, context=context)
            np.testing.assert_allclose(ours, expected, rtol=1e-6, err_msg=name)


def test_each_training_perturbation_counts_once():
    """However many cells it has."""
    training = count_histograms(screen_of({("control", "d"): 30, ("B", "d"): 400, ("X", "d"): 10}), n_bins=N_BINS)
    probs = np.random.default_rng(0).dirichlet(np.ones(N_BINS), size=(1, 1, len(GENES)))
    prediction = PointPrediction(training, ["Z"], ["all"], probs)
    cells = screen_of({("Z", "d"): 25}, seed=1)
    counts = training.counts.to_numpy()
    centroids = [(counts[row] / counts[row, 0].sum() * training.centers.to_numpy()).sum(axis=-1) for row in (1, 2)]
    shifts = [means - np.mean(centroids, axis=0) for means in (means_of(prediction)[0, 0], cells.X.mean(axis=0))]
    ours = score(prediction, cells)["pearson_shift_centered"]
    np.testing.assert_allclose(ours, [stats.pearsonr(*shifts)[0]], rtol=1e-5)


def test_on_target_is_of_the_perturbed_genes(table, genes):
    both = genes["cramer"].sel(perturbation="A+B", context="d2", gene=["A", "B"])
    np.testing.assert_allclose(table["on_target_cramer"].sel(perturbation="A+B", context="d2"), both.mean())
    assert np.isnan(table["on_target_cramer"].sel(perturbation="Z")).all()  # Z is not measured


def test_values_beyond_the_bins(table, genes):
    share = genes["out_of_range"].sel(perturbation="Z", context="d1").to_numpy()
    np.testing.assert_allclose(share, [0, 0, 2 / 30, 0, 0])
    np.testing.assert_allclose(table["out_of_range"].sel(perturbation="Z", context="d1"), 2 / 30 / len(GENES))
    assert (table["out_of_range"].sel(context="d2") == 0).all()


def test_undefined_moments_are_left_out(table, genes):
    """Of Z all cells are in one bin in two genes."""
    assert table["undefined_genes"].sel(perturbation="Z").to_numpy().tolist() == [2, 2]
    for name in ("skewness", "kurtosis"):
        missing = np.isnan(genes[f"error_{name}"].sel(perturbation="Z", context="d1"))
        assert missing.to_numpy().tolist() == [False, False, False, True, True]
    assert np.isfinite(genes["error_variance"].sel(perturbation="Z")).all()
    assert np.isfinite(table["rmae_kurtosis"].sel(perturbation="Z")).all()


# ------------------------------------------------------------------------------------------- the model's own prediction


def test_cells_of_the_training_are_named(fitted, screen):
    adata, labels = screen.adata, list(fitted.perturbations[:2])
    prediction = fitted.predict(labels, num_draws=5, progress_bar=False)
    with pytest.warns(UserWarning, match=f"the cells of {labels[0]}, {labels[1]} are training cells") as caught:
        score(prediction, adata, ceilings=False)
    assert caught[0].filename == __file__
    first = {label: np.flatnonzero(adata.obs["perturbation"] == label)[0] for label in labels}
    with pytest.warns(UserWarning, match=f"the cells of {labels[1]} are training cells"):
        score(prediction, adata[np.arange(adata.n_obs) != first[labels[0]]], ceilings=False)
    score(prediction, adata[~np.isin(np.arange(adata.n_obs), list(first.values()))], ceilings=False)


@pytest.mark.filterwarnings("ignore:the cells of .* are training cells")
def test_each_score_takes_its_own_answer(fitted, screen, unseen):
    """A posterior has another histogram for Wasserstein-1, and the median of n cells' moments for their errors."""
    adata = screen.adata
    labels = list(fitted.perturbations[:2])
    posterior = fitted.predict(labels, num_draws=30, progress_bar=False)
    ours = score(posterior, adata, by_gene=True)
    counts = np.stack([fitted.groups.counts_of(label, "all") for label in labels])
    width = fitted.histograms.widths.to_numpy()
    log, w1 = (posterior.histogram(loss).to_numpy().astype(float) for loss in ("log", "wasserstein"))
    np.testing.assert_allclose(ours["nll"], negative_log_likelihood(log, counts), rtol=1e-5)
    np.testing.assert_allclose(ours["cramer"], cramer(log, counts, width), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(ours["crps"], crps(log, counts, width), rtol=1e-5)
    np.testing.assert_allclose(ours["wasserstein"], wasserstein(w1, counts, width), rtol=1e-5, atol=1e-8)
    floor = wasserstein_floor(w1, counts.sum(axis=-1), width)
    np.testing.assert_allclose(ours["wasserstein_floor"], floor, rtol=1e-4)
    medians = posterior.summary(n_cells=300).sel(statistic="median")
    for name in MOMENTS:
        observed = posterior.to_datatree(fitted.histograms)["observed_data"][name]
        np.testing.assert_allclose(ours[f"error_{name}"], abs(medians[name] - observed), rtol=1e-4, atol=1e-6)
    means = (log * fitted.histograms.centers.to_numpy()).sum(axis=-1)
    control = fitted.control_moments()["mean"].to_numpy()
    seen = (counts / 300 * fitted.histograms.centers.to_numpy()).sum(axis=-1)
    expected = [stats.pearsonr(a - control, b - control)[0] for a, b in zip(means, seen, strict=True)]
    np.testing.assert_allclose(score(posterior, adata, ceilings=False)["pearson_shift"], expected, rtol=1e-5)


def test_a_perfect_prediction(training):
    """Cramér 0, CRPS the spread of the truth, Wasserstein its floor; and no other prediction has a lower mean score."""
    rng = np.random.default_rng(0)
    truth, n_groups, n_cells = rng.dirichlet(np.ones(N_BINS), size=len(GENES)), 150, 40
    labels = [f"P{i}" for i in range(n_groups)]
    dataset = training.dataset.isel(group=[0] * n_groups).assign_coords(
        perturbation=("group", labels), context=("group", ["d1"] * n_groups)
    )
    counts = rng.multinomial(n_cells, np.broadcast_to(truth, (n_groups, *truth.shape)))
    dataset["counts"], dataset["n_cells"] = (("group", "gene", "bin"), counts), ("group", [n_cells] * n_groups)
    cells = distpert.Histograms(dataset)

    def scores(probs):
        probs = np.broadcast_to(probs, (n_groups, 1, *truth.shape))
        prediction = PointPrediction(training, labels, ["d1"], probs)
        return score(prediction, cells, ceilings=False).isel(context=0)

    best = scores(truth)
    assert abs(best["cramer"].mean()) < 4 * best["cramer"].std() / n_groups**0.5
    cdf = truth.cumsum(axis=-1)
    spread = (training.widths.to_numpy()[:, None] * cdf * (1 - cdf)).sum(axis=-1).mean()
    assert abs(best["crps"].mean() - spread) < 4 * best["crps"].std() / n_groups**0.5
    np.testing.assert_allclose(best["wasserstein"].mean(), best["wasserstein_floor"].mean(), rtol=0.05)
    for size in (0.02, 0.3):
        other = scores((1 - size) * truth + size * rng.dirichlet(np.ones(N_BINS), size=len(GENES)))
        for name in ("nll", "nll_density", "cramer", "crps"):
            worse = other[name] - best[name]
            assert worse.mean() > -4 * worse.std() / n_groups**0.5, name
            assert size < 0.1 or worse.mean() > 4 * worse.std() / n_groups**0.5, name


# ----------------------------------------------------------------------------------------------- layout, missing groups


def test_layout(table, genes, prediction):
    assert (prediction.perturbations, prediction.contexts) == (("Z", "A+B"), CONTEXTS)
    assert table["nll"].dims == ("perturbation", "context")
    assert genes["nll"].dims == ("perturbation", "context", "gene")
    assert genes["n_cells"].dims == ("perturbation", "context")
    assert table["perturbation"].to_numpy().tolist() == ["Z", "A+B"]
    assert table["context"].to_numpy().tolist() == list(CONTEXTS)
    assert genes["gene"].to_numpy().tolist() == list(GENES)
    assert "gene" not in table.coords
    for array in (*table.values(), *genes.values()):
        assert set(array.attrs) == {"long_name", "units", "better"}
        assert array.dtype == (np.int64 if array.name == "n_cells" else np.float64)
    better = {name: table[name].attrs["better"] for name in table}
    assert {name for name in better if better[name] == "higher"} == {"pearson_shift", "pearson_shift_centered"}
    describing = {"n_cells", "out_of_range", "undefined_genes", "wasserstein_floor"}
    describing |= {f"ceiling_{name}" for name in WITH_CEILING}
    assert {name for name in better if not better[name]} == describing
    assert table["cramer"].attrs["long_name"] == "Cramér distance, debiased"


def test_groups_without_cells(table, genes, prediction, held_out, training):
    assert table["n_cells"].to_numpy().tolist() == [[30, 21], [0, 6]]
    absent = {"perturbation": "A+B", "context": "d1"}
    for array in (*table.values(), *genes.values()):
        assert array.name == "n_cells" or np.isnan(array.sel(absent)).all()
    alone = PointPrediction(training, ["A+B"], ["d2"], prediction.probs[1:, 1:], seed=3)
    other = score(alone, held_out)
    assert other.identical(table.sel(perturbation=["A+B"], context=["d2"]))


@pytest.mark.filterwarnings("ignore:the cells of .* are training cells")
def test_no_context_dimension(small, small_fit):
    labels = small_fit.perturbations[:2]
    table = score(small_fit.predict(labels, num_draws=5, progress_bar=False), small.adata)
    assert all(array.dims == ("perturbation",) for array in table.values())
    assert "context" not in table.coords
    genes = score(small_fit.predict(labels, num_draws=5, progress_bar=False), small.adata, by_gene=True)
    assert genes["cramer"].dims == ("perturbation", "gene")


def test_few_cells(training, prediction):
    cells = screen_of({("Z", "d1"): 1, ("Z", "d2"): 3, ("A+B", "d1"): 4}, seed=4)
    whole = score(prediction, cells)
    table = whole.sel(perturbation="Z")
    one, three = table.sel(context="d1"), table.sel(context="d2")
    assert np.isnan(one["cramer"]) and np.isfinite(three["cramer"])
    assert one["undefined_genes"] == len(GENES)
    assert np.isnan(one["rmae_skewness"]) and np.isnan(one["rmae_variance"])  # of one cell it is zero in all genes
    for name in ("nll", "crps", "wasserstein", "rmae_mean", "pearson_shift"):
        assert np.isfinite(one[name]), name
    four = whole.sel(perturbation="A+B", context="d1")
    for name in WITH_CEILING:
        assert np.isnan(table[f"ceiling_{name}"]).all()
        # Two cells have no skewness, whatever their values.
        assert np.isnan(four[f"ceiling_{name}"]) == (name == "rmae_skewness"), name


def test_a_context_without_training_perturbations(prediction, held_out, training):
    kept = (training.dataset["context"] == "d1") | (training.dataset["perturbation"] == "control")
    bare = distpert.Histograms(training.dataset.isel(group=np.flatnonzero(kept)))
    other = PointPrediction(bare, prediction.perturbations, CONTEXTS, prediction.probs)
    table = score(other, held_out)
    assert np.isnan(table["pearson_shift_centered"].sel(perturbation="Z")).to_numpy().tolist() == [False, True]
    assert np.isfinite(table["pearson_shift"].sel(perturbation="Z")).all()


def test_means_alone(prediction, held_out, table, genes, training):
    means = MeanPrediction(training, prediction.perturbations, CONTEXTS, means_of(prediction))
    alone = score(means, held_out)
    names = ("rmae_mean", "pearson_shift", "pearson_shift_centered")
    assert set(alone) == {"n_cells", *names, *(f"ceiling_{name}" for name in names)}
    for name in names[1:]:
        np.testing.assert_allclose(alone[name], table[name], rtol=1e-12)
        np.testing.assert_array_equal(alone[f"ceiling_{name}"], table[f"ceiling_{name}"])
    by_gene = score(means, held_out, by_gene=True)
    assert set(by_gene) == {"n_cells", "error_mean"}
    seen = cells_of(held_out, "Z", "d1").mean(axis=0)
    expected = abs(means_of(prediction)[0, 0] - seen)
    np.testing.assert_allclose(by_gene["error_mean"].sel(perturbation="Z", context="d1"), expected, rtol=1e-6)
    np.testing.assert_allclose(
        alone["rmae_mean"].sel(perturbation="Z", context="d1"), expected.sum() / seen.sum(), rtol=1e-6
    )


# ---------------------------------------------------------------------------------------------------- what is accepted


def test_histograms_do_as_well_and_other_cells_are_ignored(prediction, held_out, training, table):
    counted = count_histograms(held_out, bins=training, context_key="day")
    assert score(prediction, counted).identical(table)
    wanted = held_out[held_out.obs["perturbation"].isin(["Z", "A+B"])].copy()
    assert score(prediction, wanted).identical(table)


def test_cells_are_read_by_the_names_of_the_training(training, prediction, held_out, table):
    adata = held_out.copy()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide"})
    adata.layers["log"], adata.X = adata.X, np.zeros(adata.shape, np.float32)
    renamed = distpert.Histograms(training.dataset.assign_attrs(perturbation_key="guide", layer="log"))
    other = PointPrediction(renamed, prediction.perturbations, CONTEXTS, prediction.probs, seed=3)
    assert score(other, adata).identical(table)


def test_a_perturbation_without_cells_is_refused(training, prediction, held_out):
    part = held_out[held_out.obs["perturbation"] != "A+B"].copy()
    message = r"no cells of A\+B to compare with; the cells have the perturbations W, Z\. Predict only perturbations"
    with pytest.raises(ValueError, match=message):
        score(prediction, part)
    alone = PointPrediction(training, ["A+B"], ["d1"], prediction.probs[:1, :1])
    with pytest.raises(ValueError, match=r"no cells of A\+B to compare with in the predicted contexts of 'day', d1;"):
        score(alone, held_out)


def test_other_histograms_are_refused(prediction, held_out, training):
    message = r"other bins than the training\. .*count_histograms\(adata, bins=prediction\.training"
    with pytest.raises(ValueError, match=message):
        score(prediction, count_histograms(screen_of({("control", "d1"): 9, ("Z", "d1"): 9}), n_bins=N_BINS + 1))
    with pytest.raises(ValueError, match=r"have context key None, the training has context key 'day'"):
        score(prediction, count_histograms(held_out, bins=training))
    others = training.dataset.assign_coords(gene=[*GENES[:-1], "other"])
    with pytest.raises(ValueError, match="other genes than the training"):
        score(prediction, distpert.Histograms(others))


# ------------------------------------------------------------------------------------------------------------- ceilings


def test_ceilings_are_optional_and_follow_from_the_seed(prediction, held_out, table):
    plain = score(prediction, held_out, ceilings=False)
    assert set(table) - set(plain) == {f"ceiling_{name}" for name in WITH_CEILING}
    assert score(prediction, held_out).identical(table)
    other = score(prediction, held_out, seed=1)
    assert other[list(plain)].identical(table[list(plain)])
    assert (other["ceiling_crps"] != table["ceiling_crps"]).sel(perturbation="Z").all()


def one_gene(counts, pooled=None):
    pooled = np.full(len(counts), 1 / len(counts)) if pooled is None else pooled
    centers = STEP * np.arange(float(len(counts)))[None]
    scale = Scale(centers, np.array([STEP]), np.zeros(1), np.zeros(1), np.asarray(pooled)[None])
    return Cells(np.array([counts]), np.zeros(1, int), np.array([], int)), scale


@pytest.mark.parametrize("counts", [[2, 1, 3], [3, 0, 2]], ids=["even", "odd"])
def test_ceilings_against_all_halves(counts):
    """Their mean over seeds is the mean over all ways to choose half of the cells."""
    cells, scale = one_gene(counts, pooled=[0.5, 0.2, 0.3])
    bins = np.repeat(np.arange(3), counts)
    expected = {name: [] for name in ("nll", "cramer", "crps", "wasserstein", "rmae_mean", "rmae_variance")}
    for chosen in combinations(range(len(bins)), len(bins) // 2):
        both = [np.bincount(part, minlength=3) for part in (bins[list(chosen)], np.delete(bins, chosen))]
        values = {name: [] for name in expected}
        for one, two in (both, both[::-1]):
            p, x, y = one / one.sum(), *(np.repeat(scale.centers[0], part) for part in (one, two))
            values["nll"].append(-np.log((one + scale.pooled[0]) / (one.sum() + 1)) @ two / two.sum())
            values["cramer"].append(cramer(p, two, STEP))
            values["crps"].append(crps(p, two, STEP))
            values["wasserstein"].append(stats.wasserstein_distance(x, y))
            for name, moment in (("rmae_mean", np.mean), ("rmae_variance", np.var)):
                with np.errstate(divide="ignore", invalid="ignore"):
                    values[name].append(abs(moment(x) - moment(y)) / moment(y) if moment(y) else np.nan)
        for name in expected:
            expected[name].append(np.mean(values[name]))
    draws = [ceiling_scores(np.random.default_rng(seed), cells, scale) for seed in range(1500)]
    for name, values in expected.items():
        ours = np.array([draw[name] for draw in draws])
        np.testing.assert_allclose(np.isnan(ours).mean(), np.isnan(values).mean(), atol=0.04)
        error = 4 * np.nanstd(ours) / np.sqrt(np.isfinite(ours).sum())
        assert abs(np.nanmean(ours) - np.nanmean(values)) <= error + 1e-12, name
    assert len({draw["cramer"] for draw in draws}) > 1


def test_rounding_is_no_skewness():
    """Two cells have none, and what rounding leaves of it would make any error enormous."""
    bins = np.array(list(combinations(range(15), 2)))
    counts = (bins[..., None] == np.arange(15)).sum(axis=1)
    zero, grid = np.zeros(len(counts)), np.broadcast_to(0.1 + 0.3137 * np.arange(15), counts.shape)
    scale = Scale(grid, zero + 0.3137, zero, zero, counts / 2)
    scores = average_scores(
        Answers(zero, np.ones((4, len(counts))), *[counts / 2] * 3), Cells(counts, zero, zero[:0].astype(int)), scale
    )
    assert np.isnan(scores["rmae_skewness"])
    np.testing.assert_allclose(scores["rmae_kurtosis"], 3 / 2)  # of two cells it is −2


def test_halves_that_are_the_same():
    counts = np.array([8, 0])
    cells, scale = one_gene(counts)
    ceilings = ceiling_scores(np.random.default_rng(0), cells, scale)
    np.testing.assert_allclose(ceilings["nll"], -np.log(4.5 / 5))
    for name in ("cramer", "crps", "wasserstein"):
        assert ceilings[name] == 0
    assert np.isnan(ceilings["rmae_mean"])  # of values that are all zero
    centers = scale.centers + 1
    assert ceiling_scores(np.random.default_rng(0), cells, scale._replace(centers=centers))["rmae_mean"] == 0


def test_ceilings_are_finite_where_a_bin_was_never_seen(training, prediction, held_out):
    """Neither in one of the halves, nor in training."""
    dataset = training.dataset.copy()
    dataset["counts"] = dataset["counts"].where(dataset["bin"] != 2, 0)
    other = PointPrediction(distpert.Histograms(dataset), prediction.perturbations, CONTEXTS, prediction.probs)
    assert np.isfinite(score(other, held_out)["ceiling_nll"].sel(perturbation="Z")).all()


def test_the_ceiling_of_the_cramer_distance_is_the_noise_of_half_of_the_cells():
    """And so the true distribution, which scores 0, beats it."""
    rng = np.random.default_rng(0)
    truth, n_genes, n_cells = np.array([0.4, 0.1, 0.2, 0.3]), 4000, 50
    cells, scale = one_gene([1, 1, 1, 1])
    scale = Scale(*(np.broadcast_to(array, (n_genes, *array.shape[1:])) for array in scale))
    cells = cells._replace(counts=rng.multinomial(n_cells, truth, size=n_genes), outside=np.zeros(n_genes, int))
    ceiling = ceiling_scores(rng, cells, scale)["cramer"]
    cdf = truth.cumsum()
    np.testing.assert_allclose(ceiling, STEP * (cdf * (1 - cdf)).sum() / 25, rtol=0.05)
    probs = np.broadcast_to(truth, (n_genes, 4))
    means = np.zeros(n_genes)
    ours = average_scores(Answers(means, means[None], probs, probs, probs), cells, scale)["cramer"]
    assert abs(ours) < ceiling / 5
