"""Predictions against draws made and summed by hand."""

import os
import tracemalloc
from dataclasses import replace

import anndata
import numpy as np
import pytest

import distpert
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.model.kernels import kernel_between
from distpert.predictions.blocks import blocks


@pytest.fixture
def mixed(fitted, unseen):
    """In training, unseen, and pairs of these."""
    return fitted.predict(["GENE3", unseen[0], "GENE3+GENE7", f"GENE1+{unseen[1]}"], num_draws=60, progress_bar=False)


@pytest.fixture
def by_context(context_fit):
    return context_fit.predict(["GENE3", "GENE11"], num_draws=60, progress_bar=False)


def shared_draws(prediction):
    """Controls, base, loadings and κ of all genes and contexts, in double precision, block by block."""
    fit, n = prediction.posterior, prediction.num_draws
    slices = [block.genes for block in blocks(1, 1, len(fit.genes))]
    positions = [fit.contexts.index(context) for context in prediction.contexts]
    drawn = [[fit.shared.draw(c, genes, n, prediction.seed) for genes in slices] for c in positions]
    control, base = (
        np.stack([np.concatenate([getattr(d, name) for d in of], axis=1) for of in drawn], axis=1).astype(float)
        for name in ("control", "base")
    )  # (draw, context, gene, bin)
    loading = np.concatenate([d.loading for d in drawn[0]], axis=2).astype(float)
    kappa = np.concatenate([d.concentration for d in drawn[0]], axis=1).astype(float)
    return control, base, loading, kappa


def probabilities(prediction):
    """π of the model's formula in double precision, (draw, perturbation, context, gene, bin)."""
    fit = prediction.posterior
    contexts = [fit.contexts.index(context) for context in prediction.contexts]
    control, base, loading, _ = shared_draws(prediction)
    logits = base[:, None] + np.einsum("dpk,dkgb->dpgb", prediction.response, loading)[:, :, None]
    for p, label in enumerate(prediction.perturbations):
        for gene in label.split("+"):
            if gene in fit.genes:
                g = fit.genes.index(gene)
                tilts = fit.tilts[contexts, g].astype(float)
                logits[:, p, :, g] += np.einsum("dj,cjb->dcb", prediction.on_target[:, p], tilts)
        logits[prediction.inactive[:, p], p] = control[prediction.inactive[:, p]]
    probs = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return probs / probs.sum(axis=-1, keepdims=True)


def posterior_mean(prediction):
    """(κ π + n) / (κ + N), averaged over draws; (perturbation, context, gene, bin)."""
    fit, probs = prediction.posterior, probabilities(prediction)
    kappa = shared_draws(prediction)[-1][..., None]
    for p, label in enumerate(prediction.perturbations):
        for c, context in enumerate(prediction.contexts):
            counts = fit.groups.counts_of(label, context)
            if counts is not None:
                probs[:, p, c] = (kappa * probs[:, p, c] + counts) / (kappa + counts.sum(axis=-1, keepdims=True))
    return probs.mean(axis=0)


def with_context(array, prediction):
    """Values with a context axis after that of perturbations, whether or not there is such a dimension."""
    return array if "context" in array.dims else array.expand_dims("context", array.dims.index("perturbation") + 1)


# ------------------------------------------------------------------------------------------------------------- layout


def test_layout_without_contexts(mixed, fitted):
    histogram, moments, summary = mixed.histogram(), mixed.moments(), mixed.summary()
    assert histogram.dims == ("perturbation", "gene", "bin")
    assert histogram.shape == (4, 12, 15)
    np.testing.assert_array_equal(histogram["bin_left"], fitted.histograms.dataset["bin_left"])
    np.testing.assert_array_equal(histogram["bin_right"], fitted.histograms.dataset["bin_right"])
    assert list(moments) == list(summary) == list(MOMENTS)
    for name in MOMENTS:
        assert moments[name].dims == ("draw", "perturbation", "gene")
        assert moments[name].dtype == np.float32
        assert summary[name].dims == ("statistic", "perturbation", "gene")
    assert summary["statistic"].to_numpy().tolist() == ["median", "lower", "upper"]
    for product in (histogram, moments, summary):
        assert product["perturbation"].to_numpy().tolist() == list(mixed.perturbations)
        assert product["gene"].to_numpy().tolist() == list(fitted.genes)
        assert "context" not in product.coords


