"""Embeddings: lookup by label, sums, standardization and the forms that are accepted."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpert.embeddings.vectors import Embeddings, as_embeddings, standardize

GENES = ("KLF1", "CEBPA", "GATA1", "TP53", "MYC")


def random_frame(genes=GENES, dims=4, seed=0):
    values = np.random.default_rng(seed).normal(3.0, 2.0, size=(len(genes), dims))
    return pd.DataFrame(values, index=list(genes))


@pytest.fixture
def embeddings():
    return as_embeddings(random_frame())


def test_repr_says_what_it_holds(embeddings):
    assert repr(embeddings) == "Embeddings: 5 genes x 4 dims (1 source)"
    with_two = as_embeddings([random_frame(), random_frame(dims=3)])
    assert repr(with_two) == "Embeddings: 5 genes x 7 dims (2 sources: 4 + 3)"


def test_embeddings_are_frozen_and_check_their_shape(embeddings):
    with pytest.raises(dataclasses.FrozenInstanceError):
        embeddings.genes = ()
    with pytest.raises(ValueError, match=r"shape \(2, 3\), from genes and source_dims, not \(2, 4\)$"):
        Embeddings(genes=("A", "B"), vectors=np.ones((2, 4), np.float32), source_dims=(1, 2))


def test_of_a_gene_is_its_row_and_of_a_pair_the_sum(embeddings):
    klf1, cebpa = embeddings.vectors[0], embeddings.vectors[1]
    found = embeddings.of(["CEBPA", "KLF1+CEBPA", "KLF1+KLF1"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [cebpa, klf1 + cebpa, 2 * klf1])
    assert embeddings.of([]).shape == (0, 4)


@settings(max_examples=25, deadline=None)
@given(
    genes=st.lists(st.sampled_from(GENES), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
)
def test_a_combination_is_the_sum_in_any_order_to_the_last_bit(genes, seed, scale):
    rng = np.random.default_rng(seed)
    vectors = (scale * rng.normal(size=(5, 7)) ** 3).astype(np.float32)
    embeddings = Embeddings(genes=GENES, vectors=vectors, source_dims=(7,))
    orders = ["+".join(order) for order in itertools.permutations(genes)]
    found = embeddings.of(orders)
    assert (found.view(np.uint32) == found[:1].view(np.uint32)).all()
    rows = [vectors[GENES.index(gene)].astype(np.float64) for gene in genes]
    np.testing.assert_allclose(found[0], sum(rows), rtol=1e-5, atol=1e-5 * np.abs(rows).max())


def test_has_and_missing(embeddings):
    assert embeddings.has("KLF1")
    assert embeddings.has("KLF1+MYC")
    assert not embeddings.has("KLF1+KLF2")
    assert not embeddings.has("")
    assert embeddings.missing(["KLF1", "A+KLF1", "A+B", "MYC+TP53"]) == {"A+KLF1": ("A",), "A+B": ("A", "B")}


def test_of_names_every_missing_gene_once_and_its_neighbors(embeddings):
    with pytest.raises(KeyError) as caught:
        embeddings.of(["klf1", "MYC", "klf1+GATA2", "QQQQ"])
    message = caught.value.args[0]
    assert message == (
        "no embedding for 3 genes: 'klf1' (nearest: KLF1), 'GATA2' (nearest: GATA1), 'QQQQ' (nearest: none). "
        "'klf1' and 'KLF1' differ only in case: write them the same way."
    )


def test_of_says_how_pairs_are_written(embeddings):
    with pytest.raises(KeyError, match=r"'MYC_KLF1' .*\. Pairs are written with a plus sign: .* 'MYC\+KLF1'"):
        embeddings.of(["MYC_KLF1"])


def test_of_names_all_of_many_missing_genes(embeddings):
    missing = [f"GENE{i}" for i in range(50)]
    with pytest.raises(KeyError) as caught:
        embeddings.of(missing)
    message = caught.value.args[0]
    assert message.startswith("no embedding for 50 genes: ")
    assert all(repr(gene) in message for gene in missing)


@pytest.mark.parametrize("method", ["of", "missing"])
def test_a_single_string_is_not_taken_for_a_list_of_letters(embeddings, method):
    with pytest.raises(TypeError, match=r"pass \['KLF1'\]"):
        getattr(embeddings, method)("KLF1")


# standardize


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


def test_sources_are_standardized_one_by_one_over_the_genes_they_share():
    text = random_frame(("A", "B", "C", "D"), dims=3)
    protein = 1000 * random_frame(("X", "D", "B", "A"), dims=2, seed=1)
    with pytest.warns(UserWarning, match="left out") as caught:
        found = as_embeddings([text, protein])
    assert len(caught) == 1
    assert str(caught[0].message) == (
        "left out genes that some embedding sources lack (embeddings[0] lacks 1, embeddings[1] lacks 1): C, X"
    )
    assert caught[0].filename == __file__
    shared = ["A", "B", "D"]
    assert found.genes == tuple(shared)
    assert found.source_dims == (3, 2)
    np.testing.assert_allclose(found.vectors[:, :3], standardize(text.loc[shared]), rtol=1e-4)
    np.testing.assert_allclose(found.vectors[:, 3:], standardize(protein.loc[shared]), rtol=1e-4)


def test_the_warning_cuts_long_lists():
    with pytest.warns(UserWarning, match=r"G9 and 20 more$"):
        as_embeddings([random_frame(), random_frame((*(f"G{i}" for i in range(30)), *GENES))])


def test_embeddings_of_two_sources_in_a_list_keep_their_sources():
    two = as_embeddings([random_frame(dims=3), 50 * random_frame(dims=2, seed=1)])
    three = as_embeddings([two, random_frame(dims=4, seed=2)])
    assert three.source_dims == (3, 2, 4)
    np.testing.assert_allclose(three.vectors[:, :5], two.vectors, rtol=1e-5, atol=1e-6)


def test_sources_that_share_no_gene_are_refused():
    with pytest.raises(ValueError, match=r"share no gene: .*has KLF1, CEBPA, GATA1 and 2 more; .*has P1, P2"):
        as_embeddings([random_frame(), random_frame(("P1", "P2"))])


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
