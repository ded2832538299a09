"""What a fit knows: shares, controls, strengths, and draws of responses, against dense matrices and closed forms."""

import numpy as np
import pytest
from scipy.special import softmax

from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.posterior.posterior import Posterior
from distpert.posterior.shared import typical_scale
from distpert.posterior.strengths import damped, expected_strengths, left_out_slope, left_out_strengths
from distpert.posterior.unseen import LEARNED, SMOOTHING


def test_factors_are_weighed_by_their_shift(context_fit):
    control = np.exp(context_fit.log_control.astype(float)).mean(axis=0)
    loading = context_fit.parameters["loading"].to_numpy()
    size = np.array([(loading[k] ** 2 * control).sum() for k in range(len(loading))])
    np.testing.assert_allclose(context_fit.factor_weight, size / size.sum(), rtol=1e-5)


def test_concentration_interval(context_fit):
    """Of the typical gene: a normal in logarithms, with the standard deviation that its cells leave."""
    parameters = context_fit.parameters
    log = float(parameters["typical_log_concentration"])
    spread = float(parameters["log_concentration_spread"])
    sd = typical_scale(parameters["log_concentration_scale"].to_numpy(), spread)
    assert 0 < sd < 1.5
    expected = np.exp(log + np.array([-1.959964, 0, 1.959964]) * sd)
    np.testing.assert_allclose(context_fit.concentration_interval(0.95), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="ci_prob must lie between 0 and 1"):
        context_fit.concentration_interval(0)


def test_mean_response(context_fit):
    mean, response = context_fit.mean_response(5), context_fit.parameters["response"]
    assert mean.shape == (5, context_fit.n_factors)
    np.testing.assert_allclose(mean, np.tile(response.mean("perturbation"), (5, 1)), rtol=1e-6)


def test_control_logits_are_those_of_the_control_cells(context_fit):
    """Nearer to the cells of their context than to those of the other, and nearer than the pooled cells are."""
    control = softmax(context_fit.log_control.astype(float), axis=-1)
    groups = context_fit.groups
    np.testing.assert_array_equal(context_fit.control, groups.control)
    distance = abs(control - groups.control).sum()
    assert distance < 0.5 * abs(control - groups.control[::-1]).sum()
    assert distance < 0.75 * abs(groups.pooled - groups.control).sum()


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
    counts = context_fit.groups.counts_of("GENE3", "context1")
    dataset = context_fit.histograms.dataset
    row = (dataset["perturbation"] == "GENE3") & (dataset["context"] == "context1")
    np.testing.assert_array_equal(counts, dataset["counts"].to_numpy()[row.to_numpy()][0])
    assert counts.sum() == 60 * 14
    assert context_fit.groups.counts_of("GENE11", "context1") is None


def test_unseen_responses_are_predicted_by_a_gaussian_process(fitted, unseen):
    """Against the textbook formula with dense matrices, for z at the training points known up to s."""
    train = fitted.embeddings.of(fitted.perturbations).astype(float)
    new = fitted.embeddings.of(unseen[:5]).astype(float)

    def kernel(left, right):
        distance = np.linalg.norm(left[:, None] - right[None], axis=-1)
        return np.exp(-((distance / fitted.kernel.length_scales[0]) ** fitted.kernel.power))

    learned = fitted._responses.unseen
    divisor = learned.length[:, None] * learned.size
    response, scale = (fitted.parameters[name].to_numpy().astype(float) for name in ("response", "response_scale"))
    predicted = fitted._responses.predict_unseen(unseen[:5])
    mean, deviation, _ = (np.array(values) for values in zip(*predicted.values(), strict=True))
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
    label = fitted.perturbations[5]
    parameters = fitted.parameters.sel(perturbation=[label])
    draws = fitted.draw_responses([label], 4000, 0)
    for name in ("response", "on_target"):
        drawn = getattr(draws, name)
        mean, scale = parameters[name].to_numpy(), parameters[f"{name}_scale"].to_numpy()
        assert (abs(drawn.mean(axis=0) - mean) < 5 * scale / np.sqrt(4000)).all()
        np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.08)
    assert draws.inactive.mean() == pytest.approx(fitted.prob_inactive[label], abs=0.04)