def test_layout_with_contexts(by_context):
    assert by_context.histogram().dims == ("perturbation", "context", "gene", "bin")
    assert by_context.histogram("wasserstein").shape == (2, 2, 14, 15)
    assert by_context.moments()["mean"].dims == ("draw", "perturbation", "context", "gene")
    assert by_context.summary()["mean"].dims == ("statistic", "perturbation", "context", "gene")
    assert by_context.histogram_interval().dims == ("statistic", "perturbation", "context", "gene", "bin")
    assert by_context.histogram()["context"].to_numpy().tolist() == ["context0", "context1"]


def test_every_variable_says_what_it_is_in_which_units(by_context, context_fit, context_screen):
    seen = context_fit.predict(["GENE3"], num_draws=5, progress_bar=False)
    check = distpert.predictive_check(seen, context_screen.adata, "kurtosis")
    moments = (by_context.moments(), by_context.moments(n_cells=5), by_context.summary(), context_fit.control_moments())
    for table in moments:
        units = [table[name].attrs["units"] for name in MOMENTS]
        assert units == ["log1p expression", "log1p expression²", "1", "1"]
        assert f"observed {table['kurtosis'].attrs['long_name']}" == check["observed"].attrs["long_name"]
    for histogram in (by_context.histogram(), by_context.histogram("wasserstein"), by_context.histogram_interval()):
        assert histogram.attrs["long_name"] == "probability of the bin"
        assert histogram.attrs["units"] == "1"


def test_one_context_keeps_its_dimension(context_fit, by_context):
    one = context_fit.predict(["GENE3", "GENE11"], context="context1", num_draws=60, progress_bar=False)
    assert one.histogram().dims == ("perturbation", "context", "gene", "bin")
    assert one.histogram().identical(by_context.histogram().sel(context=["context1"]))
    assert one.moments().identical(by_context.moments().sel(context=["context1"]))


def test_repr(mixed, by_context):
    told, of_context = (f"{np.median(each.told):.0%}" for each in (mixed, by_context))
    tail = "embeddings tell {} of the variance of responses (median)"
    start = "Prediction: 4 perturbations (1 in training) × 12 genes, 60 draws; "
    assert repr(mixed) == start + tail.format(told)
    assert repr(by_context).endswith("14 genes, 60 draws, context: context0, context1; " + tail.format(of_context))


def test_told_by_dense_matrices(fitted, unseen, mixed):
    """The variance of each response that is left, given all other perturbations in training."""
    told, learned = mixed.told, fitted.unseen
    assert told.dims == ("perturbation",)
    assert told["perturbation"].to_numpy().tolist() == list(mixed.perturbations)
    assert told.attrs["units"] == "1"
    labels = fitted.perturbations
    kernel = kernel_between(labels, labels, fitted.embeddings, fitted.kernel)
    weight = fitted.factor_weight * learned.size**2
    for p, label in enumerate(mixed.perturbations):
        others = [i for i, other in enumerate(labels) if other != label]
        cross = kernel_between([label], labels, fitted.embeddings, fitted.kernel)[0, others]
        known = []
        for rho in learned.share:
            covariance = rho * kernel[np.ix_(others, others)] + (1 - rho) * np.eye(len(others))
            known.append(rho**2 * cross @ np.linalg.solve(covariance, cross))
        assert float(told[p]) == pytest.approx(np.average(known, weights=weight), abs=1e-3)
    assert float(fitted.predict(unseen, progress_bar=False).told.median()) > 0.8  # the embeddings tell nearly all


@pytest.mark.parametrize("name", ["fitted", "context_fit", "small_fit", "chains"])
def test_told_is_a_share(name, request):
    fit = request.getfixturevalue(name)
    labels = [*fit.perturbations, fit.embeddings.genes[-1], "GENE1+GENE2"]
    told = fit.predict(labels, num_draws=2, progress_bar=False).told
    assert told.shape == (len(labels),)
    assert ((told >= 0) & (told <= 1)).all()


# --------------------------------------------------------------------------------------------------------- histograms


