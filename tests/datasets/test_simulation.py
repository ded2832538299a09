"""Simulated screens against the truth that comes with them."""

import numpy as np
import pytest

import distpert


@pytest.mark.slow
def test_same_seed_same_screen(small):
    again = distpert.simulate(n_perturbations=6, n_unseen=1, n_genes=5, n_cells=20, n_controls=50, seed=1)
    np.testing.assert_array_equal(again.adata.X, small.adata.X)
    assert again.adata.obs.equals(small.adata.obs)
    assert again.embeddings.equals(small.embeddings)
    assert again.truth.identical(small.truth)


def test_another_seed_another_screen(small):
    other = distpert.simulate(n_perturbations=6, n_unseen=1, n_genes=5, n_cells=20, n_controls=50, seed=2)
    assert other.adata.shape == small.adata.shape
    assert not np.array_equal(other.adata.X, small.adata.X)
    assert not np.allclose(other.truth["histogram"], small.truth["histogram"])


@pytest.mark.slow
def test_smooth_loadings_bend_less():
    """Bends have the standard deviation of steps times √(2 (1 - ρ)); genes that nothing targets have no tilt."""

    def bend(smoothness):
        screen = distpert.simulate(
            n_perturbations=20, n_genes=300, n_cells=5, concentration=1e9, loading=0.1, loading_smoothness=smoothness
        )
        histogram = screen.truth["histogram"].to_numpy()[:, 0, 20:]
        usable = histogram.min(axis=(0, 2)) > 1e-5  # with the concentration, a bin below varies by itself
        assert usable.sum() > 100
        logits = np.log(histogram[:, usable])
        steps = np.diff(logits - logits.mean(axis=0), axis=-1)
        return np.diff(steps, axis=-1).std() / steps.std()

    for smoothness in (0.0, 0.9):
        assert bend(smoothness) == pytest.approx(np.sqrt(2 * (1 - smoothness)), rel=0.1)


def test_shapes(context_screen):
    adata, truth = context_screen.adata, context_screen.truth
    assert adata.shape == (2 * (200 + 10 * 60), 14)
    assert adata.X.dtype == np.float32
    sizes = adata.obs.groupby(["perturbation", "context"], observed=True).size()
    assert len(sizes) == 2 * 11
    assert (sizes["control"] == 200).all()
    assert (sizes.drop("control") == 60).all()
    assert dict(truth.sizes) == {"perturbation": 12, "context": 2, "gene": 14, "bin": 15, "factor": 3}
    assert context_screen.embeddings.shape == (12, 2)
    assert context_screen.embeddings.index.tolist() == truth["perturbation"].to_numpy().tolist()
    assert repr(context_screen) == (
        "Simulation: 1,600 cells, 12 perturbations (2 of them without cells) × 14 genes, 2 contexts"
    )


def test_one_context_has_no_column(small):
    assert small.adata.obs.columns.tolist() == ["perturbation"]
    assert repr(small).endswith("7 perturbations (1 of them without cells) × 5 genes, 1 context")


def test_more_perturbations_than_genes(screen):
    assert screen.adata.n_vars == 12
    assert screen.adata.var_names.tolist() == screen.truth["perturbation"].to_numpy()[:12].tolist()


@pytest.mark.parametrize("name", ["screen", "context_screen", "small"])
def test_truth_is_a_distribution(name, request):
    truth = request.getfixturevalue(name).truth["histogram"].to_numpy()
    assert np.isfinite(truth).all()
    assert (truth >= 0).all()
    np.testing.assert_allclose(truth.sum(axis=-1), 1, atol=1e-12)


@pytest.mark.parametrize("name", ["screen", "context_screen", "small"])
def test_counted_bins_are_those_of_the_truth(name, request):
    """Otherwise counts and truth could not be compared bin by bin."""
    simulation = request.getfixturevalue(name)
    histograms = distpert.count_histograms(simulation.adata)
    np.testing.assert_allclose(histograms.centers, simulation.truth["center"], atol=1e-5)


def test_counts_agree_with_truth(context_screen):
    """Pearson's statistic of all groups lies where chi-square says, six standard deviations wide."""
    histograms = distpert.count_histograms(context_screen.adata, context_key="context")
    perturbed = histograms.dataset.isel(group=np.flatnonzero(histograms.dataset["perturbation"] != "control"))
    truth = np.stack(
        [
            context_screen.truth["histogram"].sel(perturbation=p, context=c).to_numpy()
            for p, c in zip(perturbed["perturbation"].to_numpy(), perturbed["context"].to_numpy(), strict=True)
        ]
    )
    expected = perturbed["n_cells"].to_numpy()[:, None, None] * truth
    counts = perturbed["counts"].to_numpy()
    assert counts[expected < 1e-6].sum() == 0
    large = expected > 5
    statistic = ((counts - expected)[large] ** 2 / (expected * (1 - truth))[large]).sum()
    assert abs(statistic - large.sum()) < 6 * np.sqrt(2 * large.sum())


def test_on_target_tilt_lowers_the_perturbed_gene(screen):
    """Against what all other perturbations do to the same gene."""
    mean = (screen.truth["histogram"].isel(context=0) * screen.truth["center"]).sum("bin")
    genes = screen.adata.var_names.tolist()
    own = np.array([float(mean.sel(perturbation=gene, gene=gene)) for gene in genes])
    others = np.array([float(mean.drop_sel(perturbation=gene).sel(gene=gene).mean()) for gene in genes])
    assert (own < others).mean() > 0.9


LEAST = {"n_perturbations": 1, "n_unseen": 0, "n_genes": 1, "n_cells": 1, "n_controls": 2, "n_contexts": 1}
LEAST |= {"n_factors": 1, "n_bins": 2, "embedding_dim": 1}


def test_the_smallest_screen():
    screen = distpert.simulate(**LEAST)
    assert screen.adata.shape == (3, 1)
    assert np.isfinite(screen.adata.X).all()
    assert screen.embeddings.shape == (1, 1)


@pytest.mark.parametrize("name", LEAST)
def test_sizes_that_are_too_small_or_not_whole_numbers(name):
    for too_small in (LEAST[name] - 1, -3):
        with pytest.raises(ValueError, match=rf"^{name} must be at least {LEAST[name]}, not {too_small}$"):
            distpert.simulate(**{name: too_small})
    for other in (2.5, "3", None, True):
        with pytest.raises(
            ValueError, match=rf"^{name} must be a whole number of at least {LEAST[name]}, not {other!r}$"
        ):
            distpert.simulate(**{name: other})


def test_sizes_of_other_integer_types(small):
    sizes = {"n_perturbations": 6, "n_unseen": 1, "n_genes": 5, "n_cells": 20, "n_controls": 50}
    again = distpert.simulate(**{name: np.int64(size) for name, size in sizes.items()}, seed=np.int64(1))
    np.testing.assert_array_equal(again.adata.X, small.adata.X)
