"""What all baselines have in common."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from distpert import baselines
from distpert.baselines import BASELINES
from distpert.baselines.protocol import Baseline, Predictor
from distpert.histograms.histograms import Histograms
from distpert.predictions.histogram_prediction import HistogramPrediction

OWN = ("control", "pooled", "additive", "pooled_mean", "ridge", "gaussian_process")


def means_of(prediction):
    """Means (perturbation, context, gene) of histograms, or where there are none of the prediction itself."""
    if isinstance(prediction, HistogramPrediction):
        return (prediction.probs * prediction.centers).sum(axis=-1)
    return prediction.means


@pytest.fixture(scope="module")
def predictors(tiny):
    return {name: BASELINES[name]().fit(tiny.histograms, tiny.embeddings) for name in OWN}


@pytest.mark.parametrize("name", BASELINES)
def test_registry(name):
    baseline = BASELINES[name]()
    assert isinstance(baseline, Baseline)
    assert baseline.name == name
    assert baseline == BASELINES[name]()
    assert type(baseline).__name__ in repr(BASELINES[name])


def test_registry_prints_what_it_holds():
    assert repr(BASELINES["ridge"]) == "<makes Ridge() when called>"
    assert repr(BASELINES["zero_inflated_gaussian"]) == "<makes TruncatedGaussian(zero_inflated=True) when called>"


def test_names_load():
    assert set(baselines.__all__) <= set(dir(baselines))
    for name in baselines.__all__:
        assert getattr(baselines, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'Rigde'"):
        _ = baselines.Rigde


def test_import_is_light():
    heavy = ("sklearn", "jax", "optax", "xarray", "pandas", "anndata")
    code = f"import sys, distpert.baselines; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", OWN)
def test_repr(predictors, name):
    assert isinstance(predictors[name], Predictor)
    assert repr(predictors[name]).startswith(f"Fitted {name!r}: predicts ")
    assert repr(predictors[name]).endswith(" of 4 genes from 5 training perturbations")


@pytest.mark.parametrize("name", OWN)
def test_layout(predictors, tiny, name):
    prediction = predictors[name].predict(["E", "B+A"], seed=5)
    assert prediction.training is tiny.histograms
    assert prediction.perturbations == ("E", "A+B")
    assert prediction.contexts == ("d1", "d2", "d3")
    assert prediction.seed == 5
    assert means_of(prediction).shape == (2, 3, 4)
    assert np.isfinite(means_of(prediction)).all()


@pytest.mark.parametrize("name", OWN)
def test_order_and_company_make_no_difference(predictors, name):
    labels = ["A+B", "E", "C+F", "B"]
    together = predictors[name].predict(labels)
    backwards = predictors[name].predict(["B", "F+C", "E", "B+A"])
    np.testing.assert_array_equal(means_of(together), means_of(backwards)[::-1])
    for p, label in enumerate(labels):
        alone = predictors[name].predict(label, context=["d3", "d1"])
        np.testing.assert_array_equal(means_of(alone)[0], means_of(together)[p, [2, 0]])
        if isinstance(alone, HistogramPrediction):
            np.testing.assert_array_equal(alone.probs[0], together.probs[p, [2, 0]])
            assert alone.moments(n_cells=7).identical(
                together.moments(n_cells=7).sel(perturbation=[label], context=["d3", "d1"])
            )


@pytest.mark.parametrize("name", OWN)
def test_fits_again_the_same(predictors, tiny, name):
    again = BASELINES[name]().fit(tiny.histograms, tiny.embeddings, seed=0)
    np.testing.assert_array_equal(means_of(again.predict("E")), means_of(predictors[name].predict("E")))


@pytest.mark.parametrize("name", OWN)
def test_held_out_cells_are_not_seen(tiny, name):
    """Counts of a perturbation left out make no difference, nor does it matter how groups were ordered."""
    training = tiny.histograms.drop(["B", "A+B"])
    shuffled = Histograms(
        training.dataset.isel(group=np.random.default_rng(0).permutation(training.dataset.sizes["group"]))
    )
    one, other = (
        BASELINES[name]().fit(histograms, tiny.embeddings).predict(["B", "A+B", "A"])
        for histograms in (training, shuffled)
    )
    np.testing.assert_allclose(means_of(one), means_of(other), rtol=1e-6)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ([], {}, ValueError, r"no perturbation to predict"),
        ("control", {}, ValueError, r"'control' labels the controls"),
        (["A", "ctrl+ctrl"], {}, ValueError, r"'control' labels the controls"),
        (["A+B", "B+A"], {}, ValueError, r"named more than once .*: A\+B"),
        ("a", {}, KeyError, r"no embedding for 1 gene: 'a' \(nearest: A"),
        ("A+G", {}, KeyError, r"no embedding for 1 gene: 'G'"),
        ([("A", "B")], {}, TypeError, r"a pair is written 'A\+B'"),
        ("A", {"context": "d4"}, KeyError, r"no such day: d4. There are d1, d2, d3"),
        ("A", {"context": []}, ValueError, r"no context to predict for"),
        ("A", {"context": ["d1", "d1"]}, ValueError, r"day named more than once: d1"),
    ],
)
def test_bad_requests(predictors, name, labels, options, error, message):
    with pytest.raises(error, match=message):
        predictors[name].predict(labels, **options)


@pytest.mark.parametrize("name", OWN)
def test_context_without_controls(tiny, name):
    dataset = tiny.histograms.dataset
    keep = ~((dataset["perturbation"] == "control") & (dataset["context"] == "d2")).to_numpy()
    without = Histograms(dataset.isel(group=np.flatnonzero(keep)))
    with pytest.raises(ValueError, match=r"the histograms have no control cells in d2"):
        BASELINES[name]().fit(without, tiny.embeddings)


@pytest.mark.parametrize("name", OWN)
def test_embeddings_in_any_form(predictors, tiny, name):
    table = pd.DataFrame(tiny.embeddings.vectors, tiny.embeddings.genes)
    for given in (table, [dict(zip(table.index, table.to_numpy(), strict=True))]):
        prediction = BASELINES[name]().fit(tiny.histograms, given).predict("E")
        np.testing.assert_allclose(means_of(prediction), means_of(predictors[name].predict("E")), rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_what_cannot_be_fitted_to(tiny, name):
    baseline = BASELINES[name]()
    with pytest.raises(TypeError, match=r"histograms: expected Histograms, .*count_histograms\(adata\); got AnnData"):
        baseline.fit(tiny.adata, tiny.embeddings)
    with pytest.raises(TypeError, match=r"embeddings must be a DataFrame .*, not NoneType"):
        baseline.fit(tiny.histograms, None)


@pytest.mark.parametrize("name", OWN)
def test_no_contexts_to_choose(tiny_all, name):
    predictor = BASELINES[name]().fit(tiny_all.histograms, tiny_all.embeddings)
    assert predictor.predict("E").contexts == ("all",)
    with pytest.raises(KeyError, match=r"the fit has no contexts.*d1.*context_key="):
        predictor.predict("E", context="d1")