@pytest.mark.parametrize("name", ["mixed", "by_context"])
@pytest.mark.parametrize("loss", ["log", "wasserstein"])
def test_histograms_are_distributions(name, loss, request):
    histogram = request.getfixturevalue(name).histogram(loss)
    assert (histogram >= 0).all()
    np.testing.assert_allclose(histogram.sum("bin"), 1, atol=1e-5)
    if loss == "log":
        assert (histogram > 0).all()


@pytest.mark.parametrize("name", ["mixed", "by_context"])
def test_log_histogram_is_the_posterior_mean(name, request):
    prediction = request.getfixturevalue(name)
    histogram = with_context(prediction.histogram(), prediction)
    np.testing.assert_allclose(histogram, posterior_mean(prediction), rtol=1e-3, atol=1e-6)


def test_log_histogram_is_the_mean_of_the_draws(fitted, unseen, draws_of):
    prediction = fitted.predict(["GENE3", unseen[0]], num_draws=3000, progress_bar=False)
    drawn = draws_of(prediction)[:, :, 0]
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (abs(drawn.mean(axis=0) - prediction.histogram().to_numpy()) < 5.5 * error + 1e-6).all()


@pytest.mark.parametrize("name", ["mixed", "by_context"])
def test_wasserstein_histogram_has_the_median_cdf(name, request, draws_of):
    prediction = request.getfixturevalue(name)
    cdf = with_context(prediction.histogram("wasserstein"), prediction).cumsum("bin")
    median = np.median(draws_of(prediction).astype(float).cumsum(axis=-1), axis=0)
    np.testing.assert_allclose(cdf, median, atol=1e-5)


def test_histogram_interval(mixed, draws_of):
    interval = mixed.histogram_interval(0.8)
    assert interval.dims == ("statistic", "perturbation", "gene", "bin")
    levels = np.quantile(draws_of(mixed)[:, :, 0], [0.5, 0.1, 0.9], axis=0)
    np.testing.assert_allclose(interval, levels, atol=1e-6)
    cells = mixed.histogram_interval(0.8, n_cells=10)
    width, wider = (i.sel(statistic="upper") - i.sel(statistic="lower") for i in (interval, cells))
    assert wider.mean() > width.mean()


def test_unknown_loss(mixed):
    with pytest.raises(ValueError, match=r"loss must be 'log' or 'wasserstein', not 'w1'"):
        mixed.histogram("w1")


# ------------------------------------------------------------------------------------------------------------ moments


@pytest.mark.parametrize("name", ["mixed", "by_context"])
def test_moments_are_those_of_the_draws(name, request, draws_of):
    prediction = request.getfixturevalue(name)
    drawn, centers = draws_of(prediction).astype(float), prediction.posterior.centers.astype(float)
    drawn /= drawn.sum(axis=-1, keepdims=True)
    mean = (drawn * centers).sum(axis=-1)
    deviation = centers - mean[..., None]
    variance = (drawn * deviation**2).sum(axis=-1)
    skewness = (drawn * deviation**3).sum(axis=-1) / variance**1.5
    kurtosis = (drawn * deviation**4).sum(axis=-1) / variance**2 - 3
    moments = prediction.moments()
    for name_, exact in zip(MOMENTS, (mean, variance, skewness, kurtosis), strict=True):
        value = with_context(moments[name_], prediction)
        np.testing.assert_allclose(value, exact, rtol=2e-3, atol=2e-3, err_msg=name_)


@pytest.mark.parametrize("n_cells", [None, 30])
@pytest.mark.parametrize("ci_prob", [0.5, 0.9])
def test_summary_has_the_quantiles_of_the_moments(mixed, n_cells, ci_prob):
    moments, summary = mixed.moments(n_cells=n_cells), mixed.summary(ci_prob, n_cells=n_cells)
    for name in MOMENTS:
        drawn = moments[name]
        if name in ("skewness", "kurtosis"):  # a draw of a single bin has neither
            drawn = drawn.where(moments["variance"] > 0)
        levels = np.nanquantile(drawn, [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2], axis=0)
        np.testing.assert_allclose(summary[name], levels, rtol=1e-5, atol=1e-6)
    assert summary.attrs["ci_prob"] == ci_prob


