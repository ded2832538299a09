"""The DataTree of a prediction against numpy and scipy."""

import warnings

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import dirichlet_multinomial, kurtosis, multivariate_normal, norm, skew

import distpert
from distpert.histograms.moments import MOMENTS
from distpert.model.kernels import kernel_between

_CONCENTRATION = ("typical_log_concentration", "log_concentration_spread")
GROUPS = ("posterior", "posterior_predictive", "log_prior", "constant_data")


@pytest.fixture(scope="module")
def prediction(fitted):
    return fitted.predict(["GENE3", "GENE11"], num_draws=20, progress_bar=False)


@pytest.fixture(scope="module")
def tree(prediction, screen):
    return prediction.to_datatree(screen.adata)


@pytest.fixture(scope="module")
def context_tree(context_fit, context_screen):
    return context_fit.predict(["GENE3", "GENE7"], num_draws=20, progress_bar=False).to_datatree(context_screen.adata)


def test_groups_without_data(prediction):
    tree = prediction.to_datatree()
    assert set(tree.children) == set(GROUPS)
    moments = prediction.moments()
    for name in moments:
        np.testing.assert_array_equal(tree["posterior_predictive"][name].isel(chain=0), moments[name])


def test_layout(tree, fitted, prediction):
    assert set(tree.children) == {*GROUPS, "observed_data", "log_likelihood"}
    posterior = tree["posterior"]
    assert posterior["response"].dims == ("chain", "draw", "perturbation", "factor")
    assert posterior["on_target"].dims == ("chain", "draw", "perturbation", "tilt")
    assert posterior["inactive"].dims == ("chain", "draw", "perturbation")
    assert posterior["concentration"].dims == ("chain", "draw", "gene")
    assert set(posterior.data_vars) == {"response", "on_target", "inactive", "concentration"}
    assert tree["constant_data"]["explained_share"].dims == ("factor",)
    assert set(tree["log_prior"].data_vars) == {"response", "on_target", "concentration"}
    assert tree["posterior_predictive"]["mean"].dims == ("chain", "draw", "perturbation", "gene")
    assert tree["constant_data"]["counts"].dims == ("perturbation", "gene", "bin")
    assert tree["observed_data"]["mean"].dims == ("perturbation", "gene")
    assert tree["log_likelihood"]["counts"].dims == ("chain", "draw", "perturbation", "gene")
    assert tree["constant_data"]["n_cells"].to_series().to_dict() == {"GENE3": 300, "GENE11": 300}
    np.testing.assert_array_equal(tree["constant_data"]["bin_left"], fitted.histograms.dataset["bin_left"])
    np.testing.assert_array_equal(posterior["response"].isel(chain=0), prediction.response)
    for group in ("posterior", "posterior_predictive", "log_likelihood"):
        assert tree[group]["chain"].to_numpy().tolist() == [0]
        assert tree[group]["draw"].to_numpy().tolist() == list(range(20))
        assert tree[group]["perturbation"].to_numpy().tolist() == ["GENE3", "GENE11"]
    kappa = fitted.shared.draw(0, slice(0, 12), 20, 0).concentration
    np.testing.assert_array_equal(posterior["concentration"].isel(chain=0), kappa)
    np.testing.assert_array_equal(posterior["inactive"].isel(chain=0), prediction.inactive)
    np.testing.assert_array_equal(tree["constant_data"]["explained_share"], fitted.parameters["explained_share"])


def test_layout_with_contexts(context_tree):
    dims = ("perturbation", "context", "gene")
    assert context_tree["posterior_predictive"]["mean"].dims == ("chain", "draw", *dims)
    assert context_tree["log_likelihood"]["counts"].dims == ("chain", "draw", *dims)
    assert context_tree["constant_data"]["counts"].dims == (*dims, "bin")
    assert context_tree["constant_data"]["n_cells"].dims == ("perturbation", "context")
    assert (context_tree["constant_data"]["n_cells"] == 60).all()
    assert context_tree["posterior"]["response"].dims == ("chain", "draw", "perturbation", "factor")


def cells_of(adata, label, context=None):
    chosen = adata.obs["perturbation"] == label
    return adata.X[chosen if context is None else chosen & (adata.obs["context"] == context)]


