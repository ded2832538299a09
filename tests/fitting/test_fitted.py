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
    low, share, high = fitted.explained_share_interval()
    assert f"{share:.0%} ({low:.0%} to {high:.0%}) of their variance follows the embedding" in text
    assert (
        f"unseen         R² of responses left out: {fitted.left_out_r2()['single genes']:.0%} for single genes" in text
    )
    low, typical, high = fitted.concentration_interval()
    assert f"concentration  {typical:,.0f} ({low:,.0f} to {high:,.0f}) for a typical gene" in text
    assert (
        f"{fitted.loss[-1]:.4f} nats per cell and gene, {len(fitted.loss)} epochs, ended by the stopping rule" in text
    )
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
        "control": ("context", "gene", "bin"),
        "common": ("context", "gene", "bin"),
        "loading": ("factor", "gene", "bin"),
        "level_scale": ("context", "gene", "direction"),
        "common_scale": ("context", "gene", "direction"),
        "loading_scale": ("factor", "gene", "direction"),
        "basis": ("gene", "bin", "direction"),
        "perturbed_share": ("context",),
        "common_size": (),
        "factor_size": ("factor",),
        "direction_size": ("direction",),
        "explained_share": ("factor",),
        "response": ("perturbation", "factor"),
        "response_scale": ("perturbation", "factor"),
        "tilt_mean": ("tilt",),
        "tilt_scale": ("tilt",),
        "on_target": ("perturbation", "tilt"),
        "on_target_scale": ("perturbation", "tilt"),
        "log_concentration": ("gene",),
        "log_concentration_scale": ("gene",),
        "typical_log_concentration": (),
        "log_concentration_spread": (),
        "eigenvalues": ("eigen",),
        "eigenvectors": ("perturbation", "eigen"),
    }
    assert parameters["gene"].to_numpy().tolist() == list(context_fit.genes)
    assert parameters["perturbation"].to_numpy().tolist() == list(context_fit.perturbations)
    assert all(np.isfinite(array).all() for array in parameters.values())
    scales = [name for name in parameters if str(name).endswith(("_scale", "_size", "_spread"))]
    assert len(scales) == 11
    assert all((parameters[name] > 0).all() for name in scales)
    np.testing.assert_allclose(parameters["perturbed_share"], 600 / 800)
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


# --------------------------------------------------------------------------------------------------- draws of one's own


def test_numpyro_model_and_back(context_fit, sampled, raw_draws):
    story = context_fit.numpyro_model()
    assert {name for name in raw_draws} <= set(story.start)
    assert sampled.histograms is context_fit.histograms
    assert (sampled.kernel, sampled.settings) == (context_fit.kernel, context_fit.settings)
    again = sampled.with_samples(raw_draws)
    assert again.samples.identical(sampled.samples)
    assert again.diagnostics == sampled.diagnostics
    assert len(sampled.loss) == 0
    assert sampled.n_factors == context_fit.n_factors
    restored = sampled.numpyro_model().design
    for ours, theirs in zip(restored, story.design, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_draws_that_agree_have_converged(context_fit, raw_draws):
    """Whether they have depends on R-hat, and on divergences if they are told."""
    assert context_fit.converged
    found = context_fit.with_samples(raw_draws, divergences=3, at_greatest_depth=0.25)
    assert found.diagnostics["divergences"] == 3
    assert found.diagnostics["at_greatest_depth"] == 0.25
    assert found.diagnostics["r_hat"] > 1.01  # a handful of draws
    assert not found.converged


@pytest.mark.parametrize(("r_hat", "divergences", "expected"), [(1.005, 0, True), (1.02, 0, False), (1.0, 2, False)])
def test_rule_of_convergence(context_fit, raw_draws, monkeypatch, r_hat, divergences, expected):
    monkeypatch.setattr("distpert.fitting.fitted.diagnose", lambda *args: {"r_hat": r_hat, "n_eff": 400.0})
    assert context_fit.with_samples(raw_draws, divergences=divergences).converged is expected


def test_repr_of_chains(context_fit, sampled, raw_draws):
    told = context_fit.with_samples(raw_draws, divergences=3)
    found = told.diagnostics
    line = f"chains         3 of 8 draws; 3 divergences, R-hat up to {found['r_hat']:.2f}, effective draws from "
    assert line in repr(told)
    assert "loss" not in repr(told)
    # Draws of one's own come without a number of divergences.
    assert f"chains         3 of 8 draws; R-hat up to {found['r_hat']:.2f}" in repr(sampled)


def test_predictions_of_chains(sampled):
    prediction = sampled.predict(["GENE3", "GENE11", "GENE1+GENE4"], num_draws=24, progress_bar=False)
    assert prediction.num_draws == 24
    assert np.isfinite(prediction.moments(n_cells=10).to_array()).all()
    np.testing.assert_allclose(prediction.histogram().sum("bin"), 1, atol=1e-5)
    assert sampled.left_out_r2().keys() == {"single genes"}