@pytest.mark.parametrize("ci_prob", [0, 1, -0.1, 90, float("nan")])
def test_levels_out_of_range(mixed, ci_prob):
    with pytest.raises(ValueError, match=r"ci_prob must lie between 0 and 1"):
        mixed.summary(ci_prob)
    with pytest.raises(ValueError, match=r"ci_prob must lie between 0 and 1"):
        mixed.histogram_interval(ci_prob)


def test_few_cells_show_more_spread(mixed):
    exact, many, few = (mixed.moments(n_cells=n) for n in (None, 10**7, 20))
    np.testing.assert_allclose(many["mean"], exact["mean"], atol=5e-3)
    assert (few["mean"].std("draw") > exact["mean"].std("draw")).mean() > 0.95
    # means of 20 cells: Var = E[v]/20 + Var[μ]
    expected = exact["variance"].mean("draw") / 20 + exact["mean"].var("draw")
    assert float((few["mean"].var("draw") / expected).mean()) == pytest.approx(1, abs=0.2)


def test_forms_of_n_cells(fitted, unseen):
    prediction = fitted.predict(["GENE3", unseen[0]], num_draws=10, progress_bar=False)
    own = [prediction.moments(n_cells=n) for n in (5, 50)]
    for given in ({"GENE3": 5, unseen[0]: 50, "other": 0}, [5, 50], np.array([[5], [50]]), np.array([5, 50])):
        moments = prediction.moments(n_cells=given)
        for p in range(2):
            assert moments.isel(perturbation=p).identical(own[p].isel(perturbation=p))
    assert prediction.summary(n_cells=np.int64(5)).identical(prediction.summary(n_cells=5))


def test_n_cells_by_context(by_context):
    cells = np.array([[5, 6], [7, 800]])
    moments = by_context.moments(n_cells=cells)
    for (p, c), n in np.ndenumerate(cells):
        alone = by_context.moments(n_cells=int(n))
        assert moments.isel(perturbation=p, context=c).identical(alone.isel(perturbation=p, context=c))
    by_label = by_context.moments(n_cells={"GENE3": 5, "GENE11": 7})
    assert by_label.identical(by_context.moments(n_cells=[5, 7]))
    assert by_label.identical(by_context.moments(n_cells=[[5, 5], [7, 7]]))


@pytest.mark.parametrize(
    ("n_cells", "error", "message"),
    [
        (0, ValueError, r"n_cells must be at least 1, but the smallest is 0"),
        (-4, ValueError, r"but the smallest is -4"),
        ([5, 5, 0, 5], ValueError, r"but the smallest is 0"),
        (1.5, ValueError, r"n_cells must be whole numbers"),
        (float("nan"), ValueError, r"n_cells must be whole numbers, not nan"),
        ([5, 5, 5, float("inf")], ValueError, r"n_cells must be whole numbers, not inf"),
        ({"GENE3": 5}, KeyError, r"n_cells has no number for .*GENE3\+GENE7"),
    ],
)
def test_bad_n_cells(mixed, n_cells, error, message):
    with pytest.raises(error, match=message):
        mixed.moments(n_cells=n_cells)
    with pytest.raises(error, match=message):
        mixed.summary(n_cells=n_cells)


# ---------------------------------------------------------------------------------------------- what draws depend on


def products(prediction):
    return [prediction.histogram(), prediction.histogram("wasserstein"), prediction.moments(n_cells=9)]


def test_order_of_genes_makes_no_difference(fitted, unseen):
    for pair in (("GENE3", "GENE7"), ("GENE3", unseen[0]), (unseen[1], unseen[0])):
        one, other = (fitted.predict("+".join(genes), num_draws=20, progress_bar=False) for genes in (pair, pair[::-1]))
        for left, right in zip(products(one), products(other), strict=True):
            assert left.identical(right)


