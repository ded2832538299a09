"""Requests for labels and contexts; `Fit.predict` and the baselines pass theirs on unchanged."""

import pytest

import distpert
from distpert.embeddings.sources import as_embeddings
from distpert.predictions.requested import requested_contexts, requested_labels


@pytest.fixture(scope="module")
def plain(small):
    return distpert.count_histograms(small.adata)


@pytest.fixture(scope="module")
def by_context(context_screen):
    return distpert.count_histograms(context_screen.adata, context_key="context")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("GENE1", ("GENE1",)),
        (["GENE6"], ("GENE6",)),  # has an embedding, no cells
        (("GENE2+GENE1", "ctrl+GENE3 "), ("GENE1+GENE2", "GENE3")),
    ],
)
def test_labels(plain, small, given, expected):
    assert requested_labels(given, plain, as_embeddings(small.embeddings)) == expected


def test_labels_in_training_need_no_embedding(plain, small):
    embeddings = as_embeddings(small.embeddings.drop(["GENE1", "GENE6"]))
    assert requested_labels("GENE1", plain, embeddings) == ("GENE1",)
    with pytest.raises(KeyError, match=r"no embedding for 2 genes: 'GENE1' \(nearest: .*'GENE6'"):
        requested_labels(["GENE2", "GENE1+GENE6"], plain, embeddings)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, r"no perturbation to predict"),
        ([3], TypeError, r"labels must be strings, .*; got 3"),
        (["GENE1", "ctrl"], KeyError, r"no embedding for 1 gene: 'ctrl'"),  # not what the controls are called here
        (["control"], ValueError, r"'control' labels the controls"),
        (["GENE1+GENE1"], ValueError, r"the label 'GENE1\+GENE1' names GENE1 twice"),
        (["GENE1", "GENE1+ctrl"], ValueError, r"named more than once .*: GENE1"),
    ],
)
def test_bad_labels(plain, small, given, error, message):
    with pytest.raises(error, match=message):
        requested_labels(given, plain, as_embeddings(small.embeddings))


def test_contexts(plain, by_context):
    assert requested_contexts(None, plain) == ("all",)
    assert requested_contexts(None, by_context) == ("context0", "context1")
    assert requested_contexts("context1", by_context) == ("context1",)
    assert requested_contexts(["context1", "context0"], by_context) == ("context1", "context0")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("contxt1", KeyError, r"no such context: contxt1. There are context0, context1; nearest context1"),
        ([], ValueError, r"no context to predict for"),
        (["context0", "context0"], ValueError, r"context named more than once: context0"),
    ],
)
def test_bad_contexts(by_context, given, error, message):
    with pytest.raises(error, match=message):
        requested_contexts(given, by_context)


def test_no_contexts(plain):
    with pytest.raises(KeyError, match=r"the fit has no contexts, so none can be chosen: all; see .*context_key="):
        requested_contexts("all", plain)
