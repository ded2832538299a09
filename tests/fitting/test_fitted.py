"""A fit: what it says of itself, and what `predict` takes and refuses."""

from dataclasses import replace

import numpy as np
import pytest

from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.posterior.strengths import damped, expected_strengths, left_out_slope, left_out_strengths
from distpert.posterior.unseen import SMOOTHING


def test_repr_tells_what_was_fitted(fitted, context_fit):
    text = repr(fitted)
    assert "80 perturbations, 25,000 cells" in text
    assert "12 in 15 bins" in text
    assert "contexts       none" in text
    assert "120 genes x 1 dims" in text
    assert "3 factors" in text
    assert f"{fitted.explained_share:.0%}" in text
    assert "constant genes" not in text
    assert "context: context0, context1" in repr(context_fit)
    assert "share" not in text
    pairs = replace(fitted, kernel=replace(fitted.kernel, shared=0.35))
    assert "follows the embedding or the genes that labels share (weight 0.35))" in repr(pairs)


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


def test_explained_share_weighs_factors_by_their_shift(context_fit):
    control = np.exp(context_fit.log_control.astype(float)).mean(axis=0)
    loading = context_fit.parameters["loading"].to_numpy()
    size = [(loading[k] ** 2 * control).sum() for k in range(len(loading))]
    share = context_fit.parameters["explained_share"].to_numpy()
    assert context_fit.explained_share == pytest.approx(np.dot(size, share) / np.sum(size), rel=1e-5)


def test_predictable_share_is_that_of_leaving_one_out(context_fit):
    parameters = context_fit.parameters
    vectors, values = parameters["eigenvectors"].to_numpy(), parameters["eigenvalues"].to_numpy()
    kernel, known = (vectors * values) @ vectors.T, []
    for rho in parameters["explained_share"].to_numpy():
        covariance = rho * kernel + (1 - rho) * np.eye(len(kernel))
        for p in range(len(kernel)):
            others = np.arange(len(kernel)) != p
            cross = covariance[p, others]
            known.append(cross @ np.linalg.solve(covariance[np.ix_(others, others)], cross))
    known = np.mean(np.reshape(known, (-1, len(kernel))), axis=1)
    assert known.min() - 1e-6 <= context_fit.predictable_share <= known.max() + 1e-6
    assert context_fit.predictable_share < context_fit.explained_share


def test_control_histograms_are_those_of_the_control_cells(context_screen, context_fit):
    control = np.exp(context_fit.log_control)
    np.testing.assert_allclose(control.sum(axis=-1), 1, atol=1e-5)
    groups = context_fit.histograms.dataset.isel(group=[0, 1])
    observed = groups["counts"].to_numpy() / groups["n_cells"].to_numpy()[:, None, None]
    other = observed[::-1]
    assert (control > 0).all()
    assert abs(control - observed).sum() < abs(control - other).sum()


def test_control_moments(fitted, context_fit):
    assert dict(fitted.control_moments().sizes) == {"gene": 12}
    moments = context_fit.control_moments()
    assert dict(moments.sizes) == {"context": 2, "gene": 14}
    exact = histogram_moments(context_fit.control, context_fit.centers.astype(float))
    for name, value in zip(MOMENTS, exact, strict=True):
        np.testing.assert_allclose(moments[name], value, rtol=1e-3, atol=1e-4)


def test_targets(fitted):
    assert fitted.targets("GENE3") == [3]
    assert fitted.targets("GENE1+GENE3") == [1, 3]
    assert fitted.targets("GENE100") == []
    assert fitted.targets("GENE100+GENE3") == [3]


def test_training_counts(context_fit):
    counts = context_fit.training_counts("GENE3", "context1")
    dataset = context_fit.histograms.dataset
    row = (dataset["perturbation"] == "GENE3") & (dataset["context"] == "context1")
    np.testing.assert_array_equal(counts, dataset["counts"].to_numpy()[row.to_numpy()][0])
    assert counts.sum() == 60 * 14
    assert context_fit.training_counts("GENE11", "context1") is None


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
        ("control", {}, ValueError, r"'control' labels the controls.*Fit.control"),
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


