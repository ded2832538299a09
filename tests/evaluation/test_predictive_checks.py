"""Whether what was observed looks like what is replicated."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import distpert
from distpert.baselines import BASELINES, MeanPrediction
from distpert.evaluation.predictive_checks import posterior_p_value
from distpert.plots import plot_predictive_check


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def prediction(small_fit):
    return small_fit.predict(small_fit.perturbations, num_draws=100, progress_bar=False)


@pytest.fixture(scope="module")
def check(prediction, small):
    return distpert.predictive_check(prediction, small.adata, "variance")


def test_p_values_by_hand():
    replicated = np.array([[1.0, 0.0, np.nan], [2.0, 0.0, np.nan], [3.0, 1.0, np.nan], [np.nan, 1.0, np.nan]])
    observed = np.array([2.0, 0.0, 1.0])
    np.testing.assert_allclose(posterior_p_value(replicated, observed), [(1 + 0.5) / 3, (2 + 1) / 4, np.nan])
    assert np.isnan(posterior_p_value(replicated[:, 0], np.nan))


def test_p_values_of_statistics_without_bounds():
    """A monotone transform, also to infinity, changes nothing."""
    inf = np.inf
    np.testing.assert_array_equal(posterior_p_value([[-inf], [1], [2], [3]], [0]), [0.75])
    np.testing.assert_array_equal(posterior_p_value([[inf], [1], [2], [3]], [inf]), [0.125])
    np.testing.assert_array_equal(posterior_p_value([[-inf], [-inf], [2], [inf]], [-inf]), [0.75])
    np.testing.assert_array_equal(posterior_p_value([[1e6], [1], [2], [3]], [2.5]), [0.5])
    rng = np.random.default_rng(0)
    shares = rng.binomial(5, 0.4, (50, 8)) / 5
    with np.errstate(divide="ignore"):
        log_odds = np.log(shares / (1 - shares))
    assert np.isinf(log_odds[0]).any()
    expected = posterior_p_value(shares[1:], shares[0])
    np.testing.assert_array_equal(posterior_p_value(log_odds[1:], log_odds[0]), expected)


def test_replicates_are_those_of_the_tree(check, prediction, small):
    tree = prediction.to_datatree(small.adata)
    replicated = tree["posterior_predictive"]["variance"].isel(chain=0)
    xr.testing.assert_allclose(check["replicated"].drop_attrs(), replicated.drop_vars("chain").drop_attrs(), rtol=1e-5)
    np.testing.assert_allclose(check["observed"], tree["observed_data"]["variance"], rtol=1e-4, atol=1e-6)
    above = (check["replicated"] > check["observed"]).mean("draw")
    tied = (check["replicated"] == check["observed"]).mean("draw")
    np.testing.assert_allclose(check["p_value"], above + tied / 2, atol=0.02)


def test_zero_fraction_is_that_of_the_cells(prediction, small):
    check = distpert.predictive_check(prediction, small.adata, "zero_fraction", genes=["GENE3", "GENE1"])
    assert check["gene"].to_numpy().tolist() == ["GENE3", "GENE1"]
    histograms = prediction.training
    edges = histograms.dataset.sel(gene=["GENE3", "GENE1"])
    for label in prediction.perturbations:
        cells = small.adata[(small.adata.obs["perturbation"] == label).to_numpy(), ["GENE3", "GENE1"]].X
        for g in range(2):
            left, right = edges["bin_left"].to_numpy()[g], edges["bin_right"].to_numpy()[g]
            holds = np.flatnonzero((left <= 0) & (right > 0))
            low, high = (left[holds[0]], right[holds[0]]) if holds.size else (np.inf, np.inf)
            share = np.mean((cells[:, g] >= low) & (cells[:, g] < high))
            assert float(check["observed"].sel(perturbation=label)[g]) == pytest.approx(share, abs=1e-6)


def test_functions_of_ones_own(prediction, small):
    by_name = distpert.predictive_check(prediction, small.adata, "mean")
    by_function = distpert.predictive_check(prediction, small.adata, lambda probs, x: (probs * x).sum(axis=-1))
    np.testing.assert_allclose(by_function["replicated"], by_name["replicated"], rtol=1e-5)
    with pytest.raises(ValueError, match="one value for each histogram"):
        distpert.predictive_check(prediction, small.adata, lambda probs, x: probs)


def test_baselines_vary_by_the_sampling_of_cells_alone(small, prediction):
    histograms = distpert.count_histograms(small.adata)
    fitted = BASELINES["pooled"]().fit(histograms, distpert.embeddings.sources.as_embeddings(small.embeddings), seed=0)
    baseline = fitted.predict(list(prediction.perturbations))
    check = distpert.predictive_check(baseline, small.adata, "mean")
    replicated = baseline.moments(n_cells=check["n_cells"])["mean"]
    np.testing.assert_allclose(check["replicated"], replicated, rtol=1e-5, atol=1e-6)  # the very same
    variance = baseline.moments()["variance"] / check["n_cells"]
    assert float((check["replicated"].var("draw") / variance).mean()) == pytest.approx(1, abs=0.1)


def test_means_alone_have_nothing_to_replicate(small, prediction):
    means = prediction.moments()["mean"].mean("draw").to_numpy()[:, None]
    baseline = MeanPrediction(prediction.training, prediction.perturbations, ["all"], means)
    with pytest.raises(ValueError, match="means alone: there are no histograms to draw from"):
        distpert.predictive_check(baseline, small.adata)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"statistic": "mood"}, KeyError, "mood"),
        ({"statistic": 3}, TypeError, "statistic"),
        ({"genes": "GENE99"}, KeyError, "GENE99"),
        ({"genes": []}, ValueError, "genes is empty"),
    ],
)
def test_bad_requests_are_refused(prediction, small, options, error, message):
    with pytest.raises(error, match=message):
        distpert.predictive_check(prediction, small.adata, **options)


def test_the_plot_shows_the_observed_value_and_the_prior(check, prediction, small_fit, small):
    label = prediction.perturbations[0]
    prior = small_fit.prior_predictive(prediction.perturbations, num_draws=50, progress_bar=False)
    before = distpert.predictive_check(prior, small.adata, "variance")
    ax = plot_predictive_check(check, prior=before, perturbation=label, gene="GENE1")
    observed = float(check["observed"].sel(perturbation=label, gene="GENE1"))
    assert ax.lines[0].get_xdata()[0] == pytest.approx(observed)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["prior", "posterior"]
    assert texts[2].startswith("observed, p = ")
    assert ax.get_title() == f"GENE1: {label}"
    own = plot_predictive_check(before, perturbation=label, gene="GENE1")
    assert own.get_legend().get_texts()[0].get_text() == "prior"
    beyond = check.assign(observed=check["observed"] + 1e6)
    texts = plot_predictive_check(beyond, perturbation=label, gene="GENE1").get_legend().get_texts()
    assert texts[-1].get_text() == "observed, p < 0.01"
    over_genes = plot_predictive_check(check, perturbation=label)
    expected = float(check["observed"].sel(perturbation=label).mean())
    assert over_genes.lines[0].get_xdata()[0] == pytest.approx(expected, rel=1e-3)
    with pytest.raises(KeyError, match="several perturbations, choose one with perturbation="):
        plot_predictive_check(check)
    with pytest.raises(KeyError, match="'gene2' is not among the predicted perturbations; nearest: GENE2"):
        plot_predictive_check(check, perturbation="gene2")
    with pytest.raises(ValueError, match="the prior is of the"):
        other = distpert.predictive_check(prediction, small.adata, "mean")
        plot_predictive_check(check, prior=other, perturbation=label)


def test_genes_of_a_pair_are_plotted_in_any_order(small_fit, small):
    adata = small.adata.copy()
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("GENE2", "GENE0+GENE1")
    prediction = small_fit.predict(["GENE3", "GENE0+GENE1"], num_draws=20, progress_bar=False)
    check = distpert.predictive_check(prediction, adata, "mean")
    lines = [plot_predictive_check(check, perturbation=label).lines[0] for label in ("GENE0+GENE1", "GENE1+GENE0")]
    assert lines[0].get_xdata() == lines[1].get_xdata()
    plot_predictive_check(check, perturbation="ctrl+GENE3")
