"""`fit`: what it takes, what it refuses, and whether it finds the truth of a simulated screen."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix
from scipy.special import log_softmax

import distpert
from distpert.histograms.moments import MOMENTS, histogram_moments
from distpert.model import kernel_choice, warm_start
from distpert.model.generative import SITES
from distpert.model.likelihood import dirichlet_categorical_log_prob
from distpert.model.sampling import Chains


def refit(adata, embeddings, **options):
    return distpert.fit(adata, embeddings, **{"progress_bar": False, **options})


def assert_same(fit, other):
    """Bit by bit, but for the time it took."""
    assert fit.histograms.dataset.equals(other.histograms.dataset)
    assert fit.parameters.identical(other.parameters)
    np.testing.assert_array_equal(fit.loss, other.loss)
    assert fit.kernel == other.kernel
    assert fit.explained_share == other.explained_share


# ---------------------------------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize("layout", [np.asarray, csr_matrix, csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layout_and_precision_make_no_difference(small, small_fit, layout, dtype):
    adata = anndata.AnnData(layout(small.adata.X.astype(dtype)), obs=small.adata.obs, var=small.adata.var)
    assert_same(refit(adata, small.embeddings), small_fit)


def test_layer(small, small_fit):
    adata = small.adata.copy()
    adata.layers["log"], adata.X = adata.X, np.zeros(adata.shape, np.float32)
    assert_same(refit(adata, small.embeddings, layer="log"), small_fit)


def test_gene_symbols(small, small_fit):
    adata = small.adata.copy()
    adata.var["symbol"] = adata.var_names
    adata.var_names = [f"ENSG{i}" for i in range(adata.n_vars)]
    assert_same(refit(adata, small.embeddings, gene_symbols="symbol"), small_fit)


def test_forms_of_embeddings(small, small_fit):
    adata = small.adata.copy()
    adata.uns["table"] = small.embeddings
    adata.uns["vectors"] = vectors = {gene: row.to_numpy() for gene, row in small.embeddings.iterrows()}
    forms = [vectors, "table", "vectors", [small.embeddings], ("table",), small_fit.embeddings]
    for embeddings in forms:
        assert_same(refit(adata, embeddings), small_fit)


def test_sources_lie_side_by_side(small):
    first, second = small.embeddings[["0"]], small.embeddings[["1"]] * 100
    fit = refit(small.adata, [first, second])
    assert fit.embeddings.source_dims == (1, 1)
    assert_same(refit(small.adata, [first * 8, second]), fit)  # the scale of a source is taken out


def test_counted_histograms(small, small_fit):
    histograms = distpert.count_histograms(small.adata)
    fit = refit(histograms, small.embeddings)
    assert_same(fit, small_fit)
    assert fit.histograms is histograms


def test_counted_histograms_with_contexts(context_screen, context_fit):
    histograms = distpert.count_histograms(context_screen.adata, context_key="context")
    assert_same(refit(histograms, context_screen.embeddings), context_fit)


def test_order_of_the_cells_makes_no_difference(small, small_fit):
    order = np.random.default_rng(0).permutation(small.adata.n_obs)
    assert_same(refit(small.adata[order].copy(), small.embeddings), small_fit)


def test_seed(small, small_fit):
    again, other = refit(small.adata, small.embeddings), refit(small.adata, small.embeddings, seed=1)
    assert_same(again, small_fit)
    assert other.histograms.dataset.identical(small_fit.histograms.dataset)
    assert not np.array_equal(other.parameters["response"], small_fit.parameters["response"])


def test_labels_are_read_as_the_field_writes_them(small, small_fit):
    adata = small.adata.copy()
    labels = adata.obs["perturbation"].astype(str)
    names = {"control": "ctrl", "GENE0": "GENE0+ctrl", "GENE1": "ctrl+GENE1"}
    adata.obs = pd.DataFrame({"guide": labels.replace(names)})
    fit = refit(adata, small.embeddings, perturbation_key="guide")
    assert fit.histograms.control == "ctrl"
    assert fit.perturbations == small_fit.perturbations
    assert fit.parameters.identical(small_fit.parameters)


def test_input_is_left_as_it_is(small):
    adata, embeddings = small.adata.copy(), small.embeddings.copy()
    refit(adata, embeddings)
    np.testing.assert_array_equal(adata.X, small.adata.X)
    assert adata.obs.equals(small.adata.obs)
    assert not adata.uns
    assert embeddings.equals(small.embeddings)


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "given"), [(None, 5), (1, 1), (100, 5)])
def test_number_of_factors(small, asked, given):
    fit = refit(small.adata, small.embeddings, n_factors=asked)
    assert fit.parameters.sizes["factor"] == given


@pytest.mark.slow
def test_number_of_bins(small):
    fit = refit(small.adata, small.embeddings, n_bins=4)
    assert fit.histograms.n_bins == 4
    assert fit.parameters["loading"].sizes["bin"] == 4


def test_pairs_in_training(small):
    adata = small.adata.copy()
    labels = adata.obs["perturbation"].astype(str)
    labels[labels == "GENE5"] = "GENE1+GENE0"
    adata.obs["perturbation"] = labels
    fit = refit(adata, small.embeddings)
    assert "GENE0+GENE1" in fit.perturbations
    assert fit.predict("GENE1+GENE0", progress_bar=False).perturbations == ("GENE0+GENE1",)


# ---------------------------------------------------------------------------------------------- does it find the truth


@pytest.fixture(scope="module")
def truth(screen):
    return screen.truth["histogram"].isel(context=0)


def cramer(fit, predicted, truth):
    """Mean over perturbations and genes of w Σ (F − F')²."""
    difference = np.cumsum(np.asarray(predicted), axis=-1) - np.cumsum(np.asarray(truth), axis=-1)
    return float((fit.histograms.widths.to_numpy() * (difference**2).sum(axis=-1)).mean())


def observed_histograms(fit):
    groups = fit.histograms.dataset.isel(group=slice(1, None))
    return groups["counts"].to_numpy() / groups["n_cells"].to_numpy()[:, None, None]


def test_unseen_perturbations_are_predicted(fitted, unseen, truth):
    wanted = truth.sel(perturbation=unseen)
    control, observed = np.exp(fitted.log_control[0]), observed_histograms(fitted)
    prediction = fitted.predict(unseen, progress_bar=False)
    error = cramer(fitted, prediction.histogram(), wanted)
    assert error < 0.1 * cramer(fitted, control, wanted)
    assert error < 0.5 * cramer(fitted, observed.mean(axis=0), wanted)
    assert cramer(fitted, prediction.histogram("wasserstein"), wanted) < 1.2 * error


def test_training_perturbations_are_sharpened(fitted, unseen, truth):
    """Their own cells are used, and what the others tell besides."""
    seen = list(fitted.perturbations)
    wanted, observed = truth.sel(perturbation=seen).to_numpy(), observed_histograms(fitted)
    predicted = fitted.predict(seen, progress_bar=False).histogram().to_numpy()
    assert ((predicted - wanted) ** 2).mean() < 0.7 * ((observed - wanted) ** 2).mean()
    unseen_error = cramer(
        fitted, fitted.predict(unseen, progress_bar=False).histogram(), truth.sel(perturbation=unseen)
    )
    assert cramer(fitted, predicted, wanted) < 0.5 * unseen_error


def test_concentration_is_found(fitted):
    ratio = np.exp(np.median(fitted.parameters["log_concentration"])) / 300
    assert 0.5 < ratio < 2


def test_on_target_tilt_is_found(screen, fitted):
    assert -2.6 < fitted.parameters["tilt_mean"][0] < -1.4  # −2 in truth
    measured = [i for i, label in enumerate(fitted.perturbations) if label in fitted.genes]
    assert (fitted.parameters["on_target"][measured, 0] < 0).all()


@pytest.mark.slow
def test_activation_tilts_the_other_way():
    screen = distpert.simulate(n_perturbations=6, n_genes=5, n_cells=300, on_target=2.0, seed=3)
    assert refit(screen.adata, screen.embeddings).parameters["tilt_mean"][0] > 0.3


@pytest.mark.slow
def test_embeddings_that_tell_nothing_are_found_out(screen, fitted):
    shuffled = screen.embeddings.sample(frac=1, random_state=0).set_axis(screen.embeddings.index)
    assert refit(screen.adata, shuffled, n_factors=3).explained_share < 0.5 < fitted.explained_share


def test_unseen_moments_are_calibrated(screen, fitted, unseen, truth):
    prediction = fitted.predict(unseen, progress_bar=False)
    summary = prediction.summary(0.9)
    exact = histogram_moments(truth.sel(perturbation=unseen).to_numpy(), screen.truth["center"].to_numpy())
    for name, value in zip(MOMENTS, exact, strict=True):
        lower, upper = (summary[name].sel(statistic=end).to_numpy() for end in ("lower", "upper"))
        assert 0.75 <= ((lower <= value) & (value <= upper)).mean() <= 1, name


def test_moments_of_unseen_cells_are_calibrated(screen, fitted, unseen, truth):
    """With n_cells, intervals are for what so few cells show."""
    rng = np.random.default_rng(0)
    exact = truth.sel(perturbation=unseen).to_numpy()
    seen = rng.multinomial(50, exact / exact.sum(axis=-1, keepdims=True)) / 50
    summary = fitted.predict(unseen, progress_bar=False).summary(0.9, n_cells=50)
    for name, value in zip(MOMENTS, histogram_moments(seen, screen.truth["center"].to_numpy()), strict=True):
        lower, upper = (summary[name].sel(statistic=end).to_numpy() for end in ("lower", "upper"))
        assert 0.75 <= ((lower <= value) & (value <= upper)).mean() <= 0.99, name


def test_loss_falls_to_that_of_the_cells(fitted):
    """In nats per cell and gene, of all cells: near their log-likelihood at the fitted parameters."""
    assert np.isfinite(fitted.loss).all()
    assert fitted.loss[-1] < fitted.loss[0]
    parameters, histograms = fitted.parameters, fitted.histograms
    logits = fitted.log_control[0] + parameters["common"].to_numpy()[0]
    logits = logits + np.tensordot(parameters["response"].to_numpy(), parameters["loading"].to_numpy(), axes=1)
    for row, label in enumerate(fitted.perturbations):
        for gene in fitted.targets(label):
            logits[row, gene] += parameters["on_target"].to_numpy()[row] @ fitted.tilts[0, gene]
    counts = histograms.counts.to_numpy()[1:].astype(np.float32)
    value = dirichlet_categorical_log_prob(logits, parameters["log_concentration"].to_numpy(), counts)
    of_controls = (fitted.groups.control_counts[0] * log_softmax(fitted.log_control[0], axis=-1)).sum()
    total = float(np.asarray(value).sum()) + of_controls
    assert fitted.loss[-1] == pytest.approx(-total / histograms.counts.to_numpy().sum(), rel=0.02)


# ------------------------------------------------------------------------------------------------------ what it refuses


@pytest.fixture
def no_optimization(monkeypatch):
    def reached(*args, **options):
        pytest.fail("bad input came as far as the optimization")

    monkeypatch.setattr("distpert.fitting.fitting.optimize", reached)
    monkeypatch.setattr("distpert.fitting.fitting.run_chains", reached)


def changed(small, **obs):
    adata = small.adata.copy()
    for name, values in obs.items():
        adata.obs[name] = values
    return adata


def with_value(small, value):
    adata = small.adata.copy()
    adata.X[3, 2] = value
    return adata


def labels_of(small):
    return small.adata.obs["perturbation"].astype(str)


def without_controls(small):
    return changed(small, perturbation=labels_of(small).replace("control", "GENE3"))


def context_without_control(small):
    labels = labels_of(small)
    days = np.where(labels == "control", "day1", np.where(labels == "GENE1", "day2", "day1"))
    return changed(small, day=days)


def duplicated_genes(small):
    adata = small.adata.copy()
    adata.var_names = ["GENE0", "GENE1", "GENE1", "GENE3", "GENE4"]
    return adata


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (without_controls, {}, ValueError, r"no cell is labeled 'control'.*labels are: GENE0, GENE1.*control="),
        (changed, {"control": "NT"}, ValueError, r"no cell is labeled 'NT'.*control, GENE0"),
        (changed, {"perturbation_key": "guide"}, KeyError, r"no column 'guide' in adata.obs; there are: perturbation"),
        (changed, {"context_key": "day"}, KeyError, r"no column 'day' in adata.obs"),
        (changed, {"gene_symbols": "symbol"}, KeyError, r"no column 'symbol' in adata.var"),
        (changed, {"layer": "log"}, KeyError, r"no layer 'log' in adata.layers"),
        (lambda s: with_value(s, np.nan), {}, ValueError, r"1 not finite values.*'GENE2'"),
        (lambda s: with_value(s, np.inf), {}, ValueError, r"1 not finite values.*'GENE2'"),
        (lambda s: with_value(s, -1.0), {}, ValueError, r"1 negative values.*'GENE2'"),
        (context_without_control, {"context_key": "day"}, ValueError, r"no control cells in these contexts.*day2"),
        (duplicated_genes, {}, ValueError, r"duplicated gene symbols in adata.var_names: GENE1\. .*names_make_unique"),
        (changed, {"n_factors": 0}, ValueError, r"n_factors must be at least 1, not 0"),
        (changed, {"n_factors": -2}, ValueError, r"n_factors must be at least 1, not -2"),
        (
            changed,
            {"priors": {"loading": 0.3}},
            TypeError,
            r"priors: expected Priors, made by distpert.Priors\(...\); got dict",
        ),
        (
            changed,
            {"optimization": 75},
            TypeError,
            r"optimization: expected Optimization, made by distpert.Optimization\(...\); got int",
        ),
        (changed, {"inference": "bad"}, ValueError, r"inference must be 'svi' or 'nuts', not 'bad'"),
        (
            changed,
            {"sampling": distpert.Sampling()},
            ValueError,
            r"sampling= belongs to inference='nuts', not to inference='svi'",
        ),
        (
            changed,
            {"inference": "nuts", "optimization": distpert.Optimization()},
            ValueError,
            r"optimization= belongs to inference='svi', not to inference='nuts'",
        ),
        (
            changed,
            {"inference": "nuts", "sampling": 500},
            TypeError,
            r"sampling: expected Sampling, made by distpert.Sampling\(...\); got int",
        ),
        (changed, {"seed": -1}, ValueError, r"seed must be a whole number of at least 0 .*, not -1"),
        (changed, {"n_bins": 1}, ValueError, r"n_bins must be at least 2, not 1"),
        (lambda s: s.adata.to_df(), {}, TypeError, r"expected an anndata.AnnData.*DataFrame"),
    ],
)
def test_bad_screens(small, no_optimization, make, options, error, message):
    with pytest.raises(error, match=message):
        refit(make(small), small.embeddings, **options)


