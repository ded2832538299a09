"""Embeddings: lookup by label, sums, sources and their coverage."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpert.embeddings.sources import as_embeddings
from distpert.embeddings.vectors import Embeddings

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
    assert repr(with_two) == "Embeddings: 5 genes x 7 dims (2 sources: source 1 4, source 2 3)"
    partial = as_embeddings({"text": random_frame(), "go": random_frame(GENES[:3], dims=3)})
    assert repr(partial) == "Embeddings: 5 genes x 7 dims (2 sources: text 4, go 3 for 3 genes)"


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


# -------------------------------------------------------------------------------------------------------------- sources


@pytest.fixture
def partial():
    """Two sources; the second lacks a gene, the first another."""
    return as_embeddings({"text": random_frame(GENES[1:]), "go": random_frame(GENES[:-1], dims=3, seed=1)})


def test_a_gene_of_any_source_has_an_embedding(partial):
    assert partial.has("KLF1")
    assert partial.has("KLF1+MYC")
    assert set(partial.genes) == set(GENES)


def test_covers(partial):
    labels = ["MYC", "KLF1", "GATA1", "GATA1+TP53", "GATA1+MYC", "KLF1+MYC", "NEW"]
    expected = [[1, 0], [0, 1], [1, 1], [1, 1], [1, 0], [0, 0], [0, 0]]
    np.testing.assert_array_equal(partial.covers(labels), np.array(expected, bool))


def test_a_missing_part_is_zero(partial):
    (myc,) = partial.of(["MYC"])
    assert (myc[partial.columns(1)] == 0).all()
    assert (myc[partial.columns(0)] != 0).any()
    pair, gata1 = partial.of(["GATA1+MYC", "GATA1"])
    np.testing.assert_array_equal(pair[partial.columns(1)], gata1[partial.columns(1)])


def test_one_source(partial):
    go = partial.source("go")
    assert go.source_names == ("go",)
    assert set(go.genes) == set(GENES[:-1])
    np.testing.assert_array_equal(go.of(["TP53"]), partial.of(["TP53"])[:, partial.columns(1)])
    with pytest.raises(KeyError, match="no source 'esm'; the sources are text, go"):
        partial.source("esm")


def test_other_names_of_genes():
    embeddings = dataclasses.replace(
        as_embeddings(random_frame()), aliases={"EKLF": "KLF1", "TP53": "MYC", "X": "NONE"}
    )
    assert embeddings.has("EKLF+TP53")
    assert not embeddings.has("X")
    np.testing.assert_array_equal(embeddings.of(["EKLF", "TP53"]), embeddings.of(["KLF1", "TP53"]))
    assert embeddings.covers(["EKLF"]).all()
    assert as_embeddings([embeddings]).has("EKLF")


def test_malformed_sources_are_refused():
    vectors = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"covered must have the shape \(2, 2\), not \(2, 1\)"):
        Embeddings(("A", "B"), vectors, (1, 2), covered=np.ones((2, 1), bool))
    with pytest.raises(ValueError, match="2 sources need as many different names"):
        Embeddings(("A", "B"), vectors, (1, 2), ("text", "text"))
