"""The messages that docs/bring_your_own_data.md quotes are those of the code."""

import re
import warnings
from pathlib import Path

import pytest

import distpert

PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own_data.md"


@pytest.fixture(scope="module")
def documented():
    return [" ".join(block.split()) for block in re.findall(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)]


@pytest.fixture
def adata():
    return distpert.datasets.renge()


@pytest.fixture
def embeddings(adata):
    return adata.uns["embeddings"]


class Stopped(Exception):
    """Raised in place of the optimization: all messages come before it."""


def message_of(function):
    """Message of the error, or else of the only warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            function()
        except Stopped:
            pass
        except Exception as error:
            return error.args[0]
    (warning,) = caught
    return str(warning.message)


def without_labels(adata):
    labels = adata.obs["perturbation"].astype(object)
    labels.iloc[:100] = None
    return labels


def raw_counts(adata, embeddings):
    distpert.count_histograms(adata, layer="counts")


def another_control_label(adata, embeddings):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("control", "NT")
    distpert.fit(adata, embeddings)


def missing_labels(adata, embeddings):
    adata.obs["perturbation"] = without_labels(adata)
    distpert.count_histograms(adata)


def missing_labels_as_text(adata, embeddings):
    adata.obs["perturbation"] = without_labels(adata).where(lambda labels: labels.notna(), "nan")
    distpert.fit(adata, embeddings)


def one_embedding_missing(adata, embeddings):
    distpert.fit(adata, embeddings.drop("POU5F1"), progress_bar=False)


def other_symbols(adata, embeddings):
    distpert.fit(adata, embeddings.rename(str.lower))


def transposed(adata, embeddings):
    distpert.fit(adata, embeddings.T)


def unknown_gene(adata, embeddings):
    from distpert.embeddings.sources import as_embeddings

    as_embeddings(embeddings).of(["Sall4"])


MISTAKES = [
    raw_counts,
    another_control_label,
    missing_labels,
    missing_labels_as_text,
    one_embedding_missing,
    other_symbols,
    transposed,
    unknown_gene,
]


@pytest.mark.parametrize("position", range(len(MISTAKES)), ids=[mistake.__name__ for mistake in MISTAKES])
def test_the_page_quotes_the_message(documented, adata, embeddings, monkeypatch, position):
    def stop(*_, **__):
        raise Stopped

    monkeypatch.setattr("distpert.fitting.fitting.optimize", stop)
    assert message_of(lambda: MISTAKES[position](adata, embeddings)) == documented[position]


def test_every_quotation_is_tested(documented):
    assert len(documented) == len(MISTAKES)