def test_each_variable_says_what_it_is(context_fit, context_screen):
    labels = ["GENE3", "GENE7"]
    prior = context_fit.prior_predictive(labels, num_draws=5, progress_bar=False)
    prediction = context_fit.predict(labels, num_draws=5, progress_bar=False)
    for tree in (prediction.to_datatree(), prediction.to_datatree(context_screen.adata, prior=prior)):
        for group in tree.children.values():
            names = [(variable.attrs["long_name"], variable.attrs["units"]) for variable in group.data_vars.values()]
            assert len({long_name for long_name, _ in names}) == len(names) > 0
            assert all(long_name and units for long_name, units in names)
    assert tree["log_likelihood"]["counts"].attrs["units"] == "nats"
    assert tree["posterior_predictive"]["mean"].attrs["long_name"] == "mean"
    assert prediction.moments()["mean"].attrs["long_name"] == "mean"


def test_what_the_fit_has_seen(context_fit, context_screen):
    unseen = "GENE0+GENE1"
    assert unseen not in context_fit.perturbations
    tree = context_fit.predict([unseen, "GENE3"], num_draws=5, seed=7, progress_bar=False).to_datatree()
    assert tree["constant_data"]["in_training"].to_series().to_dict() == {"GENE0+GENE1": False, "GENE3": True}
    assert tree.attrs["inference_library"] == "distpert" and tree.attrs["seed"] == 7


def test_log_likelihood_takes_counts_of_what_is_predicted(tree, prediction):
    counts = tree["constant_data"]["counts"]
    found = prediction.log_likelihood(counts)
    np.testing.assert_array_equal(found, tree["log_likelihood"]["counts"][0])
    assert found.attrs["units"] == "nats"
    wrong = [
        (counts / 60, ValueError, "whole and at least 0"),
        (counts - 100, ValueError, "whole and at least 0"),
        (counts.isel(bin=slice(9)), ValueError, "counts have 9 bins, the fit has 15"),
        (counts.isel(gene=0), ValueError, "must have the dimensions bin, gene, perturbation"),
        (counts.drop_vars("gene"), KeyError, "counts have no gene GENE0"),
        (counts.isel(perturbation=[0]), KeyError, "counts have no perturbation GENE11, which is predicted"),
    ]
    for given, error, message in wrong:
        with pytest.raises(error, match=message):
            prediction.log_likelihood(given)