def test_draws_of_unseen_perturbations(fitted, unseen):
    """Moments of the smoothed bootstrap, in closed form."""
    learned, n_draws = fitted._responses.unseen, 80 * 250  # each training perturbation as often
    mean, scale, strength = fitted._responses.predict_unseen(unseen[:1])[unseen[0]]
    response, on_target, inactive = fitted.draw_responses(unseen[:1], n_draws, 0)
    assert not inactive.any()
    drawn = response[:, 0].astype(float)
    own, predicted = (strength * ratio[:, None] for ratio in (learned.ratio, damped(learned.ratio)))
    common = learned.size * learned.mean
    shift = own * common + predicted * mean + own * np.sqrt(1 - SMOOTHING**2) * scale * learned.residual
    expected = learned.origin + shift.mean(axis=0)
    noise = SMOOTHING**2 * learned.residual**2 + learned.residual_scale**2
    second = (shift**2 + noise * (own * scale) ** 2).mean(axis=0)
    sd = np.sqrt(second - (expected - learned.origin) ** 2)
    assert (abs(drawn.mean(axis=0) - expected) < 5 * sd / np.sqrt(n_draws)).all()
    np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.05)
    tilt, tilt_scale = fitted.parameters["tilt_mean"].to_numpy(), fitted.parameters["tilt_scale"].to_numpy()
    assert (abs(on_target.mean(axis=0) - tilt) < 5 * tilt_scale / np.sqrt(n_draws)).all()
    np.testing.assert_allclose(on_target[:, 0].std(axis=0), tilt_scale, rtol=0.05)


def test_strengths_are_those_of_leaving_one_out(context_fit):
    """Against dense matrices without the row and column of the one left out."""
    parameters = context_fit.parameters
    vectors, values = parameters["eigenvectors"].to_numpy().astype(float), parameters["eigenvalues"].to_numpy()
    kernel, learned = (vectors * values) @ vectors.T, context_fit._responses.unseen
    m = (parameters["response"].to_numpy().astype(float) - learned.origin) / learned.size
    s = parameters["response_scale"].to_numpy().astype(float) / learned.size
    predicted, variance = np.empty_like(m), np.empty_like(m)
    for k, rho in enumerate(learned.share):
        covariance = rho * kernel + (1 - rho) * np.eye(len(kernel))
        tempered = m[:, k] / learned.length - learned.center[k]
        for p in range(len(kernel)):
            others = np.arange(len(kernel)) != p
            weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[p, others])
            predicted[p, k] = weights @ tempered[others]
            variance[p, k] = 1 - weights @ covariance[p, others]
    weight, strengths = context_fit.factor_weight, context_fit.strengths
    # Each is the best given the others.
    expected = left_out_strengths(m, s, learned.mean + learned.slope * predicted, variance, weight)
    np.testing.assert_allclose(strengths, expected, rtol=1e-3)
    np.testing.assert_allclose(
        learned.mean, (m / strengths[:, None] - learned.slope * predicted).mean(axis=0), atol=1e-3
    )
    slope = left_out_slope(m / strengths[:, None] - learned.mean, predicted, variance, weight)
    assert learned.slope == pytest.approx(slope, rel=1e-3)
    residual = learned.residual * np.sqrt(1 - LEARNED / len(m))  # it is raised for the numbers that were learned
    values, vectors = np.linalg.eigh(kernel)
    others, _ = expected_strengths(strengths, values, vectors, kernel[:0], np.ones(len(m), int), np.ones(0, int))
    np.testing.assert_allclose(learned.ratio, strengths / others, rtol=1e-3)
    rebuilt = strengths[:, None] * (learned.mean + np.sqrt(variance) * residual)
    rebuilt += (others * damped(learned.ratio))[:, None] * learned.slope * predicted
    np.testing.assert_allclose(learned.origin + learned.size * rebuilt, parameters["response"], rtol=1e-3, atol=1e-4)


def test_a_posterior_needs_nothing_of_how_it_was_fitted(context_fit):
    plain = Posterior(context_fit.histograms, context_fit.embeddings, context_fit.kernel, context_fit.parameters)
    labels = ["GENE1", "GENE11", "GENE2+GENE3"]
    for one, other in zip(plain.draw_responses(labels, 9, 2), context_fit.draw_responses(labels, 9, 2), strict=True):
        np.testing.assert_array_equal(one, other)
    assert plain.explained_share == context_fit.explained_share
    assert plain.left_out_r2() == context_fit.left_out_r2()
    assert plain.prob_inactive.equals(context_fit.prob_inactive)
    np.testing.assert_array_equal(plain.strengths, context_fit.strengths)
    assert not hasattr(plain, "predict")
