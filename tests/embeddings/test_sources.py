"""The forms of embeddings that are accepted, and how sources are standardized and put together."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpert.embeddings.sources import as_embeddings, standardize

GENES = ("KLF1", "CEBPA", "GATA1", "TP53", "MYC")


def random_frame(genes=GENES, dims=4, seed=0):
    values = np.random.default_rng(seed).normal(3.0, 2.0, size=(len(genes), dims))
    return pd.DataFrame(values, index=list(genes))


@pytest.fixture
def embeddings():
    return as_embeddings(random_frame())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(2, 8), st.integers(1, 6)),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_standardize_centers_and_gives_a_mean_squared_norm_of_dims(seed, shape, scale):
    raw = scale * np.random.default_rng(seed).normal(1.0, 2.0, size=shape)
    result = standardize(raw)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.mean([row @ row for row in result.astype(float)]), shape[1], rtol=1e-5)
    # One scale for all dims: every difference between genes shrinks by the same factor.
    factor = np.linalg.norm(result[0] - result[1]) / np.linalg.norm(raw[0] - raw[1])
    np.testing.assert_allclose(result - result[0], factor * (raw - raw[0]), rtol=1e-3, atol=1e-4)


def test_standardize_by_hand():
    np.testing.assert_allclose(
        standardize([[1.0, 0.0], [3.0, 0.0]]), [[-np.sqrt(2), 0.0], [np.sqrt(2), 0.0]], rtol=1e-6
    )


@pytest.mark.parametrize("n_genes", [1, 3])
def test_standardize_refuses_genes_that_are_all_alike(n_genes):
    with pytest.raises(ValueError, match=f"text.*all {n_genes} genes have the same vector"):
        standardize(np.full((n_genes, 2), 0.1, np.float32), where="text")


# as_embeddings


def test_a_frame_is_standardized(embeddings):
    frame = random_frame()
    centered = frame.to_numpy() - frame.to_numpy().mean(axis=0)
    assert embeddings.genes == GENES
    assert embeddings.source_dims == (4,)
    assert embeddings.vectors.dtype == np.float32
    np.testing.assert_allclose(embeddings.vectors, centered / np.sqrt((centered**2).mean()), rtol=1e-5)


def test_embeddings_are_returned_as_they_are(embeddings):
    assert as_embeddings(embeddings) is embeddings


def test_all_forms_agree(embeddings):
    frame = random_frame()
    vectors = {gene: row.tolist() for gene, row in zip(frame.index, frame.to_numpy(), strict=True)}
    adata = SimpleNamespace(uns={"frame": frame, "dict": vectors})
    for form in (vectors, "frame", "dict", [frame], (vectors,), ["frame"]):
        found = as_embeddings(form, adata)
        assert found.genes == embeddings.genes
        np.testing.assert_allclose(found.vectors, embeddings.vectors, rtol=1e-5, atol=1e-6)


def test_input_is_left_as_it_was():
    frame = random_frame().astype(np.float32)
    before = frame.copy()
    as_embeddings([frame, {gene: np.arange(2.0) + i for i, gene in enumerate(GENES)}])
    pd.testing.assert_frame_equal(frame, before)


def test_sources_stay_apart_each_with_its_own_genes():
    text = random_frame(("A", "B", "C", "D"), dims=3)
    protein = 1000 * random_frame(("X", "D", "B", "A"), dims=2, seed=1)
    found = as_embeddings([text, protein])
    assert found.genes == ("A", "B", "C", "D", "X")
    assert found.source_dims == (3, 2)
    assert found.source_names == ("source 1", "source 2")
    np.testing.assert_allclose(found.vectors[:4, :3], standardize(text), rtol=1e-4)
    rows = [found.genes.index(gene) for gene in protein.index]
    np.testing.assert_allclose(found.vectors[rows, 3:], standardize(protein), rtol=1e-4)
    assert found.covered.tolist() == [[True, True], [True, True], [True, False], [True, True], [False, True]]
    np.testing.assert_array_equal(found.vectors[2, 3:], 0)
    np.testing.assert_array_equal(found.vectors[4, :3], 0)
    only = found.source("source 2")
    assert only.genes == ("A", "B", "D", "X")
    np.testing.assert_array_equal(only.vectors, found.vectors[[0, 1, 3, 4], 3:])


def test_names_of_sources():
    frame, other = random_frame(), random_frame(dims=2, seed=1)
    assert as_embeddings({"text": frame, "go": other}).source_names == ("text", "go")
    adata = SimpleNamespace(uns={"genept": frame, "esm": other})
    assert as_embeddings(["genept", "esm", frame], adata).source_names == ("genept", "esm", "source 3")
    named = as_embeddings({"text": frame})
    assert as_embeddings([named, named, frame]).source_names == ("text", "text (2)", "source 3")
    assert as_embeddings({"mine": as_embeddings(frame)}).source_names == ("mine",)
    assert as_embeddings({"mine": named}).source_names == ("mine",)
    assert as_embeddings([named, frame]).source_names == ("text", "source 2")
    # A dict of vectors is one source, whatever the genes are called.
    assert as_embeddings({"text": [1.0, 2.0], "go": [2.0, 1.0]}).genes == ("text", "go")


def test_embeddings_of_two_sources_in_a_list_keep_their_sources():
    two = as_embeddings([random_frame(dims=3), 50 * random_frame(dims=2, seed=1)])
    three = as_embeddings([two, random_frame(dims=4, seed=2)])
    assert three.source_dims == (3, 2, 4)
    np.testing.assert_allclose(three.vectors[:, :5], two.vectors, rtol=1e-5, atol=1e-6)


def test_sources_that_share_no_gene_are_refused():
    with pytest.raises(ValueError, match=r"embeddings\[0\] shares no gene .*has KLF1, CEBPA, GATA1 and 2 more; .* P1"):
        as_embeddings([random_frame(), random_frame(("P1", "P2"))])
    with pytest.raises(ValueError, match=r"proteins shares no gene with the other sources"):
        as_embeddings({"text": random_frame(), "go": random_frame(), "proteins": random_frame(("P1", "P2"))})


def test_a_source_of_equal_vectors_is_refused_by_name():
    equal = {gene: [1.0, 2.0] for gene in GENES}
    with pytest.raises(ValueError, match=r"embeddings\[1\].*all 5 genes have the same vector"):
        as_embeddings([random_frame(), equal])


def test_an_unknown_key_names_the_keys_there_are():
    with pytest.raises(KeyError, match="no key 'genept'; its keys: esm, text"):
        as_embeddings("genept", SimpleNamespace(uns={"esm": 1, "text": 2}))
    with pytest.raises(KeyError, match="its keys: none"):
        as_embeddings("genept", SimpleNamespace(uns={}))


@pytest.mark.parametrize(
    ("form", "match"),
    [
        (np.ones((3, 2)), "must be a DataFrame .* not ndarray"),
        (3, "not int"),
        ([[1.0, 2.0], [3.0, 4.0]], r"embeddings\[0\] must be .* not list"),
        (["array"], r"adata.uns\['array'\] must be .* not ndarray"),
    ],
)
def test_other_types_are_refused(form, match):
    with pytest.raises(TypeError, match=match):
        as_embeddings(form, SimpleNamespace(uns={"array": np.ones((2, 2))}))


def test_paths_and_keys_without_adata_point_to_read_embeddings(tmp_path):
    for form in ("genes.csv", tmp_path / "genes.csv"):
        with pytest.raises(TypeError, match=r"read_embeddings\(path\)"):
            as_embeddings(form)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty list"):
        as_embeddings([])


def test_all_entries_are_resolved_before_any_is_read():
    class Untouched(dict):
        def items(self):
            raise AssertionError("read too early")

        values = __iter__ = keys = items

    with pytest.raises(KeyError, match="no key 'absent'"):
        as_embeddings([Untouched(A=[1.0]), "absent"], SimpleNamespace(uns={}))


def test_a_transposed_table_is_told_by_the_genes_of_the_screen():
    transposed = random_frame().set_axis(list("0123"), axis=1).T  # dims named by strings, which could be symbols
    with pytest.raises(
        ValueError,
        match=r"embeddings\[1\]: the table is transposed\. Its columns are genes \(KLF1, MYC\), .* transpose, \.T",
    ):
        as_embeddings([random_frame(), transposed], genes=["MYC", "KLF1", "SOX2"])
    assert as_embeddings(transposed.T, genes=["MYC", "KLF1", "SOX2"]).genes == GENES
    assert as_embeddings(transposed).genes == tuple("0123")  # nothing to tell it by
    square = random_frame(dims=5).set_axis(GENES, axis=1)
    assert as_embeddings(square, genes=["MYC"]).genes == GENES  # genes × genes, such as a table of interactions
