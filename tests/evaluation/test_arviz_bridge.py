"""ArviZ, in the version that is installed, on the trees of predictions."""

import warnings
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from distpert.evaluation.arviz_bridge import (
    _importance_sampling,
    _leave_one_out,
    _normal_divergence,
    loo,
    to_arviz,
)
from distpert.histograms.moments import MOMENTS

GROUPS = {"posterior", "log_prior", "posterior_predictive", "observed_data", "constant_data", "log_likelihood"}


@pytest.fixture(scope="module")
def az():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz


@pytest.fixture(autouse=True)
def their_warnings_are_not_ours(request):
    """Only in tests that call ArviZ themselves."""
    with warnings.catch_warnings():
        if "az" in request.fixturenames:
            warnings.simplefilter("ignore")
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def prediction(small_fit):
    return small_fit.predict(small_fit.perturbations, num_draws=1000, progress_bar=False)


@pytest.fixture(scope="module")
def tree(prediction, small):
    return prediction.to_datatree(small.adata)


@pytest.fixture(scope="module")
def data(tree):
    return to_arviz(tree)


def test_takes_the_form_of_the_installed_version(az, tree, data):
    if az.__version__.startswith("0."):
        assert isinstance(data, az.InferenceData)
        assert set(data.groups()) == GROUPS
        for name in GROUPS:
            assert data[name].identical(tree[name].to_dataset())
    else:
        assert data is tree


def test_prior_comes_along(az, prediction, small, small_fit):
    prior = small_fit.prior_predictive(small_fit.perturbations, num_draws=40, progress_bar=False)
    data = to_arviz(prediction.to_datatree(small.adata, prior=prior))
    summary = az.summary(data, var_names=["explained_share"], group="prior", kind="stats")
    assert len(summary) == small_fit.parameters.sizes["factor"]
    assert summary["mean"].astype(float).to_numpy() == pytest.approx(0.5, abs=0.2)  # Beta(1, 1)


def test_summary_of_the_posterior(az, data, tree, small_fit):
    names = ["response", "on_target"]
    summary = az.summary(data, var_names=names, kind="stats")
    assert len(summary) == sum(tree["posterior"][name][0, 0].size for name in names)
    mean = float(tree["posterior"]["response"].sel(perturbation="GENE1", factor=0).mean())
    assert float(summary.loc["response[GENE1, 0]", "mean"]) == pytest.approx(mean, abs=0.006)
    drawn = np.log(data["posterior"]["concentration"]).mean(["chain", "draw"])
    np.testing.assert_allclose(drawn, small_fit.parameters["log_concentration"], atol=0.1)
    np.testing.assert_array_equal(data["constant_data"]["explained_share"], small_fit.parameters["explained_share"])


def test_loo_of_single_genes(az, data, tree):
    found = az.loo(data, var_name="counts", pointwise=True)
    log_lik = tree["log_likelihood"]["counts"].to_numpy().astype(float)[0]
    plain = np.log(len(log_lik)) - logsumexp(-log_lik, axis=0)  # importance sampling, nothing smoothed
    assert found.n_data_points == plain.size == 6 * 5
    # A perturbed gene's own cells decide its tilt, and cannot be taken away again. For others, smoothing moves little.
    observed = tree["observed_data"]
    own = observed["perturbation"].to_numpy()[:, None] == observed["gene"].to_numpy()
    assert own.sum() == 5
    each = found.loo_i if hasattr(found, "loo_i") else found.elpd_i
    good = ~own & (np.asarray(found.pareto_k).reshape(own.shape) < 0.7)
    assert good.sum() >= 3
    np.testing.assert_allclose(np.asarray(each).reshape(own.shape)[good], plain[good], atol=0.5)


def test_posterior_predictive_check(az, data, tree):
    which = {"perturbation": ["GENE1"], "gene": [tree["observed_data"]["gene"].to_numpy()[0]]}
    if hasattr(az, "plot_ppc"):
        ax = az.plot_ppc(data, var_names=["mean"], coords=which, kind="cumulative", num_pp_samples=30, show=False)
        lines = np.atleast_1d(ax)[0].get_lines()
        assert len(lines) >= 30
    else:
        plot = az.plot_ppc_dist(
            data, var_names=["mean"], coords=which, kind="ecdf", num_samples=30, backend="matplotlib"
        )
        assert plot.viz["predictive_dist"]["mean"].sizes["sample"] == 30


def test_predictive_checks_need_no_names(az, data):
    """ArviZ looks for the replicates of everything that was observed."""
    which = {"perturbation": ["GENE1"], "gene": ["GENE0"]}
    if hasattr(az, "plot_ppc"):
        axes = az.plot_ppc(data, coords=which, num_pp_samples=5, show=False)
        assert len(np.ravel(axes)) == len(MOMENTS)
    else:
        plot = az.plot_ppc_dist(data, coords=which, num_samples=5, backend="matplotlib")
        assert set(plot.viz["predictive_dist"].data_vars) >= set(MOMENTS)