def test_company_makes_no_difference(fitted, unseen):
    labels = ["GENE3", unseen[0], "GENE3+GENE7", unseen[1]]
    options = {"num_draws": 20, "progress_bar": False}
    together, backwards = fitted.predict(labels, **options), fitted.predict(labels[::-1], **options)
    np.testing.assert_allclose(backwards.response[:, ::-1], together.response, rtol=1e-5, atol=1e-6)
    for left, right in zip(products(together), products(backwards), strict=True):
        assert left.identical(right.sel(perturbation=left["perturbation"]))
    for label in labels:
        alone = fitted.predict(label, **options)
        for left, right in zip(products(together), products(alone), strict=True):
            assert left.sel(perturbation=[label]).identical(right)


@pytest.mark.parametrize("workers", [1, 7])
def test_threads_make_no_difference(mixed, monkeypatch, workers):
    expected = products(mixed)
    monkeypatch.setattr(os, "cpu_count", lambda: workers)
    monkeypatch.setattr(os, "process_cpu_count", lambda: workers, raising=False)
    for left, right in zip(products(mixed), expected, strict=True):
        assert left.identical(right)


def test_asking_again_gives_the_same(mixed):
    for left, right in zip(products(mixed), products(mixed), strict=True):
        assert left.identical(right)


