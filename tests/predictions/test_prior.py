"""The prior against closed forms, and against the model run as a whole by numpyro."""

import jax
import numpy as np
import numpyro
import pytest
from scipy.stats import ks_2samp

from distpert import Priors
from distpert.histograms.moments import histogram_moments
from distpert.model.generative import Batch, model
from distpert.model.kernels import kernel_between
from distpert.predictions import prior as prior_module
from distpert.predictions.blocks import Block

NUM_DRAWS = 1000


@pytest.fixture(scope="module")
def prior(context_fit):
    """Of two perturbations with cells and one without; all three genes are measured."""
    return context_fit.prior_predictive(["GENE1", "GENE3", "GENE11"], num_draws=NUM_DRAWS, progress_bar=False)


def expected_histograms(prior):
    """All of π (draw, perturbation, context, gene, bin)."""
    shape = (NUM_DRAWS, len(prior.perturbations), len(prior.contexts), len(prior.genes), prior.training.n_bins)
    out = np.empty(shape, np.float32)
    for block, probs in prior.map_blocks(lambda block: block.probs):
        out[:, block.perturbation, block.context, block.genes] = probs
    return out


@pytest.fixture(scope="module")
def shift(prior):
    """Shift of the logits from control, (draw, perturbation, context, gene, bin), but for a constant over bins."""
    return np.log(np.maximum(expected_histograms(prior), 1e-37)) - prior.posterior.log_control


def test_sites_have_their_priors(prior):
    sites, n_factors = prior.sites, prior.posterior.parameters.sizes["factor"]
    assert {name: values.shape[1:] for name, values in sites.items()} == {
        "common_size": (),
        "context_size": (),
        "factor_size": (n_factors,),
        "direction_size": (14,),
        "explained_share": (n_factors,),
        "response": (n_factors, 3),
        "tilt_mean": (2,),
        "tilt_scale": (2,),
        "on_target": (3, 2),
        "log_concentration": (14,),
    }
    given = Priors(**prior.posterior.settings["priors"])
    mean, scale = given.log_concentration
    # Genes vary about their typical value by HalfNormal(1): Var = scale² + 1.
    log = sites["log_concentration"].astype(float)
    assert log.mean() == pytest.approx(mean, abs=0.2)
    assert log.var() == pytest.approx(scale**2 + 1, rel=0.1)
    assert log.mean(axis=1).var() == pytest.approx(scale**2 + 1 / 14, rel=0.15)  # what genes have in common
    # HalfNormal(s) has the mean square s²; LogNormal(0, s) has the median 1 and logs of the standard deviation s.
    assert (sites["common_size"].astype(float) ** 2).mean() == pytest.approx(given.common**2, rel=0.15)
    assert (sites["factor_size"].astype(float) ** 2).mean() == pytest.approx(given.loading**2, rel=0.06)
    assert np.log(sites["direction_size"]).std() == pytest.approx(given.direction, rel=0.03)
    assert np.log(sites["direction_size"]).mean() == pytest.approx(0, abs=0.02)
    assert sites["explained_share"].mean() == pytest.approx(0.5, abs=0.02)  # Beta(1, 1)
    assert sites["explained_share"].var() == pytest.approx(1 / 12, rel=0.06)
    # tilt_mean ~ N(0, 2), tilt_scale ~ HalfNormal(2): Var = 4 + E[scale²] = 8.
    assert sites["on_target"].var() == pytest.approx(8, rel=0.12)
    np.testing.assert_allclose(sites["response"].var(axis=0), 1, atol=0.15)


