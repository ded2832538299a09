"""Conformal intervals: their guarantee in simulations, their arithmetic against a loop, and what is refused."""

import numpy as np
import pytest

import distpert
from distpert.histograms.counting import count_histograms
from distpert.histograms.histograms import Histograms
from distpert.histograms.moments import MOMENTS
from distpert.predictions.conformal import ConformalPrediction, conformalize
from distpert.predictions.point import MeanPrediction, PointPrediction


@pytest.fixture(scope="module")
def histograms():
    screen = distpert.simulate(n_perturbations=12, n_genes=5, n_cells=30, n_controls=60, n_contexts=2, seed=3)
    missing = (screen.adata.obs["perturbation"] == "GENE2") & (screen.adata.obs["context"] == "context1")
    return count_histograms(screen.adata[~missing], context_key="context")


@pytest.fixture(scope="module")
def training(histograms):
    return histograms.select(["GENE0", "GENE1"])


def predict(training, labels, *, means_only=False):
    """The same histogram for every perturbation; gene 4 has but one bin."""
    probs = np.random.default_rng(0).dirichlet(np.ones(15), size=(2, 5))
    probs[:, 4] = np.eye(15)[0]
    probs = np.broadcast_to(probs, (len(labels), *probs.shape))
    if means_only:
        means = (probs * training.centers.to_numpy()).sum(axis=-1)
        return MeanPrediction(training, labels, training.contexts, means)
    return PointPrediction(training, labels, training.contexts, probs)


TEST = ("GENE8", "GENE9")
CALIBRATING = tuple(f"GENE{i}" for i in range(2, 8))


@pytest.fixture(scope="module")
def conformal(histograms, training):
    return conformalize(predict(training, TEST), predict(training, CALIBRATING), histograms)


def from_scores(scores, weights, n_calibration):
    """A conformal prediction of which only the scores matter."""
    options = {"point": None, "scores": scores, "weights": weights, "n_calibration": n_calibration, "scaled": False}
    return ConformalPrediction(None, (), (), **options)


def quantile_of(scores, level):
    """From scores (perturbation, pair)."""
    n, n_pairs = scores.shape
    weights = np.full(scores.size, 1 / ((n + 1) * n_pairs))
    return from_scores(scores.reshape(1, -1), weights, n).radius(level)[0]


# ------------------------------------------------------------------------------------------------------- the guarantee


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_dependent_genes_of_new_perturbations_are_covered_as_often_as_said(level):
    """Nine perturbations calibrate; their genes share most of what moves them."""
    rng = np.random.default_rng(0)
    n_repeats, n_genes = 3000, 12
    strength = np.exp(rng.normal(size=(n_repeats, 10, 1)))
    scores = strength * np.abs(rng.normal(size=(n_repeats, 10, 1)) + 0.3 * rng.normal(size=(n_repeats, 10, n_genes)))
    covered, naive = np.empty((2, n_repeats))
    for i, (*calibrating, new) in enumerate(scores):
        calibrating = np.array(calibrating)
        covered[i] = (new <= quantile_of(calibrating, level)).mean()
        naive[i] = (new <= np.quantile(calibrating, level)).mean()
    error = covered.std() / np.sqrt(n_repeats)
    assert level - 4 * error <= covered.mean() <= level + 1 / 10 + 4 * error
    if level > 0.5:  # pairs taken as if they were independent
        assert naive.mean() < level - 4 * error


def test_with_one_gene_it_is_split_conformal():
    scores = np.random.default_rng(1).random((19, 1))
    for level, rank in ((0.5, 10), (0.9, 18), (0.95, 19)):
        assert quantile_of(scores, level) == np.sort(scores[:, 0])[rank - 1]


def test_perturbations_count_alike_however_many_contexts_they_have():
    scores = np.array([[1.0, 1, 1, 1, 1, 1, 5, 6]])
    weights = np.concatenate([np.full(6, 1 / 4 / 6), np.full(2, 1 / 4)])
    conformal = from_scores(scores, weights, 3)
    assert conformal.radius(0.25) == 1
    assert conformal.radius(0.26) == 5
    assert conformal.radius(0.75) == 6


