"""Embeddings and summaries survive AnnData's files."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import distpert
from distpert.embeddings.sources import as_embeddings

GENES = ("KLF1", "HLA-A/B", "MYC", "HLA-C", "GATA1/2/3")
LABELS = ["KLF1", "HLA-A/B", "HLA-C+MYC", "GATA1/2/3"]
VECTORS = dict(zip(GENES, np.random.default_rng(0).normal(2.0, 3.0, (5, 4)).astype(np.float32), strict=True))


class Letters:
    """Counts some letters: an encoder of texts."""

    def encode(self, texts):
        return [[text.count(letter) + 0.5 for letter in "aeiou"] for text in texts]


def read_from_file(tmp_path):
    path = tmp_path / "embeddings.csv"
    pd.DataFrame(VECTORS).T.to_csv(path)
    return distpert.read_embeddings(path)


def from_texts(tmp_path):
    texts = {gene: f"{gene} {'a' * i}{'e' * (i % 3)}o" for i, gene in enumerate(GENES)}
    return distpert.embed_text(texts, Letters(), progress_bar=False)


def from_embeddings(tmp_path):
    return as_embeddings(VECTORS).to_frame()


def from_two_sources(tmp_path):
    return as_embeddings([VECTORS, from_texts(tmp_path)]).to_frame()


def in_h5ad(adata, path):
    adata.write_h5ad(path)
    return anndata.read_h5ad(path)


def in_zarr(adata, path):
    pytest.importorskip("zarr")
    adata.write_zarr(path)
    return anndata.read_zarr(path)


def stored(value, tmp_path, through):
    """An AnnData that has been written with the value in ``uns``, and read back."""
    adata = anndata.AnnData(np.ones((2, 3), np.float32), uns={"embeddings": value})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces its next formats
        return through(adata, tmp_path / "adata")


@pytest.mark.parametrize("through", [in_h5ad, in_zarr])
@pytest.mark.parametrize("make", [read_from_file, from_texts, from_embeddings, from_two_sources])
def test_tables_survive(tmp_path, make, through):
    frame = make(tmp_path)
    adata = stored(frame, tmp_path, through)
    back = adata.uns["embeddings"]
    assert (list(back.index), list(back.columns)) == (list(frame.index), list(frame.columns))
    np.testing.assert_array_equal(back, frame)
    found, expected = as_embeddings("embeddings", adata), as_embeddings(frame)
    assert found.genes == expected.genes == GENES
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    np.testing.assert_array_equal(found.of(LABELS), expected.of(LABELS))


@pytest.mark.parametrize("through", [in_h5ad, in_zarr])
def test_a_dict_with_slashes_survives_or_its_table_does(tmp_path, through):
    """HDF5 makes groups of such symbols, dicts within the dict; zarr and newer versions of anndata refuse them."""
    try:
        adata = stored(VECTORS, tmp_path, through)
    except ValueError as error:
        assert "slash" in str(error)
        (tmp_path / "again").mkdir()
        adata = stored(as_embeddings(VECTORS).to_frame(), tmp_path / "again", through)
    found = as_embeddings("embeddings", adata)
    assert set(found.genes) == set(GENES)
    np.testing.assert_allclose(found.of(LABELS), as_embeddings(VECTORS).of(LABELS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("through", [in_h5ad, in_zarr])
def test_a_dict_without_slashes_survives(tmp_path, through):
    vectors = {gene.replace("/", "-"): vector for gene, vector in VECTORS.items()}
    labels = [label.replace("/", "-") for label in LABELS]
    found = as_embeddings("embeddings", stored(vectors, tmp_path, through))
    np.testing.assert_allclose(found.of(labels), as_embeddings(vectors).of(labels), rtol=1e-5, atol=1e-6)


def test_to_frame_gives_the_same_embeddings_again():
    once = as_embeddings(VECTORS)
    frame = once.to_frame()
    assert frame.index.tolist() == list(GENES)
    assert frame.columns.tolist() == ["0", "1", "2", "3"]
    assert (frame.index.name, frame.columns.name) == ("gene", "dim")
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_array_equal(frame, once.vectors)
    np.testing.assert_allclose(as_embeddings(frame).vectors, once.vectors, rtol=1e-5, atol=1e-6)
    frame.iloc[:] = 0
    assert once.vectors.any()  # a copy


def test_to_frame_of_two_sources_keeps_their_scales(tmp_path):
    two = as_embeddings([VECTORS, {gene: 1000 * vector[:3] for gene, vector in VECTORS.items()}])
    again = as_embeddings(two.to_frame())
    assert again.source_dims == (7,)
    np.testing.assert_allclose(again.vectors, two.vectors, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("through", [in_h5ad, in_zarr])
def test_a_simulated_screen_survives_with_its_embeddings(small, tmp_path, through):
    adata = stored(small.embeddings, tmp_path, through)
    np.testing.assert_array_equal(as_embeddings("embeddings", adata).vectors, as_embeddings(small.embeddings).vectors)


@pytest.mark.parametrize("through", [in_h5ad, in_zarr])
def test_a_summary_survives(small_fit, tmp_path, through):
    table = small_fit.predict(["GENE6", "GENE1+GENE2"]).summary().to_dataframe().reset_index()
    back = stored(table, tmp_path, through).uns["embeddings"]
    assert list(back.columns) == list(table.columns)
    assert table["perturbation"].unique().tolist() == ["GENE6", "GENE1+GENE2"]
    for name in table.columns:
        assert back[name].tolist() == table[name].tolist()