@pytest.mark.slow
def test_one_group_has_the_draws_of_all(prior):
    one = prior.select("GENE3", "context1")
    where = {"perturbation": ["GENE3"], "context": ["context1"]}
    np.testing.assert_allclose(one.histogram(), prior.histogram().sel(where), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(one.moments(n_cells=5)["mean"], prior.moments(n_cells=5)["mean"].sel(where), rtol=1e-5)


@pytest.mark.slow
def test_a_block_by_itself_has_the_draws_that_it_has_among_others(prior):
    cells = np.array([[3, 4], [5, 6], [7, 8]])
    todo = [Block(0, 1, slice(0, 14)), Block(2, 0, slice(0, 14))]
    among = {}
    for block, drawn in prior.map_blocks(lambda block: (prior.draw(block), prior.draw(block, cells))):
        among[block.perturbation, block.context] = drawn
    for block in todo:
        alone = prior.draw(block), prior.draw(block, cells)
        for one, other in zip(alone, among[block.perturbation, block.context], strict=True):
            np.testing.assert_allclose(one.mean(axis=0), other.mean(axis=0), rtol=1e-3, atol=1e-3)
            assert np.isclose(one, other, rtol=1e-3, atol=1e-5).mean() > 0.999


def test_responses_follow_the_kernel(prior):
    """Given its share, a factor's responses have correlation ρ K; on average over ρ ~ U(0, 1) half of K."""
    fit, labels = prior.posterior, prior.perturbations
    matrix = kernel_between(labels, labels, fit.embeddings, fit.kernel)
    response = np.moveaxis(prior.sites["response"], -1, 0).reshape(3, -1)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(np.cov(response)[off], 0.5 * matrix[off], atol=0.06)


def variances(prior, gene, first, second, response=True):
    """Variance of the difference of a shift between two bins: of the common shift, of a context, and of loadings.

    Coordinates are standard normal times sizes: common² for what contexts share, context² for each context's own part,
    and the sum over factors of z² loading² E[s²] with E[s²] = exp(2 direction²) for loadings.
    """
    fit, given = prior.posterior, prior.priors
    basis = fit.parameters["basis"].to_numpy().astype(float)[gene]
    size = ((basis[second] - basis[first]) ** 2).sum()
    of_loading = fit.n_factors * given.loading**2 * np.exp(2 * given.direction**2)
    return size * given.common**2, size * given.context**2, size * of_loading * response


OFF_TARGET = (4, 6, 9)  # genes that are not perturbed themselves


def difference(shift, gene, first, second):
    """Of the shift between two bins (draw, perturbation, context), where both have a probability above rounding."""
    return shift[..., gene, second] - shift[..., gene, first]


def test_shifts_have_the_variance_of_their_parts(prior, shift):
    for gene in OFF_TARGET:
        for first, second in ((6, 7), (5, 8)):
            change = difference(shift, gene, first, second)
            assert change.mean() == pytest.approx(0, abs=0.15 * float(change.std()))
            parts = variances(prior, gene, first, second)
            # Sizes are drawn, so tails are heavy.
            assert change.var() == pytest.approx(sum(parts), rel=0.2)
            # What contexts share is the common shift and the loadings.
            both = np.cov(*change[:, 0].T)[0, 1]
            assert both == pytest.approx(parts[0] + parts[2], rel=0.25)


def test_loadings_are_shared_by_perturbations(prior, shift):
    """The difference between two perturbations has the loadings alone: twice their part, times 1 − E[ρ] k."""
    fit, labels = prior.posterior, prior.perturbations
    k = kernel_between(labels[:1], labels[1:2], fit.embeddings, fit.kernel).item()
    ratios = []
    for gene in OFF_TARGET:
        between = difference(shift[:, 0] - shift[:, 1], gene, 6, 7)
        np.testing.assert_allclose(between[:, 0], between[:, 1], atol=1e-3 * between.std() + 2e-3)  # in both contexts
        ratios.append(between.var() / (2 * variances(prior, gene, 6, 7)[2] * (1 - 0.5 * k)))
    # Products of responses, loadings and their sizes have heavy tails: a single gene is too noisy.
    assert np.mean(ratios) == pytest.approx(1, rel=0.2)


def test_target_is_tilted(prior, shift):
    """Var of the tilt between two bins: 8 (Δu² + Δu⁴-ish), u and u² being the directions."""
    for perturbation, gene in [(0, 1), (1, 3), (2, 11)]:
        tilts = prior.posterior.tilts[0, gene]
        first, second = 2, 8
        tilt = 8 * ((tilts[:, second] - tilts[:, first]) ** 2).sum()
        change = difference(shift, gene, first, second)[:, perturbation, 0]
        assert change.var() == pytest.approx(tilt + sum(variances(prior, gene, first, second)), rel=0.15)
        others = [p for p in range(3) if p != perturbation]
        untilted = difference(shift, gene, first, second)[:, others, 0]
        assert untilted.var() == pytest.approx(sum(variances(prior, gene, first, second)), rel=0.25)


@pytest.mark.slow
def test_replicates_are_those_of_the_model(prior):
    """Counts that numpyro draws from the whole model, nothing taken apart, have moments of the same distribution."""
    fit = prior.posterior
    priors, n_factors, design = prior.priors, fit.n_factors, prior_module._design(fit, prior.perturbations)
    groups = Batch(None, np.array([60, 60]), np.array([0, 2]), np.array([1, 0]))
    level = np.zeros((2, 14, fit.histograms.n_bins - 1), np.float32)  # controls are those of the fit
    story = numpyro.handlers.substitute(model, {"level": level})
    predictive = numpyro.infer.Predictive(story, num_samples=NUM_DRAWS, return_sites=["counts"], parallel=True)
    options = {"n_groups": 2, "n_factors": n_factors, "priors": priors}
    counts = predictive(jax.random.key(3), design, groups, **options)["counts"]
    ours = prior.moments(n_cells=60)
    for row, (p, c) in enumerate([(0, 1), (2, 0)]):
        theirs = histogram_moments(np.asarray(counts[:, row]) / 60, fit.centers)
        for name, values in zip(ours, theirs, strict=True):
            for gene in (1, 6, 11):
                found = ours[name].isel(perturbation=p, context=c, gene=gene).to_numpy()
                assert ks_2samp(found, values[:, gene]).pvalue > 1e-3, (name, gene)


def test_layout_and_what_it_says(prior, context_fit):
    moments = prior.moments()
    assert moments["mean"].dims == ("draw", "perturbation", "context", "gene")
    assert moments["mean"].dtype == np.float32
    summary = prior.summary(0.8, n_cells=30)
    assert summary["kurtosis"].dims == ("statistic", "perturbation", "context", "gene")
    np.testing.assert_allclose(
        summary["mean"].sel(statistic="lower"), prior.moments(n_cells=30)["mean"].quantile(0.1, "draw"), rtol=1e-5
    )
    histogram = prior.histogram()
    np.testing.assert_allclose(histogram.sum("bin"), 1, rtol=1e-5)
    np.testing.assert_allclose(histogram, expected_histograms(prior).mean(axis=0), rtol=1e-3, atol=1e-6)
    assert "bin_left" in histogram.coords
    assert repr(prior) == (
        "PriorPrediction: 3 perturbations × 14 genes before any perturbed cell is seen, 1000 draws, "
        "context: context0, context1"
    )


@pytest.mark.slow
def test_parts_are_of_one_draw(context_fit, monkeypatch):
    """How many groups and genes are drawn at a time changes nothing of what is held, and no group's draws."""
    labels = ["GENE1", "GENE3", "GENE11"]
    prior = context_fit.prior_predictive(labels, num_draws=20, progress_bar=False)
    whole = prior.moments(n_cells=10)
    monkeypatch.setattr(prior_module, "_GROUPS_AT_ONCE", 4)
    parts = prior.moments(n_cells=10)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-5)
    chosen = context_fit.prior_predictive(labels, context="context1", num_draws=20, progress_bar=False)
    np.testing.assert_allclose(
        chosen.moments(n_cells=10)["mean"].sel(context="context1"), whole["mean"].sel(context="context1"), atol=1e-5
    )
    again = context_fit.prior_predictive(labels, num_draws=20, progress_bar=False).moments(n_cells=10)
    assert again.identical(parts)
    other = context_fit.prior_predictive(labels, num_draws=20, seed=1, progress_bar=False).moments(n_cells=10)
    assert not (other["mean"] == parts["mean"]).all()