def test_observed_data_are_the_cells(tree, screen, fitted):
    """Simulated values are bin centers, so that binning changes nothing."""
    for label in ("GENE3", "GENE11"):
        cells = cells_of(screen.adata, label).astype(float)
        observed = tree["observed_data"].to_dataset().sel(perturbation=label)
        for gene in range(12):
            nearest = abs(cells[:, gene, None] - fitted.centers[gene]).argmin(axis=1)
            counts = tree["constant_data"]["counts"].sel(perturbation=label)[gene]
            np.testing.assert_array_equal(counts, np.bincount(nearest, minlength=15))
        np.testing.assert_allclose(observed["mean"], cells.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(observed["variance"], cells.var(axis=0), rtol=1e-4)
        vary = np.ptp(cells, axis=0) > 0  # a point has no shape: scipy gives NaN
        assert vary.sum() > 8
        np.testing.assert_allclose(observed["skewness"][vary], skew(cells[:, vary]), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(observed["kurtosis"][vary], kurtosis(cells[:, vary]), rtol=1e-3, atol=1e-4)
        assert (observed["skewness"][~vary] == 0).all()
        assert (observed["kurtosis"][~vary] == 0).all()


def test_replicates_with_the_cells_that_were_observed_have_the_same_moments(screen, fitted):
    """To the last bit: ranks of observations among replicates would be broken by rounding."""
    (of_label,) = np.nonzero(screen.adata.obs["perturbation"] == "GENE3")
    tree = fitted.predict("GENE3", num_draws=20, progress_bar=False).to_datatree(screen.adata[of_label[:2]])
    observed, replicates = tree["observed_data"].to_dataset(), tree["posterior_predictive"].to_dataset()
    # Mean and variance of two cells say which bins they are in.
    same = [abs(replicates[name] - observed[name]) < 1e-5 * (1 + observed[name]) for name in ("mean", "variance")]
    same = (same[0] & same[1]).to_numpy()
    assert 10 < same.sum() < same.size
    for name in ("mean", "variance", "skewness", "kurtosis"):
        equal = (replicates[name] == observed[name]).to_numpy()
        assert equal[same].all()


def test_observed_data_by_context(context_tree, context_screen):
    for label in ("GENE3", "GENE7"):
        for context in ("context0", "context1"):
            mean = context_tree["observed_data"]["mean"].sel(perturbation=label, context=context)
            cells = cells_of(context_screen.adata, label, context)
            np.testing.assert_allclose(mean, cells.mean(axis=0, dtype=float), rtol=1e-5, atol=1e-6)


def test_log_likelihood_is_that_of_the_dirichlet_multinomial(tree, fitted, prediction):
    """Without the multinomial coefficient, a constant of the data."""
    shared = fitted.shared.draw(0, slice(0, 12), 20, 0)
    for draw in (0, 13):
        for p, label in enumerate(prediction.perturbations):
            assert not prediction.inactive[draw, p]
            logits = shared.base[draw].astype(float)
            logits = logits + np.tensordot(prediction.response[draw, p].astype(float), shared.loading[draw], axes=1)
            for gene in fitted.targets(label):
                logits[gene] += prediction.on_target[draw, p] @ fitted.tilts[0, gene]
            for gene in range(12):
                counts = tree["constant_data"]["counts"].to_numpy()[p, gene]
                alpha = np.exp(logits[gene] - logits[gene].max())
                alpha *= shared.concentration[draw, gene] / alpha.sum()
                exact = dirichlet_multinomial.logpmf(counts, alpha, counts.sum())
                exact -= gammaln(counts.sum() + 1) - gammaln(counts + 1).sum()
                value = float(tree["log_likelihood"]["counts"][0, draw, p, gene])
                assert value == pytest.approx(exact, rel=1e-4, abs=1e-2)


def test_log_prior_by_scipy(context_fit):
    """Of responses under the kernel between what is predicted, of tilts, and of concentrations of genes."""
    labels = ["GENE3", "GENE11", "GENE3+GENE7"]
    prediction = context_fit.predict(labels, num_draws=5, progress_bar=False)
    tree, parameters = prediction.to_datatree(), context_fit.parameters
    found = tree["log_prior"].to_dataset().isel(chain=0)
    matrix = kernel_between(labels, labels, context_fit.embeddings, context_fit.kernel)
    share = parameters["explained_share"].to_numpy().astype(float)
    kappa = context_fit.shared.draw(0, slice(0, 14), 5, 0).concentration
    for draw in range(5):
        response = sum(
            multivariate_normal.logpdf(prediction.response[draw, :, k], cov=rho * matrix + (1 - rho) * np.eye(3))
            for k, rho in enumerate(share)
        )
        assert float(found["response"][draw]) == pytest.approx(response, rel=1e-4)
        tilts = norm.logpdf(prediction.on_target[draw], parameters["tilt_mean"], parameters["tilt_scale"]).sum(axis=1)
        np.testing.assert_allclose(found["on_target"][draw], tilts, rtol=1e-4)
        typical, spread = (float(parameters[f"{name}"]) for name in _CONCENTRATION)
        np.testing.assert_allclose(
            found["concentration"][draw], norm.logpdf(np.log(kappa[draw]), typical, spread), rtol=1e-4
        )


def test_chains_stay_apart(sampled):
    prediction = sampled.predict(["GENE3", "GENE11"], num_draws=6, progress_bar=False)
    tree = prediction.to_datatree()
    for group in ("posterior", "posterior_predictive", "log_prior"):
        assert (tree[group].sizes["chain"], tree[group].sizes["draw"]) == (3, 2)
    np.testing.assert_array_equal(tree["posterior"]["response"], prediction.response.reshape(3, 2, 2, -1))
    moments = prediction.moments()["mean"].to_numpy()
    np.testing.assert_array_equal(tree["posterior_predictive"]["mean"], moments.reshape(3, 2, *moments.shape[1:]))


def test_predictive_moments_are_of_as_many_cells(tree, prediction):
    moments = prediction.moments(n_cells=300)
    np.testing.assert_array_equal(tree["posterior_predictive"]["variance"].isel(chain=0), moments["variance"])


def test_moments_of_the_distributions_are_beside_those_of_replicates(tree, prediction):
    assert set(tree["posterior_predictive"].data_vars) == {*MOMENTS, *(f"distribution_{name}" for name in MOMENTS)}
    moments = prediction.moments()
    for name in MOMENTS:
        found = tree["posterior_predictive"][f"distribution_{name}"].isel(chain=0)
        np.testing.assert_array_equal(found, moments[name])
    # Means of 300 cells vary about those of the distributions they are drawn from, by the error of a mean.
    mean, distribution = (tree["posterior_predictive"][name] for name in ("mean", "distribution_mean"))
    variance = tree["posterior_predictive"]["distribution_variance"]
    usable = (variance > 1e-4).to_numpy()
    error = ((mean - distribution) / np.sqrt(variance / 300)).to_numpy()[usable]
    assert error.size > 200
    assert np.mean(error**2) == pytest.approx(1, abs=0.2)


def test_prior_is_laid_out_as_the_posterior(context_fit, context_screen):
    prediction = context_fit.predict(["GENE3", "GENE7"], context="context1", num_draws=20, progress_bar=False)
    prior = context_fit.prior_predictive(["GENE3", "GENE7"], context="context1", num_draws=30, progress_bar=False)
    plain, tree = prediction.to_datatree(), prediction.to_datatree(context_screen.adata, prior=prior)
    assert set(tree.children) == {*GROUPS, "observed_data", "log_likelihood", "prior", "prior_predictive"}
    assert "prior" not in plain.children
    for before, after in (("prior", "posterior"), ("prior_predictive", "posterior_predictive")):
        points = {"explained_share"} if before == "prior" else set()  # of the posterior, not drawn
        drawn = set(tree[after].data_vars) - {"inactive"}  # in the prior, all do something
        assert set(tree[before].data_vars) == drawn | points
        assert points <= set(tree["constant_data"].data_vars)
        for name in drawn:
            one, other = (tree[group][name].isel(chain=0, draw=0) for group in (before, after))
            assert tree[before][name].dims[:2] == ("chain", "draw")
            assert dict(one.sizes) == dict(other.sizes), name
            assert one.dims == other.dims, name
        assert (tree[before].sizes["chain"], tree[before].sizes["draw"]) == (1, 30)
    sites = prior.sites
    response = tree["prior"]["response"].isel(chain=0).sel(perturbation="GENE7")
    np.testing.assert_array_equal(response, sites["response"][..., 1])
    np.testing.assert_array_equal(tree["prior"]["concentration"][0], np.exp(sites["log_concentration"]))
    np.testing.assert_array_equal(tree["prior"]["explained_share"][0], sites["explained_share"])
    moments = prior.moments(n_cells=60)  # as many as were observed
    np.testing.assert_array_equal(tree["prior_predictive"]["variance"].isel(chain=0), moments["variance"])


def test_prior_of_something_else_is_refused(context_fit):
    prediction = context_fit.predict(["GENE3", "GENE7"], num_draws=5, progress_bar=False)
    for perturbations, context in [(["GENE7", "GENE3"], None), (["GENE3", "GENE7"], "context0")]:
        prior = context_fit.prior_predictive(perturbations, context=context, num_draws=5, progress_bar=False)
        with pytest.raises(ValueError, match="prior is of other perturbations, contexts or genes"):
            prediction.to_datatree(prior=prior)


def test_counted_histograms_do_as_well(tree, prediction, screen, fitted):
    held_out = screen.adata[screen.adata.obs["perturbation"].isin(["GENE3", "GENE11"])].copy()
    for data in (held_out, distpert.count_histograms(held_out, bins=fitted.histograms), fitted.histograms):
        other = prediction.to_datatree(data)
        for group in tree.children:
            assert other[group].to_dataset().identical(tree[group].to_dataset()), group


def test_other_bins_are_refused(prediction, screen):
    with pytest.raises(
        ValueError, match=r"other bins than the training\. .*count_histograms\(adata, bins=prediction.training"
    ):
        prediction.to_datatree(distpert.count_histograms(screen.adata, n_bins=9))


def test_missing_cells_are_refused(fitted, unseen, screen, context_fit, context_screen):
    prediction = fitted.predict(["GENE3", unseen[0]], num_draws=5, progress_bar=False)
    with pytest.raises(ValueError, match=rf"no cells of {unseen[0]} to compare with; .* Predict only perturbations"):
        prediction.to_datatree(screen.adata)
    adata = context_screen.adata
    part = adata[~((adata.obs["perturbation"] == "GENE3") & (adata.obs["context"] == "context1"))].copy()
    prediction = context_fit.predict("GENE3", context="context1", num_draws=5, progress_bar=False)
    with pytest.raises(ValueError, match=r"no cells of GENE3 to compare with in .* 'context', context1; .*context="):
        prediction.to_datatree(part)
    chosen = context_fit.predict("GENE3", context="context0", num_draws=5, progress_bar=False).to_datatree(part)
    assert chosen["observed_data"]["context"].to_numpy().tolist() == ["context0"]


@pytest.fixture(scope="module")
def uneven(context_screen):
    """Cells of GENE3 in one of two contexts, those of GENE7 in both."""
    obs = context_screen.adata.obs
    return context_screen.adata[~((obs["perturbation"] == "GENE3") & (obs["context"] == "context1"))].copy()


@pytest.mark.parametrize("seen", [False, True])
def test_groups_without_cells_are_missing_values_as_in_scores(context_fit, context_screen, uneven, seen):
    """Whether or not the fit has seen cells of the group; all other groups are as they are without it."""
    fit = context_fit
    if not seen:
        short = distpert.Optimization(max_epochs=1, min_steps=1)
        options = {"context_key": "context", "optimization": short, "progress_bar": False}
        fit = distpert.fit(uneven, context_screen.embeddings, **options)
        assert fit.groups.counts_of("GENE3", "context1") is None
    labels, options = ["GENE3", "GENE7"], {"num_draws": 20, "progress_bar": False}
    prediction = fit.predict(labels, **options)
    prior = fit.prior_predictive(labels, **options)
    tree = prediction.to_datatree(uneven, prior=prior)
    check = distpert.predictive_check(prediction, uneven, "mean")
    with pytest.warns(UserWarning, match="the cells of .*GENE7 are training cells"):
        table = distpert.score(prediction, uneven)
    missing = {"perturbation": "GENE3", "context": "context1"}
    replicates = [tree[group].to_dataset()[list(MOMENTS)] for group in ("posterior_predictive", "prior_predictive")]
    found = [tree["observed_data"].to_dataset(), *replicates, tree["log_likelihood"].to_dataset()]
    found += [check[["replicated", "observed", "p_value"]], table.drop_vars("n_cells")]
    for dataset in found:
        array = dataset.to_array()
        assert array.sel(missing).isnull().all()
        assert not array.sel(perturbation="GENE7").isnull().any()
        assert not array.sel(perturbation="GENE3", context="context0").isnull().any()
    for dataset in (tree["constant_data"], check, table):
        assert dataset["n_cells"].sel(perturbation="GENE3").to_series().to_dict() == {"context0": 60, "context1": 0}
    assert (tree["constant_data"]["counts"].sel(missing) == 0).all()
    for group in ("posterior_predictive", "prior_predictive"):  # a distribution needs no cells
        assert np.isfinite(tree[group]["distribution_mean"]).all()
    # What is there is what it is without the group that is not.
    alone = fit.predict(labels, context="context0", **options)
    others = alone.to_datatree(uneven)
    for group in ("observed_data", "posterior_predictive", "log_likelihood"):
        assert tree[group].to_dataset().sel(context=["context0"]).identical(others[group].to_dataset())
    assert check.sel(context=["context0"]).identical(distpert.predictive_check(alone, uneven, "mean"))


def test_columns_are_those_of_the_fit(small, small_fit):
    adata = small.adata.copy()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide"})
    adata.layers["log"], adata.X = adata.X, np.zeros(adata.shape, np.float32)
    fit = distpert.fit(adata, small.embeddings, perturbation_key="guide", layer="log", progress_bar=False)
    tree = fit.predict("GENE2", num_draws=5, progress_bar=False).to_datatree(adata)
    counts = small_fit.groups.counts_of("GENE2", "all")
    np.testing.assert_array_equal(tree["constant_data"]["counts"].isel(perturbation=0), counts)


def test_arviz_reads_the_posterior(tree, prediction):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what arviz and its dependencies say is not ours
        import arviz as az

        given = tree if hasattr(az, "convert_to_datatree") else tree["posterior"].to_dataset()
        summary = az.summary(given, var_names=["response"], kind="stats")
    means = prediction.response.mean(axis=0)
    assert len(summary) == means.size
    assert float(summary["mean"].iloc[0]) == pytest.approx(float(means[0, 0]), abs=0.06)
