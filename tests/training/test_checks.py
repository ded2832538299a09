"""What is asked of a training; `distpert.fit` and the baselines ask it of theirs."""

import numpy as np
import pandas as pd
import pytest

import distpert
from distpert.embeddings.sources import as_embeddings
from distpert.training.checks import check_controls, check_embedded, check_number


def test_controls(context_screen):
    histograms = distpert.count_histograms(context_screen.adata, context_key="context")
    check_controls(histograms)
    dataset = histograms.dataset
    kept = ((dataset["perturbation"] != "control") | (dataset["context"] != "context1")).to_numpy()
    with pytest.raises(ValueError, match=r"no control cells in context1\. Count them together"):
        check_controls(distpert.Histograms(dataset.isel(group=np.flatnonzero(kept))))


def test_numbers():
    check_number(["A", "B", "C"])
    with pytest.raises(ValueError, match="the training has 2 perturbations; at least 3 are needed"):
        check_number(["A", "B"])


def test_embeddings():
    embeddings = as_embeddings({"A": [1.0, 0.0], "B": [0.0, 1.0], "C": [1.0, 1.0]})
    check_embedded(["A", "B", "C", "A+B"], embeddings, others="left")
    with pytest.warns(UserWarning, match=r"^no embedding for D, A\+E: left$") as caught:
        check_embedded(["A", "B", "C", "D", "A+E"], embeddings, others="left", stacklevel=2)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"A_B: left\. Pairs are written with a plus sign: 'A_B' would be 'A\+B'\.$"):
        check_embedded(["A", "B", "C", "A_B"], embeddings, others="left")
    with pytest.raises(ValueError, match=r"same symbols\? Pairs are written with a plus sign: 'A_B'"):
        check_embedded(["A", "B", "A_B"], embeddings, others="left")
    with pytest.raises(ValueError, match=r"same symbols\? Pairs are written with a plus sign: 'A_B' would be 'A\+B'"):
        check_embedded(["A", "B", "A_B+C"], embeddings, others="left")
    with pytest.raises(ValueError, match=r"2 of 3 .*at least 3 .* without one: E\. .* of A, B, C: do they use"):
        check_embedded(["A", "B", "A+E"], embeddings, others="left")


def test_one_warning_counts_what_sources_lack():
    text = pd.DataFrame(np.eye(5), index=list("ABCDE"))
    embeddings = as_embeddings({"text": text, "go": text.iloc[:3], "papers": text.iloc[:4]})
    told = (
        r"^no embedding for X: left\. of 5 perturbations with an embedding, go lacks 2 \(D, E\); "
        r"papers lacks 1 \(E\)\. Their predictions rest on the other sources$"
    )
    with pytest.warns(UserWarning, match=told) as caught:
        check_embedded([*"ABCDE", "X"], embeddings, others="left")
    assert len(caught) == 1
    check_embedded(["A", "B", "C"], embeddings, others="left")
