"""Embeddings of descriptions, by encoders that need no download."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import distpert

TEXTS = {"SOX2": "pluripotency factor", "MYC": "growth", "ID1": "inhibitor of differentiation"}


class Letters:
    """Counts letters; notes what it was given."""

    def __init__(self):
        self.batches = []

    def encode(self, texts):
        self.batches.append(texts)
        return [[float(text.count(letter)) for letter in "aeiot"] for text in texts]


def embed(descriptions, encoder=None, **options):
    return distpert.embed_text(descriptions, encoder or Letters(), progress_bar=False, **options)


def test_one_row_a_gene_in_the_order_given():
    frame = embed(TEXTS)
    assert frame.index.tolist() == ["SOX2", "MYC", "ID1"]
    assert (frame.index.name, frame.columns.name) == ("gene", "dim")
    assert set(frame.dtypes) == {np.dtype(np.float32)}
    for gene, text in TEXTS.items():
        assert frame.loc[gene].tolist() == [text.count(letter) for letter in "aeiot"]


def test_all_forms_of_descriptions_agree():
    series = pd.Series(TEXTS)
    for form in (series, series.to_frame("summary"), series.astype("string"), series.add("  ")):
        pd.testing.assert_frame_equal(embed(form), embed(TEXTS))


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3]), (256, [3])])
def test_batches_hold_every_text_once_in_order(batch_size, sizes):
    encoder = Letters()
    frame = embed(TEXTS, encoder, batch_size=batch_size)
    assert [len(batch) for batch in encoder.batches] == sizes
    assert all(type(batch) is list for batch in encoder.batches)
    assert [text for batch in encoder.batches for text in batch] == list(TEXTS.values())
    pd.testing.assert_frame_equal(frame, embed(TEXTS))


def test_the_result_is_a_source_for_fit(small):
    words = {gene: f"{gene} {'a' * i}{'e' * (i % 3)}o" for i, gene in enumerate(small.embeddings.index)}
    fit = distpert.fit(small.adata, [small.embeddings, embed(words)], progress_bar=False)
    assert fit.embeddings.source_dims == (small.embeddings.shape[1], 5)


@pytest.mark.parametrize(
    ("descriptions", "error", "match"),
    [
        ({**TEXTS, "A": "", "B": None, "C": " ", "D": np.nan}, ValueError, r"no text for A, B, C, D\."),
        (
            {**TEXTS, "A": "growth ", "B": "x", "C": "x"},
            ValueError,
            r"these genes have the same text: MYC = A, B = C\. Describe each",
        ),
        (pd.Series(["x", "y", "z"], index=["A", "A", "B"]), ValueError, r"duplicated gene symbols: A\."),
        (pd.Series(["x", "y"]), ValueError, "index must hold gene symbols, but has 0, 1$"),
        ({}, ValueError, "no gene has a text"),
        (["x", "y"], TypeError, "one column of a table, not list"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}, index=["A"]), TypeError, "not a DataFrame of 2 columns"),
    ],
)
def test_descriptions_are_refused_by_name_before_any_is_encoded(descriptions, error, match):
    encoder = Letters()
    with pytest.raises(error, match=match):
        embed(descriptions, encoder)
    assert not encoder.batches


class Gives:
    def __init__(self, value):
        self.value = value

    def encode(self, texts):
        return self.value


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.ones(3), r"array of shape \(3,\) for the 3 texts of SOX2, MYC, ID1"),
        (np.ones((2, 4)), r"array of shape \(2, 4\) for the 3 texts"),
        (np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0]]), "NaN or infinite values .* for MYC"),
        (np.array([[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]]), "all-zero vectors.* ID1"),
        (
            np.array([["a"], ["b"], ["c"]]),
            "for the texts of SOX2, MYC, ID1 must hold real numbers",
        ),
    ],
)
def test_what_an_encoder_gives_is_checked(value, match):
    with pytest.raises(ValueError, match=match):
        embed(TEXTS, Gives(value))


@pytest.mark.parametrize("encoder", [3, len, Letters])
def test_what_is_no_encoder(encoder):
    with pytest.raises(TypeError, match=r"an object with .encode\(texts\), or the name or folder of a model"):
        embed(TEXTS, encoder)


def test_batches_of_nothing():
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        embed(TEXTS, batch_size=0)


@pytest.mark.parametrize("as_path", [False, True])
def test_a_name_or_folder_is_loaded_by_sentence_transformers(monkeypatch, tmp_path, as_path):
    asked = []
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = lambda name: asked.append(name) or Letters()
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    model = tmp_path if as_path else "all-MiniLM-L6-v2"
    pd.testing.assert_frame_equal(embed(TEXTS, model), embed(TEXTS))
    assert asked == [str(model)]


def test_without_sentence_transformers_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # importing it raises ImportError
    with pytest.raises(ImportError, match=r"load the model 'all-MiniLM-L6-v2'.*pip install sentence-transformers"):
        embed(TEXTS, "all-MiniLM-L6-v2")