def test_histograms_without_controls(small, context_screen, no_optimization):
    adata = small.adata
    held_out = adata[adata.obs["perturbation"] != "control"].copy()
    histograms = distpert.count_histograms(held_out, bins=distpert.count_histograms(adata))
    with pytest.raises(ValueError, match=r"histograms have no control cells\. Count them together with control cells"):
        refit(histograms, small.embeddings)
    adata = context_screen.adata
    bins = distpert.count_histograms(adata, context_key="context")
    is_control = adata.obs["perturbation"] == "control"
    part = adata[~(is_control & (adata.obs["context"] == "context1"))].copy()
    histograms = distpert.count_histograms(part, context_key="context", bins=bins)
    with pytest.raises(ValueError, match=r"no control cells in context1\. Count them together"):
        refit(histograms, context_screen.embeddings)


def with_nan(table):
    table.loc["GENE1", 0] = np.nan
    return table


def with_zero_row(table):
    table.loc["GENE1"] = 0.0
    return table


def of_mixed_lengths(table):
    return {gene: row.to_numpy()[: 1 if gene == "GENE1" else 2] for gene, row in table.iterrows()}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (with_nan, ValueError, r"NaN or infinite values.*GENE1"),
        (with_zero_row, ValueError, r"all-zero vectors.*GENE1"),
        (of_mixed_lengths, ValueError, r"vectors differ in length; most have 2 dims, but GENE1 has 1"),
        (lambda table: pd.concat([table, table.iloc[[2]]]), ValueError, r"duplicated gene symbols: GENE2"),
        (lambda table: table * 0 + 1, ValueError, r"all 7 genes have the same vector"),
        (lambda table: "nowhere", KeyError, r"adata.uns has no key 'nowhere'"),
        (lambda table: table.to_numpy(), TypeError, r"must be a DataFrame.*not ndarray"),
        (lambda table: [], ValueError, r"embeddings is an empty list"),
        (lambda table: table.iloc[:2], ValueError, r"2 of 6 training perturbations have an embedding; at least 3"),
        (
            lambda table: table.rename(str.lower),
            ValueError,
            r"0 of 6 .*Genes without one: GENE0, .*of gene0, .*same symbols",
        ),
        (
            lambda table: table.T,
            ValueError,
            r"embeddings: the table is transposed\. Its columns are genes \(GENE0, .* transpose, \.T",
        ),
    ],
)
def test_bad_embeddings(small, no_optimization, make, error, message):
    with pytest.raises(error, match=message):
        refit(small.adata, make(small.embeddings.copy()))


