"""A fit to several sources of embeddings, and a screen as a source for another."""

import numpy as np
import pandas as pd
import pytest

import distpert


@pytest.fixture(scope="module")
def two(screen):
    """The embeddings of the screen, of half of the genes; and noise for all and one more."""
    noise = np.random.default_rng(0).normal(size=(len(screen.embeddings) + 1, 5))
    index = [*screen.embeddings.index, "MORE"]
    return {"told": screen.embeddings.iloc[::2], "noise": pd.DataFrame(noise, index=index)}


@pytest.fixture(scope="module")
def fit(screen, two):
    with pytest.warns(UserWarning, match=r"^of 80 perturbations with an embedding, told lacks 40 .* rest on the other"):
        return distpert.fit(screen.adata, two, n_factors=3, progress_bar=False)


def test_the_source_that_tells_has_the_weight(fit):
    assert fit.embeddings.source_names == ("told", "noise")
    assert fit.kernel.source_weights[0] > 0.9
    table = fit.relevance
    assert table["n_perturbations"].tolist() == [40, 80, 80]
    assert table.loc["told", "r2"] > table.loc["noise", "r2"] + 0.1


def test_print_out(fit):
    assert "embeddings     121 genes, 2 sources\n" in repr(fit)
    told, noise = fit.kernel.source_weights
    assert f"weights        told {told:.0%}, noise {noise:.0%}\n" in repr(fit)


def test_a_gene_of_one_source_is_predicted(fit):
    prediction = fit.predict(["MORE", "GENE80", "GENE81"], num_draws=40, progress_bar=False)
    assert np.isfinite(prediction.summary()["mean"]).all()
    assert prediction.told.sel(perturbation="GENE80") > prediction.told.sel(perturbation="MORE")
    parts = prediction.told_by_source
    assert parts.dims == ("perturbation", "source")
    np.testing.assert_allclose(parts.sum("source"), prediction.told, atol=1e-4)
    table = prediction.explain(n_neighbors=2)
    assert len(table) == 6
    assert set(table.loc[table["perturbation"] == "GENE80", "source"]) == {"told"}
    with pytest.raises(ValueError, match="n_neighbors"):
        prediction.explain(n_neighbors=0)


def test_round_trip(fit, tmp_path):
    fit.save(tmp_path / "fit.nc")
    loaded = distpert.load(tmp_path / "fit.nc")
    assert loaded.kernel == fit.kernel
    assert loaded.embeddings.source_names == fit.embeddings.source_names
    np.testing.assert_array_equal(loaded.embeddings.covered, fit.embeddings.covered)
    assert repr(loaded) == repr(fit)
    labels = ["MORE", "GENE80", "GENE1"]
    one, other = (each.predict(labels, num_draws=20, progress_bar=False).moments() for each in (loaded, fit))
    assert one.identical(other)


def test_signatures_are_responses(fitted):
    signatures = fitted.signatures()
    assert signatures.source_names == ("signatures",)
    assert signatures.genes == fitted.perturbations
    latent, unseen = fitted.latent, fitted.unseen
    between = (latent.response[3] - latent.response[7]) * np.sqrt(latent.weight)
    found = signatures.of(["GENE11", "GENE15"])
    assert fitted.perturbations[3] == "GENE11"
    assert fitted.perturbations[7] == "GENE15"
    whole = (latent.response + unseen.center) * np.sqrt(latent.weight)
    scale = np.linalg.norm(whole - whole.mean(axis=0)) / np.sqrt(whole.size)
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(np.linalg.norm(between) / scale, rel=1e-4)


def test_signatures_of_another_screen_of_the_same_truth_predict(screen):
    """Other cells of the same perturbations: an upper bound of what a screen can tell another."""
    labels = screen.adata.obs["perturbation"].to_numpy()
    first = np.arange(len(labels)) % 2 == 0
    options = {"n_factors": 3, "progress_bar": False}
    other = distpert.fit(screen.adata[first].copy(), screen.embeddings, **options)
    noise = pd.DataFrame(np.random.default_rng(1).normal(size=(120, 4)), index=screen.embeddings.index)
    sources = {"noise": noise, "screen": other.signatures()}
    fit = distpert.fit(screen.adata[~first].copy(), sources, **options)
    assert fit.kernel.source_weights[fit.embeddings.source_names.index("screen")] > 0.9
    assert fit.left_out_r2()["single genes"] > 0.5