# ------------------------------------------------------------------------------------------------------ the arithmetic


@pytest.mark.parametrize("scaled", [True, False])
def test_intervals_against_a_loop(histograms, training, scaled):
    calibrating, prediction = predict(training, CALIBRATING), predict(training, TEST)
    conformal = conformalize(prediction, calibrating, histograms, scaled=scaled)
    rows = {
        (label, context): i
        for i, (label, context) in enumerate(
            zip(histograms.dataset["perturbation"].values, histograms.dataset["context"].values, strict=True)
        )
    }
    n_cells = {key: int(histograms.dataset["n_cells"][i]) for key, i in rows.items()}
    centers = training.centers.to_numpy()
    draws = calibrating.moments(
        n_cells=np.array([[n_cells.get((label, c), 1) for c in training.contexts] for label in CALIBRATING])
    )
    test_draws = prediction.moments(n_cells=30)
    intervals = conformal.summary(0.8, n_cells=30)
    for name in MOMENTS:
        scores = {}
        for p, label in enumerate(CALIBRATING):
            for c, context in enumerate(training.contexts):
                if (label, context) not in rows:
                    continue
                for g in range(5):
                    cells = np.repeat(centers[g], histograms.counts.values[rows[label, context], g])
                    deviation = cells - cells.mean()
                    sd = cells.std()
                    moment = {
                        "mean": cells.mean(),
                        "variance": cells.var(),
                        "skewness": (deviation**3).mean() / sd**3 if sd else 0,
                        "kurtosis": (deviation**4).mean() / sd**4 - 3 if sd else 0,
                    }[name]
                    sample = draws[name].values[:, p, c, g].astype(float)
                    residual = abs(moment - np.median(sample))
                    scale = sample.std() if scaled else 1
                    score = 0 if residual < 1e-6 else residual / scale if scale else np.inf
                    scores.setdefault(label, []).append(score)
        candidates = sorted({s for of_label in scores.values() for s in of_label})
        covers = [sum(np.mean(np.array(s) <= q) for s in scores.values()) / (len(scores) + 1) for q in candidates]
        radius = candidates[int(np.argmax(np.array(covers) >= 0.8 - 1e-9))]
        sample = test_draws[name].values.astype(float)
        center, scale = np.median(sample, axis=0), sample.std(axis=0) if scaled else np.ones(sample.shape[1:])
        half = np.where(scale > 0, radius, 0) * scale
        expected = np.stack([center, center - half, center + half])
        np.testing.assert_allclose(intervals[name].values, expected, rtol=2e-4, atol=2e-4)
    assert intervals["mean"].dims == ("statistic", "perturbation", "context", "gene")
    assert intervals.attrs["ci_prob"] == 0.8


def test_scaled_intervals_are_narrower_for_more_cells_and_unscaled_are_not(histograms, training, conformal):
    unscaled = conformalize(conformal.point, predict(training, CALIBRATING), histograms, scaled=False)

    def width(intervals, n_cells):
        summary = intervals.summary(0.5, n_cells=n_cells)["mean"]
        return (summary.sel(statistic="upper") - summary.sel(statistic="lower")).to_numpy()[..., :4]

    ratio = width(conformal, 400) / width(conformal, 100)
    np.testing.assert_allclose(np.median(ratio), 0.5, atol=0.05)
    np.testing.assert_allclose(width(unscaled, 400), width(unscaled, 100), rtol=1e-4)


def test_a_moment_that_does_not_vary_has_an_interval_of_one_point(conformal):
    summary = conformal.summary(0.8, n_cells=30)["variance"].isel(gene=4)
    assert (summary == 0).all()


def test_means_alone_have_intervals_of_the_mean(histograms, training):
    calibrating, prediction = (predict(training, labels, means_only=True) for labels in (CALIBRATING, TEST))
    with pytest.raises(ValueError, match="scaled=False"):
        conformalize(prediction, calibrating, histograms)
    intervals = conformalize(prediction, calibrating, histograms, scaled=False)
    summary = intervals.summary(0.5)
    assert set(summary) == {"mean"}
    np.testing.assert_allclose(summary["mean"].sel(statistic="median"), prediction.means, rtol=1e-6)
    half = summary["mean"].sel(statistic="upper") - summary["mean"].sel(statistic="median")
    np.testing.assert_allclose(half, intervals.radius(0.5)[0], rtol=1e-4)


