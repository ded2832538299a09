"""Objects that are mistaken for others are refused by name, wherever they are passed."""

import re

import numpy as np
import pytest

import distpert
from distpert._shared.arguments import check_count, check_number, check_seed, check_type


@pytest.fixture(scope="module")
def prediction(small_fit):
    return small_fit.predict(["GENE1", "GENE6"], num_draws=5, progress_bar=False)


def test_types():
    check_type("one", 3, int, made_by="counting")
    check_type("one", True, str, int, made_by="counting")
    with pytest.raises(TypeError, match=r"^one: expected str or int, made by counting; got float$"):
        check_type("one", 3.0, str, int, made_by="counting")


PREDICTIONS = r"prediction: expected MomentPrediction, made by fit.predict\(labels\)"
WRONG = {
    "score(fit, adata)": PREDICTIONS,
    "score(adata, prediction)": PREDICTIONS,
    "score(prediction, fit)": "list of these; got Fit",
    "calibration(fit, adata)": "prediction: expected HistogramPrediction or ConformalPrediction, made by",
    "conformalize(fit, prediction, adata)": PREDICTIONS,
    "conformalize(prediction, fit, adata)": "calibrating: expected MomentPrediction, made by",
    "predictive_check(fit, adata)": "prediction: expected HistogramPrediction, made by",
    "loo(fit)": "prediction: expected Prediction, made by",
    "without_latent_uncertainty(fit)": "prediction: expected Prediction, made by",
    "count_histograms(adata, bins=fit)": r"bins: expected Histograms or Dataset, .*count_histograms.*; got Fit",
    "fit(adata, vectors, priors={})": r"priors: expected Priors, made by distpert.Priors\(\.\.\.\); got dict",
    "fit(adata, vectors, optimization={})": r"optimization: expected Optimization, .*; got dict",
    "combine_calibrations([1, 2])": "calibrations: expected Dataset, .* each an argument of its own; got list",
    "width_at_coverage(prediction)": "calibration: expected Dataset, made by distpert.calibration; got Prediction",
    "compare(prediction)": "scores: expected Dataset, made by distpert.cross_validate; got Prediction",
    "to_arviz(prediction)": r"tree: expected DataTree, made by prediction.to_datatree\(adata\); got Prediction",
}


@pytest.mark.parametrize("call", WRONG)
def test_wrong_objects(call, small, small_fit, prediction):
    names = {"adata": small.adata, "vectors": small.embeddings, "fit": small_fit, "prediction": prediction}
    function, _, arguments = call.partition("(")
    with pytest.raises(TypeError, match=WRONG[call]):
        eval(f"function({arguments}", {"function": getattr(distpert, function), **names})


def test_cells_have_no_likelihood_before_they_are_counted(small, prediction):
    with pytest.raises(TypeError, match=r"counts: expected DataArray, made by to_datatree\(adata\).*; got AnnData"):
        prediction.log_likelihood(small.adata)


def test_counts():
    assert check_count("n", np.int64(3)) == 3
    assert type(check_count("n", np.int64(3))) is int
    assert check_count("n", 0, 0) == 0
    with pytest.raises(ValueError, match=r"^n must be at least 2, not 1$"):
        check_count("n", 1, 2)