@pytest.mark.slow
def test_many_genes_are_drawn_in_parts(context_fit, monkeypatch):
    """Targets in any part are tilted: their variance is larger than without."""
    monkeypatch.setattr("distpert.predictions.blocks.BLOCK_GENES", 5)
    prior = context_fit.prior_predictive(["GENE11", "GENE10"], num_draws=300, progress_bar=False)
    seen = []
    for block, probs in prior.map_blocks(lambda block: block.probs):
        seen.append((block.perturbation, block.context, block.genes.start))
        assert probs.shape == (300, min(5, 14 - block.genes.start), 15)
    assert sorted(seen) == [(p, c, start) for p in (0, 1) for c in (0, 1) for start in (0, 5, 10)]
    parts = dict(
        ((block.perturbation, block.context, block.genes.start), probs)
        for block, probs in prior.map_blocks(lambda block: block.probs)
    )
    # The ratio of the two perturbations' odds on a gene that only one perturbs holds its tilt, and what loadings add.
    # On a gene that none perturbs it does not.
    on_target, fit, labels = prior.sites["on_target"], context_fit, prior.perturbations
    k = kernel_between(labels[:1], labels[1:], fit.embeddings, fit.kernel).item()
    for gene, targeted in ((11, True), (12, False)):
        tilt = on_target[:, 0] @ fit.tilts[0, gene]
        with np.errstate(divide="ignore", invalid="ignore"):  # of probabilities that underflow
            ratio = np.log(parts[0, 0, 10][:, gene - 10]) - np.log(parts[1, 0, 10][:, gene - 10])
            change, expected = ratio[:, 9] - ratio[:, 3], tilt[:, 9] - tilt[:, 3]
        usable = np.isfinite(change)
        assert usable.mean() > 0.9
        of_tilt, of_loading = expected.var(), 2 * variances(prior, gene, 3, 9)[2] * (1 - 0.5 * k)
        correlation = np.sqrt(of_tilt / (of_tilt + of_loading)) if targeted else 0
        assert np.corrcoef(change[usable], expected[usable])[0, 1] == pytest.approx(correlation, abs=0.17)
        assert not targeted or correlation > 0.35


def test_bad_requests_are_refused(context_fit):
    with pytest.raises(KeyError, match="NOGENE"):
        context_fit.prior_predictive("NOGENE")
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        context_fit.prior_predictive("GENE1", num_draws=0)
    with pytest.raises(KeyError, match="context9"):
        context_fit.prior_predictive("GENE1", context="context9")


def test_without_contexts_and_with_one_gene_block(small_fit):
    prior = small_fit.prior_predictive("GENE2", num_draws=8, progress_bar=False)
    assert prior.moments()["mean"].dims == ("draw", "perturbation", "gene")
    assert np.isfinite(prior.moments(n_cells={"GENE2": 7})["mean"]).all()