def test_posteriors_can_be_conformal_too(small, small_fit):
    """The perturbation that has no cells is given those of another."""
    (unseen,) = set(small.embeddings.index) - set(small_fit.perturbations)
    cells = small.adata[small.adata.obs["perturbation"] == "GENE0"].copy()
    cells.obs["perturbation"] = unseen
    intervals = conformalize(small_fit.predict("GENE1"), small_fit.predict(unseen), cells)
    assert intervals.n_calibration == 1
    lower, upper = (intervals.summary(0.5, n_cells=20)["mean"].sel(statistic=s) for s in ("lower", "upper"))
    assert (lower < upper).all()


def test_it_says_what_it_is(conformal):
    assert repr(conformal).startswith("ConformalPrediction: intervals from the residuals, in predicted standard")
    assert conformal.seed == conformal.point.seed
    assert "6 perturbations" in repr(conformal) and "PointPrediction" in repr(conformal)


# --------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(("level", "needed"), [(0.9, 9), (0.95, 19)])
def test_too_few_perturbations_for_a_level(conformal, level, needed):
    with pytest.raises(ValueError, match=f"need {needed} perturbations"):
        conformal.radius(level)
    assert quantile_of(np.ones((needed, 1)), level) == 1


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_levels_are_probabilities(conformal, level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal.radius(level)


def test_histograms_need_a_number_of_cells(conformal):
    with pytest.raises(ValueError, match="pass n_cells"):
        conformal.summary(0.5)


def with_one_cell(histograms, label, context=None):
    """The same, with but the first cell of a perturbation, in one context or in all."""
    dataset = histograms.dataset.copy(deep=True)
    chosen = (dataset["perturbation"] == label) & (dataset["context"] == (context or dataset["context"]))
    for row in np.flatnonzero(chosen):
        counts = dataset["counts"].to_numpy()[row]
        dataset["counts"][row] = np.arange(counts.shape[1]) == (counts > 0).argmax(axis=1)[:, None]
        dataset["n_cells"][row] = 1
    return Histograms(dataset)


def test_a_group_of_one_cell_does_not_calibrate(histograms, training):
    few = with_one_cell(histograms, "GENE3", "context0")
    ours = conformalize(predict(training, TEST), predict(training, CALIBRATING), few)
    without = few.dataset.isel(group=~((few.dataset["n_cells"] == 1).to_numpy()))
    expected = conformalize(predict(training, TEST), predict(training, CALIBRATING), Histograms(without))
    np.testing.assert_array_equal(ours.scores, expected.scores)
    np.testing.assert_array_equal(ours.weights, expected.weights)
    # A mean it has.
    means = [predict(training, labels, means_only=True) for labels in (TEST, CALIBRATING)]
    assert conformalize(*means, few, scaled=False).scores.shape[1] == ours.scores.shape[1] + 5


def test_what_cannot_calibrate(histograms, training):
    prediction = predict(training, TEST)
    with pytest.raises(ValueError, match="GENE8 cannot calibrate: they are to be predicted"):
        conformalize(prediction, predict(training, ("GENE8", "GENE3")), histograms)
    with pytest.raises(ValueError, match="GENE1 cannot calibrate: they were in training"):
        conformalize(prediction, predict(training, ("GENE1", "GENE3")), histograms)
    with pytest.raises(ValueError, match="no cells of NOBODY to compare with"):
        conformalize(prediction, predict(training, ("NOBODY", "GENE3")), histograms)
    with pytest.raises(ValueError, match="fewer than two cells to calibrate with for GENE3"):
        conformalize(prediction, predict(training, ("GENE3", "GENE4")), with_one_cell(histograms, "GENE3"))
    with pytest.raises(ValueError, match="training differs"):
        conformalize(prediction, predict(histograms.select(["GENE0"]), CALIBRATING), histograms)