def test_probability_integral_transform(az, data):
    if hasattr(az, "plot_bpv"):
        axes = az.plot_bpv(data, kind="u_value", var_names=list(MOMENTS), show=False)
        assert len(np.ravel(axes)) == len(MOMENTS)
        assert all(ax.get_lines() for ax in np.ravel(axes))
    else:
        plot = az.plot_ppc_pit(data, var_names=list(MOMENTS), method="prit_c", backend="matplotlib")
        assert set(plot.viz["ecdf_lines"].data_vars) == set(MOMENTS), list(plot.viz)


def test_loo_leaves_out_all_genes_and_contexts(context_fit, context_screen):
    prediction = context_fit.predict(context_fit.perturbations[:4], num_draws=500, progress_bar=False)
    with pytest.warns(UserWarning, match=r"importance sampling is not reliable .*cross_validate"):
        found = loo(prediction, method="importance")
    assert found.unreliable
    log_lik = prediction.to_datatree(context_screen.adata)["log_likelihood"]["counts"][0].astype(float)
    log_lik = log_lik.sum(["context", "gene"])
    lowest = log_lik.min("draw").to_numpy()
    mean = logsumexp(log_lik.to_numpy(), axis=0) - np.log(500)
    assert found.pointwise["elpd"].dims == ("perturbation",)
    assert found.pointwise["perturbation"].to_numpy().tolist() == list(prediction.perturbations)
    elpd = found.pointwise["elpd"].to_numpy()
    assert (elpd > lowest - 1e-6).all()
    assert (elpd < mean).all()
    assert found.elpd == pytest.approx(elpd.sum())
    assert found.standard_error == pytest.approx(2 * elpd.std())


def test_closed_form_where_importance_sampling_fails(context_fit):
    """Without a warning, and lower than with the cells by the divergence of the posterior of the response."""
    prediction = context_fit.predict(context_fit.perturbations[:4], num_draws=500, progress_bar=False)
    found = loo(prediction)
    assert found.unreliable == ()
    failed = (found.pointwise["pareto_k"] > found.good_k).to_numpy()
    assert failed.any()
    np.testing.assert_array_equal(found.pointwise["method"].to_numpy() == "closed form", failed)
    everywhere = loo(prediction, method="closed form").pointwise
    assert (everywhere["method"] == "closed form").all()
    np.testing.assert_array_equal(everywhere["elpd"].to_numpy()[failed], found.pointwise["elpd"].to_numpy()[failed])
    assert "in closed form" in repr(found)
    # Brute force for one label: the prior given all other responses, from the covariance itself.
    values = {name: context_fit.parameters[name].to_numpy().astype(float) for name in context_fit.parameters}
    matrix = (values["eigenvectors"] * values["eigenvalues"]) @ values["eigenvectors"].T
    others, expected = np.arange(1, len(matrix)), 0.0
    for k, share in enumerate(values["explained_share"]):
        covariance = share * matrix + (1 - share) * np.eye(len(matrix))
        weights = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, 0])
        mean, variance = weights @ values["response"][others, k], covariance[0, 0] - weights @ covariance[others, 0]
        at, sd = values["response"][0, k], values["response_scale"][0, k]
        expected += 0.5 * (sd**2 / variance + (at - mean) ** 2 / variance - 1 - np.log(sd**2 / variance))
    for tilt in range(2):
        at, sd = values["on_target"][0, tilt], values["on_target_scale"][0, tilt]
        center, scale = values["tilt_mean"][tilt], values["tilt_scale"][tilt]
        expected += 0.5 * ((sd / scale) ** 2 + ((at - center) / scale) ** 2 - 1 - 2 * np.log(sd / scale))
    cells = prediction.to_datatree(context_fit.histograms)["log_likelihood"]["counts"]
    average = float(cells.astype(float).sum(["context", "gene"]).mean(["chain", "draw"])[0])
    assert average - float(everywhere["elpd"][0]) == pytest.approx(expected, rel=1e-3)


def test_closed_form_is_exact_for_normals():
    """y ~ N(z, s²), z ~ N(m, t²): the expected log density less the divergence is log N(y | m, s² + t²)."""
    y, s, m, t = 1.3, 0.5, -0.2, 0.9
    variance = 1 / (1 / s**2 + 1 / t**2)
    mean = variance * (y / s**2 + m / t**2)
    expected = norm.logpdf(y, mean, s) - 0.5 * variance / s**2
    bound = expected - _normal_divergence(*map(np.array, (mean, np.sqrt(variance), m, t)))
    assert bound == pytest.approx(norm.logpdf(y, m, np.sqrt(s**2 + t**2)))


