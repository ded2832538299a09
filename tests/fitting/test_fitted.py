"""A fit: what it says of itself, and what `predict` takes and refuses."""

from dataclasses import replace

import numpy as np
import pytest


def test_repr_tells_what_was_fitted(fitted, context_fit):
    text = repr(fitted)
    assert "80 perturbations, 25,000 cells" in text
    assert "12 in 15 bins" in text
    assert "contexts       none" in text
    assert "120 genes x 1 dims" in text
    assert "3 factors" in text
    assert f"{fitted.explained_share:.0%} of their variance follows the embedding" in text
    assert f"expected R² {fitted.predictable_share:.0%} for the response of a perturbation left out" in text
    assert "12 of 80 perturbations target a measured gene" in text
    assert "constant genes" not in text
    assert "context: context0, context1" in repr(context_fit)
    assert "share" not in text
    pairs = replace(fitted, kernel=replace(fitted.kernel, shared=0.35))
    assert "follows the embedding or the genes that labels share (weight 0.35)\n" in repr(pairs)


def test_repr_warns_of_a_loss_that_rose(fitted):
    assert "warning" not in repr(fitted)
    rose = replace(fitted, loss=np.array([3.0, 2.0, 1.0, 1.3]))
    assert "the loss rose after its lowest value, 1.0000 in epoch 3; try a smaller step_size" in repr(rose)
    assert "warning" not in repr(replace(fitted, loss=np.array([3.0, 2.0, 1.0, 1.1])))


def test_facts(fitted, context_fit):
    assert fitted.genes == tuple(f"GENE{i}" for i in range(12))
    assert fitted.perturbations == tuple(sorted(f"GENE{i}" for i in range(80)))
    assert fitted.contexts == ("all",)
    assert context_fit.contexts == ("context0", "context1")
    assert fitted.seconds > 0
    assert isinstance(fitted.converged, bool)
    assert fitted.histograms.columns["context_key"] is None
    assert context_fit.histograms.columns["context_key"] == "context"


def test_parameters_are_labeled(context_fit):
    parameters = context_fit.parameters
    dims = {name: array.dims for name, array in parameters.items()}
    assert dims == {
        "common": ("context", "gene", "bin"),
        "loading": ("factor", "gene", "bin"),
        "explained_share": ("factor",),
        "response": ("perturbation", "factor"),
        "response_scale": ("perturbation", "factor"),
        "tilt_mean": ("tilt",),
        "tilt_scale": ("tilt",),
        "on_target": ("perturbation", "tilt"),
        "on_target_scale": ("perturbation", "tilt"),
        "log_concentration": ("gene",),
        "eigenvalues": ("eigen",),
        "eigenvectors": ("perturbation", "eigen"),
    }
    assert parameters["gene"].to_numpy().tolist() == list(context_fit.genes)
    assert parameters["perturbation"].to_numpy().tolist() == list(context_fit.perturbations)
    assert np.isfinite(parameters.to_array()).all()
    assert (parameters["response_scale"] > 0).all()
    assert ((parameters["explained_share"] > 0) & (parameters["explained_share"] < 1)).all()


# -------------------------------------------------------------------------------------------------------------- predict


def test_labels_are_canonical(fitted):
    prediction = fitted.predict([" GENE3 ", "GENE9+GENE1", "ctrl+GENE5"], progress_bar=False)
    assert prediction.perturbations == ("GENE3", "GENE1+GENE9", "GENE5")
    assert fitted.predict("GENE3").perturbations == ("GENE3",)


def test_sequences_of_labels(fitted):
    labels = ["GENE3", "GENE90"]
    for given in (labels, tuple(labels), np.array(labels), iter(labels)):
        assert fitted.predict(given).perturbations == ("GENE3", "GENE90")


@pytest.mark.parametrize(
    ("labels", "options", "error", "message"),
    [
        ("gene3", {}, KeyError, r"no embedding for 1 gene: 'gene3' \(nearest: GENE3,"),
        ("GENE1+NOWHERE", {}, KeyError, r"no embedding for 1 gene: 'NOWHERE'"),
        (["XYZ", "GENE1", "QRS"], {}, KeyError, r"no embedding for 2 genes: 'XYZ' \(nearest: none\), 'QRS'"),
        ("control", {}, ValueError, r"'control' labels the controls.*see fit.control and fit.control_moments\(\)"),
        (["GENE1", "ctrl+ctrl"], {}, ValueError, r"'control' labels the controls"),
        (["GENE1+GENE9", "GENE9+GENE1"], {}, ValueError, r"named more than once.*order.*: GENE1\+GENE9"),
        (["GENE1", "GENE1+ctrl"], {}, ValueError, r"named more than once.*: GENE1"),
        ([], {}, ValueError, r"no perturbation to predict"),
        ("", {}, KeyError, r"no embedding for 1 gene: ''"),
        ("GENE1", {"num_draws": 0}, ValueError, r"num_draws must be at least 1, not 0"),
        ("GENE1", {"num_draws": -3}, ValueError, r"num_draws must be at least 1, not -3"),
        ("GENE1", {"context": "day1"}, KeyError, r"the fit has no contexts.*day1.*context_key="),
    ],
)
def test_bad_requests(fitted, labels, options, error, message):
    with pytest.raises(error, match=message):
        fitted.predict(labels, **options)


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        ("contxt1", KeyError, r"no such context: contxt1. There are context0, context1; nearest context1"),
        (["context0", "x"], KeyError, r"no such context: x. There are context0, context1"),
        ([], ValueError, r"no context to predict for"),
        (["context1", "context1"], ValueError, r"context named more than once: context1"),
    ],
)
def test_bad_contexts(context_fit, context, error, message):
    with pytest.raises(error, match=message):
        context_fit.predict("GENE1", context=context)


def test_choice_of_contexts(context_fit):
    assert context_fit.predict("GENE1").contexts == ("context0", "context1")
    assert context_fit.predict("GENE1", context="context1").contexts == ("context1",)
    assert context_fit.predict("GENE1", context=("context1", "context0")).contexts == ("context1", "context0")


def test_seed_of_the_prediction(fitted):
    first, again, other = (fitted.predict("GENE3", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.response, again.response)
    assert not np.array_equal(first.response, other.response)