@pytest.mark.parametrize("block_genes", [1, 5])
def test_blocks_of_genes(mixed, monkeypatch, draws_of, block_genes):
    whole = mixed.histogram()
    monkeypatch.setattr("distpert.predictions.blocks.BLOCK_GENES", block_genes)
    # On-target too. Each block has draws of its own of what all perturbations share, and the same responses.
    np.testing.assert_allclose(mixed.histogram().to_numpy()[:, None], posterior_mean(mixed), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(mixed.histogram(), whole, atol=0.02)
    median = np.median(draws_of(mixed).cumsum(axis=-1), axis=0)
    np.testing.assert_allclose(mixed.histogram("wasserstein").cumsum("bin"), median[:, 0], atol=1e-5)
    moments = mixed.moments()
    assert moments["mean"].shape == (60, 4, 12)
    exact = histogram_moments(draws_of(mixed)[:, :, 0], mixed.posterior.centers)
    for name, value in zip(MOMENTS, exact, strict=True):
        np.testing.assert_allclose(moments[name], value, rtol=1e-4, atol=1e-4)
    assert mixed.sample_cells(3).shape == (12, 12)


def test_blocks_have_random_numbers_of_their_own(fitted, unseen, monkeypatch, draws_of):
    monkeypatch.setattr("distpert.predictions.blocks.BLOCK_GENES", 1)
    drawn = draws_of(fitted.predict(unseen[:2], num_draws=300, progress_bar=False))[:, :, 0, :, 0]
    drawn = np.log(drawn + 1e-9).reshape(300, -1)
    correlation = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert abs(correlation[:12, 12:]).mean() < 0.2  # of two perturbations
    assert correlation.max() < 0.99


def test_probabilities_never_stand_all_at_once(fitted, unseen, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 2, raising=False)
    labels = [*fitted.perturbations, *unseen]
    prediction = fitted.predict(labels, num_draws=400, progress_bar=False)
    fitted.tilts, fitted.centers, fitted.groups.counts_of("GENE1", "all")  # made once, and kept
    everything = 400 * len(labels) * 12 * 15 * 4
    tracemalloc.start()
    try:
        prediction.summary()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < everything / 4


# -------------------------------------------------------------------------------------------------------------- cells


def test_cells_are_drawn_from_the_prediction(fitted, unseen):
    """Pearson's statistic of all perturbations and genes is about its degrees of freedom."""
    prediction = fitted.predict(["GENE3", unseen[0]], num_draws=2000, progress_bar=False)
    cells = prediction.sample_cells(4000)
    probs = prediction.histogram().to_numpy()
    statistic, terms = 0.0, 0
    for p, label in enumerate(prediction.perturbations):
        values = cells[cells.obs["perturbation"] == label].X
        for gene in range(12):
            drawn = abs(values[:, gene, None] - fitted.centers[gene]).argmin(axis=1)
            counts, expected = np.bincount(drawn, minlength=15), 4000 * probs[p, gene]
            large = expected > 5
            statistic += (((counts - expected) ** 2)[large] / (expected * (1 - probs[p, gene]))[large]).sum()
            terms += large.sum()
    # Genes share each cell's draw, and draws their responses, so that the statistic varies more than chi-square.
    assert 0.7 * terms < statistic < 2 * terms


@pytest.mark.parametrize("block_genes", [512, 5])
def test_all_genes_of_a_cell_are_of_one_draw(by_context, monkeypatch, block_genes):
    monkeypatch.setattr("distpert.predictions.blocks.BLOCK_GENES", block_genes)

    def one_bin_each(self, block, n_cells=None):
        return np.repeat(np.eye(15, dtype=np.float32)[:, None], block.genes.stop - block.genes.start, axis=1)

    monkeypatch.setattr(type(by_context), "draw", one_bin_each)
    cells = replace(by_context, response=by_context.response[:15]).sample_cells(40).X
    bins = abs(cells[..., None] - by_context.posterior.centers).argmin(axis=-1)
    assert (bins == bins[:, :1]).all()
    draws = bins[:, 0].reshape(4, 40)
    assert all(len(set(of_group)) > 5 for of_group in draws)
    assert not (draws[0] == draws[1:]).all(axis=1).any()


def test_layout_of_cells(by_context, context_fit):
    cells = by_context.sample_cells(n_cells=30)
    assert isinstance(cells, anndata.AnnData)
    assert cells.shape == (2 * 2 * 30, 14)
    assert cells.X.dtype == np.float32
    assert cells.obs.columns.tolist() == ["perturbation", "context"]
    assert (cells.obs.groupby(["perturbation", "context"], observed=True).size() == 30).all()
    assert cells.var_names.tolist() == list(context_fit.genes)
    assert cells.obs_names.is_unique
    for gene in range(14):
        assert np.isin(cells.X[:, gene], context_fit.centers[gene]).all()
    # The rows are those of their labels: means lie where the moments say.
    means = by_context.moments()["mean"].mean("draw")
    for (label, context), rows in cells.obs.groupby(["perturbation", "context"], observed=True).indices.items():
        difference = cells.X[rows].mean(axis=0) - means.sel(perturbation=label, context=context).to_numpy()
        assert abs(difference).mean() < 0.5


def test_cells_without_contexts(mixed):
    cells = mixed.sample_cells(5)
    assert cells.obs.columns.tolist() == ["perturbation"]
    assert cells.obs["perturbation"].tolist() == np.repeat(mixed.perturbations, 5).tolist()


def test_cells_are_labeled_under_the_key_of_the_fit(small, tmp_path):
    adata = small.adata.copy()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide"})
    fit = distpert.fit(adata, small.embeddings, perturbation_key="guide", progress_bar=False)
    fit.save(tmp_path / "fit.nc")
    label = fit.perturbations[0]
    for one in (fit, distpert.load(tmp_path / "fit.nc")):
        prediction = one.predict(label, num_draws=20, progress_bar=False)
        cells = prediction.sample_cells(5)
        assert cells.obs.columns.tolist() == ["guide"]
        assert prediction.to_datatree(cells)["constant_data"]["n_cells"].item() == 5  # can be read back


def test_cells_are_read_back_with_the_keys_of_the_fit(small):
    adata = small.adata.copy()
    adata.layers["logged"], adata.X = adata.X, np.zeros_like(adata.X)
    adata.var["symbol"], adata.var_names = list(adata.var_names), [f"id{i}" for i in range(adata.n_vars)]
    keys = {"layer": "logged", "gene_symbols": "symbol"}
    fit = distpert.fit(adata, small.embeddings, progress_bar=False, **keys)
    prediction = fit.predict(fit.perturbations[:2], num_draws=20, progress_bar=False)
    cells = prediction.sample_cells(30)
    assert (distpert.score(prediction, cells)["n_cells"] == 30).all()
    counted = distpert.count_histograms(cells, bins=fit.histograms, **keys)
    np.testing.assert_array_equal(cells.X, cells.layers["logged"])
    assert counted.perturbations == prediction.perturbations
    assert counted.dataset["out_of_range"].sum() == 0


def test_seed_of_the_cells(mixed):
    first, again, other = (mixed.sample_cells(20, seed=seed).X for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n_cells", [0, -1])
def test_no_cells_to_draw(mixed, n_cells):
    with pytest.raises(ValueError, match=rf"n_cells must be at least 1, not {n_cells}"):
        mixed.sample_cells(n_cells)