def test_unseen_responses_are_told_by_a_gaussian_process(fitted, unseen):
    """Against the textbook formula with dense matrices, for z at the training points known up to s."""
    train = fitted.embeddings.of(fitted.perturbations).astype(float)
    new = fitted.embeddings.of(unseen[:5]).astype(float)

    def kernel(left, right):
        distance = np.linalg.norm(left[:, None] - right[None], axis=-1)
        return np.exp(-((distance / fitted.kernel.length_scale) ** fitted.kernel.power))

    learned = fitted._responses.unseen
    divisor = learned.length[:, None] * learned.size
    response, scale = (fitted.parameters[name].to_numpy().astype(float) for name in ("response", "response_scale"))
    told = fitted._responses.told(unseen[:5])
    mean, deviation, _ = (np.array(values) for values in zip(*told.values(), strict=True))
    for k, rho in enumerate(learned.share):
        tempered = ((response - learned.origin) / divisor)[:, k] - learned.center[k]
        inverse = np.linalg.inv(rho * kernel(train, train) + (1 - rho) * np.eye(len(train)))
        weights = rho * kernel(new, train) @ inverse
        variance = np.diag(weights @ np.diag((scale / divisor)[:, k] ** 2) @ weights.T)
        variance = variance + 1 - rho * np.diag(weights @ kernel(train, new))
        expected = learned.size[k] * learned.slope * weights @ tempered
        np.testing.assert_allclose(mean[:, k], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(deviation[:, k], learned.size[k] * np.sqrt(variance), rtol=1e-3)


def test_draws_of_seen_perturbations_follow_the_posterior(fitted):
    parameters = fitted.parameters.sel(perturbation=[fitted.perturbations[5]])
    prediction = fitted.predict(fitted.perturbations[5], num_draws=4000)
    for name, drawn in (("response", prediction.response), ("on_target", prediction.on_target)):
        mean, scale = parameters[name].to_numpy(), parameters[f"{name}_scale"].to_numpy()
        assert (abs(drawn.mean(axis=0) - mean) < 5 * scale / np.sqrt(4000)).all()
        np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.08)


def test_draws_of_unseen_perturbations(fitted, unseen):
    """Moments of the smoothed bootstrap, in closed form."""
    learned, n_draws = fitted._responses.unseen, 80 * 250  # each training perturbation as often
    mean, scale, strength = fitted._responses.told(unseen[:1])[unseen[0]]
    prediction = fitted.predict(unseen[0], num_draws=n_draws)
    drawn = prediction.response[:, 0].astype(float)
    own, told = (strength * ratio[:, None] for ratio in (learned.ratio, damped(learned.ratio)))
    common = learned.size * learned.mean
    shift = own * common + told * mean + own * np.sqrt(1 - SMOOTHING**2) * scale * learned.residual
    expected = learned.origin + shift.mean(axis=0)
    second = (shift**2 + SMOOTHING**2 * (own * scale * learned.residual) ** 2).mean(axis=0)
    sd = np.sqrt(second - (expected - learned.origin) ** 2)
    assert (abs(drawn.mean(axis=0) - expected) < 5 * sd / np.sqrt(n_draws)).all()
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.05)
    tilt, tilt_scale = fitted.parameters["tilt_mean"].to_numpy(), fitted.parameters["tilt_scale"].to_numpy()
    assert (abs(prediction.on_target.mean(axis=0) - tilt) < 5 * tilt_scale / np.sqrt(n_draws)).all()
    np.testing.assert_allclose(prediction.on_target[:, 0].std(axis=0), tilt_scale, rtol=0.05)


def test_strengths_are_those_of_leaving_one_out(context_fit):
    """Against dense matrices without the row and column of the one left out."""
    parameters = context_fit.parameters
    vectors, values = parameters["eigenvectors"].to_numpy().astype(float), parameters["eigenvalues"].to_numpy()
    kernel, learned = (vectors * values) @ vectors.T, context_fit._responses.unseen
    m = (parameters["response"].to_numpy().astype(float) - learned.origin) / learned.size
    s = parameters["response_scale"].to_numpy().astype(float) / learned.size
    told, variance = np.empty_like(m), np.empty_like(m)
    for k, rho in enumerate(learned.share):
        covariance = rho * kernel + (1 - rho) * np.eye(len(kernel))
        tempered = m[:, k] / learned.length - learned.center[k]
        for p in range(len(kernel)):
            others = np.arange(len(kernel)) != p
            weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[p, others])
            told[p, k] = weights @ tempered[others]
            variance[p, k] = 1 - weights @ covariance[p, others]
    weight, strengths = context_fit._factor_weight, context_fit.strengths
    # Each is the best given the others.
    expected = left_out_strengths(m, s, learned.mean + learned.slope * told, variance, weight)
    np.testing.assert_allclose(strengths, expected, rtol=1e-3)
    np.testing.assert_allclose(learned.mean, (m / strengths[:, None] - learned.slope * told).mean(axis=0), atol=1e-3)
    slope = left_out_slope(m / strengths[:, None] - learned.mean, told, variance, weight)
    assert learned.slope == pytest.approx(slope, rel=1e-3)
    residual = learned.residual * np.sqrt(1 - m.shape[1] / len(m))  # it is raised for the loadings' degrees of freedom
    values, vectors = np.linalg.eigh(kernel)
    others, _ = expected_strengths(strengths, values, vectors, kernel[:0], np.ones(len(m), int), np.ones(0, int))
    np.testing.assert_allclose(learned.ratio, strengths / others, rtol=1e-3)
    rebuilt = strengths[:, None] * (learned.mean + np.sqrt(variance) * residual)
    rebuilt += (others * damped(learned.ratio))[:, None] * learned.slope * told
    np.testing.assert_allclose(learned.origin + learned.size * rebuilt, parameters["response"], rtol=1e-3, atol=1e-4)


def test_seed_of_the_prediction(fitted):
    first, again, other = (fitted.predict("GENE3", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.response, again.response)
    assert not np.array_equal(first.response, other.response)