def test_loo_of_normal_responses_is_exact():
    """y ~ N(z, s²), z ~ N(0, 1): left out, y has density N(0, 1 + s²)."""
    rng, n_draws, scale = np.random.default_rng(0), 20_000, 2.0
    y = np.array([0.3, -1.5, 2.0])
    variance = 1 / (1 + 1 / scale**2)
    z = y * variance / scale**2 + np.sqrt(variance) * rng.standard_normal((n_draws, 3))
    stub = SimpleNamespace(response=z[..., None], perturbations=("A", "B", "C"))
    log_lik = xr.DataArray(norm.logpdf(y, z, scale), dims=("draw", "perturbation"), coords={"draw": np.arange(n_draws)})
    elpd, pareto_k, good_k = _importance_sampling(stub, log_lik.assign_coords(perturbation=list("ABC")))
    np.testing.assert_allclose(elpd, norm.logpdf(y, 0, np.sqrt(1 + scale**2)), atol=0.02)
    assert (pareto_k < good_k).all()
    assert good_k == 0.7


def test_where_importance_sampling_does_not_hold():
    """The narrower the likelihood, the heavier the weights: C alone has one."""
    rng, n_draws = np.random.default_rng(1), 1000
    y, scale = np.array([0.0, 0.0, 2.0]), np.array([2.0, 2.0, 0.05])
    variance = 1 / (1 + 1 / scale**2)
    z = y * variance / scale**2 + np.sqrt(variance) * rng.standard_normal((n_draws, 3))
    stub = SimpleNamespace(response=z[..., None], perturbations=("A", "B", "C"))
    log_lik = xr.DataArray(norm.logpdf(y, z, scale), dims=("draw", "perturbation"), coords={"draw": np.arange(n_draws)})
    elpd, pareto_k, good_k = _importance_sampling(stub, log_lik.assign_coords(perturbation=list("ABC")))
    found = _leave_one_out(stub, elpd, pareto_k, np.array(["importance"] * 3), good_k)
    assert found.unreliable == ("C",)
    assert found.pointwise["pareto_k"].sel(perturbation="C") > 0.7
    assert "not reliable for 1: C; use cross_validate" in repr(found)
    closed = _leave_one_out(stub, elpd, pareto_k, np.array(["importance"] * 2 + ["closed form"]), good_k)
    assert closed.unreliable == ()


def test_holds_where_cells_and_genes_are_few(small_fit):
    """And the perturbed gene is not measured: its own cells decide its tilt."""
    found = loo(small_fit.predict("GENE5", num_draws=1000, progress_bar=False))
    assert found.unreliable == ()


def test_needs_draws_and_perturbations(small_fit):
    with pytest.raises(ValueError, match=r"5 draws are too few .*; loo needs 100 or more: fit.predict"):
        loo(small_fit.predict("GENE1", num_draws=5, progress_bar=False))
    assert np.isnan(loo(small_fit.predict("GENE5", num_draws=200, progress_bar=False)).standard_error)


def test_prints_itself():
    stub = SimpleNamespace(perturbations=("A", "B"))
    found = _leave_one_out(stub, np.array([-3.0, -5.0]), np.array([0.1, 0.4]), np.array(["importance"] * 2), 0.67)
    first, second, third = repr(found).splitlines()
    assert first == "LeaveOneOut: 2 perturbations, elpd -8.0 ± 1.4 nats"
    assert "importance sampling is reliable up to 0.67" in second
    assert third == "  2 by importance sampling, 0 in closed form"


def test_other_methods_are_refused(small_fit):
    with pytest.raises(ValueError, match="method must be 'auto', 'importance' or 'closed form', not 'exact'"):
        loo(small_fit.predict("GENE1", progress_bar=False), method="exact")


def test_sensitivity_to_the_prior(az, data):
    """By power scaling, in ArviZ that has it."""
    log_prior = data["log_prior"]
    assert set(log_prior.data_vars) == {"response", "on_target", "concentration"}
    assert all(np.isfinite(log_prior[name]).all() for name in log_prior.data_vars)
    if hasattr(az, "psense_summary"):
        table = az.psense_summary(data, var_names=["concentration"])
        assert len(table) == data["posterior"].sizes["gene"]


def test_refuses_what_has_nothing_to_leave_out(small, small_fit, context_fit):
    (unseen,) = [label for label in small.truth["perturbation"].to_numpy() if label not in small_fit.perturbations]
    prediction = small_fit.predict(["GENE1", unseen], num_draws=5, progress_bar=False)
    with pytest.raises(ValueError, match=f"not in training, so there is nothing to leave out: {unseen}. Use score"):
        loo(prediction)
    prediction = context_fit.predict("GENE3", context="context0", num_draws=5, progress_bar=False)
    with pytest.raises(ValueError, match=r"takes all its contexts, but context1 are not predicted"):
        loo(prediction)