def test_key_with_counted_histograms(small, small_fit, no_optimization):
    with pytest.raises(TypeError, match=r"embeddings='table' is a key into adata.uns, but there is no AnnData"):
        refit(small_fit.histograms, "table")


def test_too_few_perturbations(small, no_optimization):
    labels = labels_of(small)
    adata = small.adata[labels.isin(["control", "GENE0", "GENE1"])].copy()
    with pytest.raises(ValueError, match=r"the training has 2 perturbations; at least 3 are needed"):
        refit(adata, small.embeddings)


# ------------------------------------------------------------------------------------------------- what it warns about


def warned(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    assert all(warning.filename == __file__ for warning in caught)
    return result, [str(warning.message) for warning in caught]


def test_raw_counts(small):
    adata = small.adata.copy()
    adata.X = np.rint(adata.X * 20).astype(np.float32)
    fit, (message,) = warned(lambda: distpert.fit(adata, small.embeddings, progress_bar=False))
    assert "look like raw counts" in message
    assert "scanpy.pp.normalize_total(adata, target_sum=1e4) and scanpy.pp.log1p(adata)" in message
    assert np.isfinite(fit.loss).all()


def test_cells_without_a_label(small):
    labels = labels_of(small).astype(object)
    labels.iloc[-3:] = None
    adata = changed(small, perturbation=labels)
    with pytest.warns(UserWarning, match=r"3 of 170 cells have no label.*never counts as control"):
        fit = refit(adata, small.embeddings)
    assert int(fit.histograms.n_cells.sum()) == 167


def test_one_cell(small):
    labels = labels_of(small)
    keep = np.ones(len(labels), bool)
    keep[np.flatnonzero(labels == "GENE2")[1:]] = False
    adata = small.adata[keep].copy()
    with pytest.warns(UserWarning, match=r"perturbations with fewer than 2 cells: GENE2"):
        fit = refit(adata, small.embeddings)
    assert "GENE2" in fit.perturbations
    histogram = fit.predict("GENE2", progress_bar=False).histogram()
    np.testing.assert_allclose(histogram.sum("bin"), 1, atol=1e-5)
    assert np.isfinite(fit.predict("GENE2", progress_bar=False).moments().to_array()).all()


def with_cells(small, *numbers):
    """The same screen with so many cells of its perturbations, and all controls."""
    labels = labels_of(small).to_numpy()
    rows = [np.flatnonzero(labels == f"GENE{i}")[:n] for i, n in enumerate(numbers)]
    return small.adata[np.concatenate([np.flatnonzero(labels == "control"), *rows])].copy()


@pytest.mark.parametrize(("numbers", "median"), [((10,) * 6, "10"), ((3, 20, 3, 20, 10, 3), "6.5")])
def test_few_cells(small, numbers, median):
    adata = with_cells(small, *numbers)
    fit, (message,) = warned(lambda: distpert.fit(adata, small.embeddings, progress_bar=False))
    assert f"the perturbations have {median} cells at the median. With 10 cells or fewer, intervals may" in message
    assert "Pool guides or replicates" in message
    assert np.isfinite(fit.loss).all()


@pytest.mark.parametrize("numbers", [(11,) * 6, (3, 3, 20, 20, 20, 20)])
def test_cells_that_are_enough(small, numbers):
    adata = with_cells(small, *numbers)
    assert warned(lambda: distpert.fit(adata, small.embeddings, progress_bar=False))[1] == []


def test_perturbed_genes_without_embedding(small):
    table = small.embeddings.drop(["GENE2", "GENE4"])
    fit, messages = warned(lambda: distpert.fit(small.adata, table, progress_bar=False))
    assert messages == [
        "no embedding for GENE2, GENE4: kept in training, but other perturbations are not predicted from them"
    ]
    assert {"GENE2", "GENE4"} <= set(fit.perturbations)
    prediction = fit.predict(["GENE4", "GENE6"], progress_bar=False)
    own = distpert.count_histograms(small.adata).select(["GENE4"]).dataset.isel(group=-1)
    share = (own["counts"] / own["n_cells"]).to_numpy()
    control = np.exp(fit.log_control[0])
    predicted = prediction.histogram().sel(perturbation="GENE4").to_numpy()
    assert abs(predicted - share).sum() < abs(control - share).sum()
    with pytest.raises(KeyError, match=r"'GENE2'"):  # seen by itself, but a pair needs its embedding
        fit.predict("GENE1+GENE2")
    kernel = fit.parameters["eigenvectors"].to_numpy()
    kernel = (kernel * fit.parameters["eigenvalues"].to_numpy()) @ kernel.T
    row = fit.perturbations.index("GENE2")
    np.testing.assert_allclose(kernel[row], np.arange(len(kernel)) == row, atol=1e-6)


def test_constant_genes(small):
    adata = small.adata.copy()
    adata.X[:, 1], adata.X[:, 3] = 0, 2.3
    fit = refit(adata, small.embeddings)
    assert fit.histograms.constant_genes == ("GENE1", "GENE3")
    assert "constant genes GENE1, GENE3" in repr(fit)
    prediction = fit.predict(["GENE1", "GENE2", "GENE6"], progress_bar=False)
    histogram = prediction.histogram().sel(gene=["GENE1", "GENE3"])
    np.testing.assert_allclose(histogram.sum("bin"), 1, atol=1e-5)
    assert (histogram.isel(bin=0) > 0.9).all()
    for n_cells in (None, 10):
        moments = prediction.moments(n_cells=n_cells).sel(gene=["GENE1", "GENE3"])
        assert np.isfinite(moments.to_array()).all()
        np.testing.assert_allclose(moments["mean"].sel(gene="GENE3"), 2.3, rtol=1e-6)
        np.testing.assert_allclose(moments["variance"], 0, atol=1e-10)
        assert (moments["skewness"] == 0).all()
        assert (moments["kurtosis"] == 0).all()
    assert np.isfinite(prediction.moments().to_array()).all()


def test_all_is_well_without_warnings(small):
    assert warned(lambda: distpert.fit(small.adata, small.embeddings, progress_bar=False))[1] == []


def test_histograms_remember_how_they_were_read(small):
    adata = small.adata.copy()
    adata.obs = adata.obs.rename(columns={"perturbation": "guide"})
    adata.var["symbol"] = adata.var_names
    adata.var_names = [f"ENSG{i}" for i in range(adata.n_vars)]
    adata.layers["log"] = adata.X.copy()
    keys = {"perturbation_key": "guide", "layer": "log", "gene_symbols": "symbol"}
    histograms = distpert.count_histograms(adata, **keys)
    fit = distpert.fit(histograms, small.embeddings, progress_bar=False)
    tree = fit.predict(fit.perturbations[0], num_draws=3).to_datatree(adata)
    expected = histograms.dataset["counts"].to_numpy()[1]
    np.testing.assert_array_equal(tree["constant_data"]["counts"].to_numpy()[0], expected)
    with pytest.raises(ValueError, match=r"already counted: perturbation_key, .* belong to count_histograms"):
        distpert.fit(histograms, small.embeddings, layer="log")


def test_context_of_control_cells_alone(context_screen):
    """It gets the shift of the others, from its own controls, and a warning."""
    adata = context_screen.adata
    bare = adata[(adata.obs["context"] == "context0") | (adata.obs["perturbation"] == "control")].copy()
    with pytest.warns(UserWarning, match="only control cells in context1"):
        fit = distpert.fit(bare, context_screen.embeddings, context_key="context", progress_bar=False)
    labels = list(fit.perturbations)
    truth = context_screen.truth["histogram"].sel(perturbation=labels, context="context1").to_numpy()
    predicted = fit.predict(labels, context="context1", num_draws=50).histogram().to_numpy()[:, 0]
    error = np.abs(predicted - truth).sum(axis=-1).mean()
    assert error < 0.7 * np.abs(fit.control[1] - truth).sum(axis=-1).mean()


def test_perturbed_genes_under_other_names_are_warned_of(small):
    adata = small.adata.copy()
    adata.var_names = [f"ENSG{i}" for i in range(adata.n_vars)]
    with pytest.warns(
        UserWarning, match=r"none of the 6 perturbed genes \(GENE0, GENE1, GENE2 and 3 more\).*gene_symbols="
    ):
        distpert.fit(
            adata, small.embeddings, optimization=distpert.Optimization(max_epochs=1, min_steps=1), progress_bar=False
        )


@pytest.mark.slow
def test_concentrations_far_below_their_prior_are_found():
    screen = distpert.simulate(n_perturbations=16, n_genes=20, n_cells=60, n_controls=300, concentration=10, seed=0)
    fit = distpert.fit(screen.adata, screen.embeddings, progress_bar=False)
    concentration = np.exp(fit.parameters["log_concentration"])
    assert 5 < np.median(concentration) < 20
    assert fit.converged


# -------------------------------------------------------------------------------------------------------- Markov chains


def test_fit_by_chains(chains):
    """The warning is checked where they are run, in conftest.py."""
    assert chains.settings["inference"] == "nuts"
    assert chains.settings["sampling"]["num_samples"] == 20
    assert "optimization" not in chains.settings
    assert len(chains.loss) == 0
    assert chains.n_chains == 2
    assert dict(chains.samples.sizes) == {
        "chain": 2, "draw": 20, "factor": 2, "direction": 4, "tilt": 2, "perturbation": 5, "gene": 4, "context": 1,
        "bin": 5,
    }  # fmt: skip
    assert chains.seconds > 0
    assert f"chains         2 of 20 draws; {chains.diagnostics['divergences']} divergences, R-hat up to" in repr(chains)
    summary = chains.predict(["GENE1", "GENE5"], num_draws=40, progress_bar=False).summary()
    assert np.isfinite(summary.to_array()).all()


@pytest.mark.parametrize(
    ("r_hat", "divergences", "expected"), [(1.005, 0, True), (1.04, 0, False), (1.2, 0, None), (1.0, 3, None)]
)
def test_chains_warn_by_their_rule(small, monkeypatch, r_hat, divergences, expected):
    """Above 1.05 or with divergences there is a warning; above 1.01 they have not converged."""

    def run(story, settings, *, seed, progress_bar):
        lead = settings.num_chains, settings.num_samples
        sites = {name: value for name, value in story.start.items() if name in SITES}
        draws = {name: np.broadcast_to(value, (*lead, *np.shape(value))) for name, value in sites.items()}
        return Chains(draws, divergences, 0.0)

    monkeypatch.setattr("distpert.fitting.fitting.run_chains", run)
    monkeypatch.setattr("distpert.fitting.fitting.diagnose", lambda *args: {"r_hat": r_hat, "n_eff": 9.0})
    options = {"inference": "nuts", "sampling": distpert.Sampling(num_samples=4, num_chains=2), "progress_bar": False}
    fit, messages = warned(lambda: distpert.fit(small.adata, small.embeddings, **options))
    assert fit.converged is bool(expected)
    if expected is None:
        (message,) = messages
        assert message.startswith(
            f"{divergences} of 8 transitions diverged, and R-hat is up to {r_hat:.2f}. Run longer"
        )
        assert "Sampling(num_warmup=600, num_samples=8, target_accept_prob=0.98)" in message
    else:
        assert messages == []


def test_leading_eigenvectors_give_nearly_the_same_fit(screen, fitted, monkeypatch):
    """As with thousands of perturbations: the fit, its predictions, print-out and file work with fewer eigenvectors."""
    for module in (kernel_choice, warm_start):
        monkeypatch.setattr(module, "MOST_EXACT", 50)
    monkeypatch.setattr(kernel_choice, "N_LEADING", 40)
    found = distpert.fit(screen.adata, screen.embeddings, n_factors=3, progress_bar=False)
    assert found.parameters["eigenvectors"].shape == (len(found.perturbations), 40)
    labels = [gene for gene in found.embeddings.genes if gene not in found.perturbations][:5]
    ours, whole = (one.predict(labels, progress_bar=False).histogram() for one in (found, fitted))
    assert abs(ours - whole).mean() < 0.1 * abs(whole - whole.mean("perturbation")).mean() + 0.002
    assert "R² of responses left out" in repr(found)
    for what in (found.predict(labels, progress_bar=False), found.predict(found.perturbations[:2], progress_bar=False)):
        np.testing.assert_allclose(what.told_by_source.sum("source"), what.told, atol=0.02)
        assert len(what.explain()) == 3 * len(what.perturbations)
