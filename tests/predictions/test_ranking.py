"""Rankings of perturbations: their order, their targets, and agreement with exact draws."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import distpert


@pytest.fixture(scope="module")
def ranking(fitted):
    return fitted.rank(top=3, n_exact=200, progress_bar=False)


def test_every_gene_with_an_embedding(ranking, fitted):
    table = ranking.to_dataframe()
    assert set(table.index) == {*fitted.perturbations, *fitted.embeddings.genes}
    assert table["seen"].sum() == len(fitted.perturbations)
    assert table["effect"].is_monotonic_decreasing
    assert (table["effect_lower"] <= table["effect"]).all()
    assert (table["effect"] <= table["effect_upper"]).all()
    assert table["prob_top"].sum() == pytest.approx(3, abs=0.01)
    np.testing.assert_allclose(table["told"], fitted.told(table.index))


def test_fast_values_are_near_exact_ones(ranking):
    table = ranking.to_dataframe()
    assert table["effect_exact"].notna().all()
    assert ranking.agreement == pytest.approx(spearmanr(table["effect"], table["effect_exact"]).statistic)
    assert ranking.agreement > 0.9
    np.testing.assert_allclose(table["effect"], table["effect_exact"], rtol=0.3)


def test_exact_values_by_hand(fitted):
    """From the draws of all histograms, gene by gene."""
    label = fitted.perturbations[0]
    prediction = fitted.predict(label, num_draws=60, progress_bar=False)
    found = fitted.rank([label], num_draws=60, progress_bar=False).table.loc[label, "effect_exact"]
    from distpert.predictions.blocks import Block
    from distpert.predictions.draws import softmax

    block = Block(0, 0, slice(0, len(fitted.genes)))
    base = softmax(prediction.shared(block).control.astype(float))
    mean = (base * fitted.centers).sum(-1)
    spread = np.sqrt(((base * (fitted.centers - mean[..., None]) ** 2).sum(-1)).mean(0))
    shift = ((prediction.probs(block) * fitted.centers).sum(-1) - mean) / spread
    others = np.delete(shift, fitted.targets(label), axis=1)
    assert found == pytest.approx(np.median(np.sqrt((others**2).mean(axis=1))), rel=1e-4)


def test_company_makes_no_difference(ranking, fitted):
    few = fitted.rank(list(ranking.table.index[:3]), top=3, progress_bar=False).table
    columns = ["effect", "effect_lower", "effect_upper", "told"]
    pd.testing.assert_frame_equal(few[columns], ranking.table.loc[few.index, columns], rtol=1e-5)


def test_a_perturbation_is_most_similar_to_itself(fitted):
    label = fitted.rank(list(fitted.perturbations), progress_bar=False).table.index[0]
    found = fitted.rank(list(fitted.perturbations), target=label, progress_bar=False)
    assert found.by == "similarity"
    assert found.target == label
    assert found.table.index[0] == label
    assert found.table["similarity"].iloc[0] > 0.9
    assert found.table["similarity"].between(-1, 1).all()


def test_targets_of_all_kinds(fitted):
    """The same wish in other words gives the same list."""
    genes = list(fitted.genes[:3])
    control = fitted.control_moments()
    spread = np.sqrt(control["variance"].sel(gene=genes).to_numpy())
    options = {"perturbations": list(fitted.perturbations), "n_exact": 0, "progress_bar": False}
    raised = fitted.rank(target=genes, **options).table
    named = fitted.rank(target={"up": genes}, **options).table
    lowered = fitted.rank(target={"down": genes}, **options).table
    pd.testing.assert_frame_equal(raised, named)
    pd.testing.assert_series_equal(lowered["similarity"], -raised["similarity"].loc[lowered.index], atol=1e-6)
    shifts = fitted.rank(target=dict(zip(genes, spread.tolist(), strict=True)), **options).table
    # The spread of the controls is that of the posterior, close to that of the cells.
    np.testing.assert_allclose(shifts.loc[raised.index, "similarity"], raised["similarity"], atol=0.05)
    as_series = fitted.rank(target=pd.Series(dict(zip(genes, spread.tolist(), strict=True))), **options).table
    pd.testing.assert_frame_equal(shifts, as_series)


def test_cells_as_a_target(fitted, screen):
    label = fitted.rank(list(fitted.perturbations), n_exact=0, progress_bar=False).table.index[0]
    cells = screen.adata[(screen.adata.obs["perturbation"] == label).to_numpy()]
    found = fitted.rank(list(fitted.perturbations), target=cells, n_exact=0, progress_bar=False)
    assert label in found.table.index[:3]
    assert "cells" in found.target


def test_cells_of_a_layer(small):
    adata = small.adata.copy()
    adata.layers["log"], adata.X = adata.X.copy(), np.zeros_like(adata.X)
    options = {"progress_bar": False, "optimization": distpert.Optimization(max_epochs=2, min_steps=1)}
    fit = distpert.fit(adata, small.embeddings, layer="log", **options)
    plain = distpert.fit(small.adata, small.embeddings, **options)
    of_layer, of_x = (
        one.rank(target=cells, n_exact=0, progress_bar=False).table
        for one, cells in ((fit, adata), (plain, small.adata))
    )
    pd.testing.assert_frame_equal(of_layer, of_x)


def test_contexts(context_fit):
    one, both = (
        context_fit.rank(list(context_fit.perturbations), context=context, n_exact=0, progress_bar=False).table[
            "effect"
        ]
        for context in (context_fit.contexts[0], None)
    )
    assert not np.allclose(one.sort_index(), both.sort_index())


def test_inactive_draws_have_no_effect(fitted):
    table = fitted.rank(list(fitted.perturbations), n_exact=0, ci_prob=0.99, progress_bar=False).table
    off = fitted.prob_inactive > 0.5
    assert (table.loc[off.index[off], "effect"] == 0).all()


def test_chains_are_ranked_by_exact_draws(chains):
    found = chains.rank(list(chains.perturbations), num_draws=40, progress_bar=False)
    pd.testing.assert_series_equal(found.table["effect"], found.table["effect_exact"], check_names=False)


def test_print_outs(ranking, fitted):
    text = repr(ranking)
    assert text.startswith(f"Ranking of {len(ranking)} perturbations by effect\n90% intervals; prob_top")
    assert "rank correlation with the fast values" in text
    assert "<table" in ranking._repr_html_()


def test_wrong_targets(fitted):
    one = [fitted.perturbations[0]]
    with pytest.raises(KeyError, match="none of the genes of the target is measured: XYZ"):
        fitted.rank(one, target=["XYZ"])
    with pytest.warns(UserWarning, match=r"1 of 2 genes of the target are not measured and do not count: XYZ"):
        fitted.rank(one, target=["XYZ", fitted.genes[0]], n_exact=0)
    with pytest.raises(ValueError, match="all wanted shifts are 0"):
        fitted.rank(one, target={fitted.genes[0]: 0.0})
    with pytest.raises(ValueError, match="must be finite"):
        fitted.rank(one, target={fitted.genes[0]: np.nan})
    gene = fitted.genes[0]
    for twice in ([gene, gene], {"up": [gene], "down": [gene]}, pd.Series([1.0, 2.0], [gene, gene])):
        with pytest.raises(ValueError, match=f"names these genes more than once: {gene}"):
            fitted.rank(one, target=twice)
    with pytest.raises(TypeError, match="target must be a label, a list"):
        fitted.rank(one, target=3)
    with pytest.raises(KeyError, match="XYZ"):
        fitted.rank(one, target="XYZ")
    with pytest.raises(ValueError, match="top"):
        fitted.rank(one, top=0)


def test_plot(ranking):
    ax = distpert.plots.plot_ranking(ranking, n=4)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ranking.table.index[:4])
    with pytest.raises(TypeError, match=r"fit.rank\(\)"):
        distpert.plots.plot_ranking(ranking.table)