COUNTED = {
    "fit(adata, vectors, n_factors=COUNT)": "n_factors",
    "fit(adata, vectors, n_bins=COUNT)": "n_bins",
    "count_histograms(adata, n_bins=COUNT)": "n_bins",
    "split_perturbations(['A', 'B', 'C'], COUNT)": "n_folds",
    "cross_validate(adata, vectors, n_folds=COUNT)": "n_folds",
    "cross_validate(adata, vectors, n_bins=COUNT)": "n_bins",
    "cross_validate(adata, vectors, num_draws=COUNT)": "num_draws",
    "calibration(prediction, adata, n_strata=COUNT)": "n_strata",
    "combine_calibrations(n_resamples=COUNT)": "n_resamples",
    "Fit.predict(fit, 'GENE1', num_draws=COUNT)": "num_draws",
    "Fit.prior_predictive(fit, 'GENE1', num_draws=COUNT)": "num_draws",
    "Prediction.sample_cells(prediction, COUNT)": "n_cells",
    "Prediction.moments(prediction, n_cells=COUNT)": "n_cells",
    "Prediction.moments(prediction, n_cells=[COUNT, COUNT])": "n_cells",
    "Prediction.moments(prediction, n_cells=dict(GENE1=COUNT, GENE6=COUNT))": "n_cells",
    "baselines.MeanNetwork(max_epochs=COUNT)": "max_epochs",
    "embed_text({'A': 'a gene'}, None, batch_size=COUNT)": "batch_size",
}


@pytest.mark.parametrize("count", [2.5, True, "5"])
@pytest.mark.parametrize("call", COUNTED)
def test_no_count(call, count, small, small_fit, prediction):
    names = {"adata": small.adata, "vectors": small.embeddings, "fit": small_fit, "prediction": prediction}
    with pytest.raises(ValueError, match=rf"^{COUNTED[call]} must be (a )?whole number.*{count}"):
        eval(f"distpert.{call}", {"distpert": distpert, "COUNT": count, **names})


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.int64(2)])
def test_numbers(number):
    assert check_number("x", number, above=1, below=3) == number
    assert check_number("x", number, least=number) == number
    assert type(check_number("x", number)) is float


@pytest.mark.parametrize(
    ("number", "bounds", "message"),
    [
        (True, {}, "a finite number, not True"),
        ("2", {}, "a finite number, not '2'"),
        (None, {}, "a finite number, not None"),
        (1j, {}, "a finite number, not 1j"),
        (np.nan, {}, "a finite number, not nan"),
        (np.inf, {"above": 0}, "a finite number above 0, not inf"),
        (0, {"above": 0}, "a finite number above 0, not 0"),
        (-0.5, {"least": 0}, "a finite number of at least 0, not -0.5"),
        (1, {"above": 0, "below": 1}, "a finite number above 0 and below 1, not 1"),
        (0.25, {"least": 0.5, "below": 1}, "a finite number of at least 0.5 and below 1, not 0.25"),
        ([1.0], {}, "a finite number, not [1.0]"),
    ],
)
def test_no_number(number, bounds, message):
    with pytest.raises(ValueError, match=f"^x must be {re.escape(message)}$"):
        check_number("x", number, **bounds)


@pytest.mark.parametrize("seed", [0, True, np.int64(7), 2**63 - 1])
def test_seeds(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int


SEEDED = [
    "fit(adata, vectors, seed=SEED)",
    "simulate(seed=SEED)",
    "split_perturbations(['A', 'B', 'C'], 2, seed=SEED)",
    "cross_validate(adata, vectors, n_folds=2, seed=SEED)",
    "score(prediction, adata, seed=SEED)",
    "calibration(prediction, adata, seed=SEED)",
    "Fit.predict(fit, 'GENE1', seed=SEED)",
    "Fit.prior_predictive(fit, 'GENE1', seed=SEED)",
    "Prediction.sample_cells(prediction, seed=SEED)",
    "baselines.PooledHistogram().fit(fit.histograms, vectors).predict('GENE1', seed=SEED)",
]


@pytest.mark.parametrize("seed", [-1, None, 1.5, 2**63])
@pytest.mark.parametrize("call", SEEDED)
def test_no_seed(call, seed, small, small_fit, prediction):
    names = {"adata": small.adata, "vectors": small.embeddings, "fit": small_fit, "prediction": prediction}
    with pytest.raises(ValueError, match=rf"^seed must be a whole number of at least 0 .*, not {seed}$"):
        eval(f"distpert.{call}", {"distpert": distpert, "SEED": seed, **names})
