"""Sums of shifts against sums written out."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distpert.baselines import Additive, PooledHistogram
from distpert.baselines.additive import signal_share
from distpert.training.controls import smoothed_controls

DAYS = ("d1", "d2", "d3")
CELLS = {"A": {"d1": 12, "d2": 20, "d3": 32}, "B": {"d1": 15, "d2": 15, "d3": 15}, "C": {"d1": 9, "d2": 11, "d3": 20}}
CONTROLS = {"d1": 40, "d2": 25, "d3": 30}
SINGLES = ("A", "B", "C")
LABELS = ["A", "A+B", "B+C", "A+E", "F", "E+F", "A+B+C"]


def normalize(array):
    return array / array.sum(axis=-1, keepdims=True)


def brute_share(tiny, label, day):
    """One less the noise over the size, gene by gene, bin by bin."""
    n, n_control = CELLS[label][day], CONTROLS[day]
    out = np.zeros((4, 1))
    for g in range(4):
        s, c = tiny.shares(label, day)[g], tiny.shares("control", day)[g]
        noise = size = 0.0
        for b in range(6):
            left, right = s[: b + 1].sum(), c[: b + 1].sum()
            noise += left * (1 - left) / (n - 1) + right * (1 - right) / (n_control - 1)
            size += (left - right) ** 2
        out[g] = max(0.0, 1 - noise / size)
    return out


def brute_shift(tiny, gene, day, shrink):
    if gene not in SINGLES:
        return np.mean([tiny.shift(single, day) for single in SINGLES], axis=0)
    if not shrink:
        return tiny.shift(gene, day)
    days = [d for d in DAYS if len(tiny.cells(gene, d))]
    used = [day] if day in days else days
    return np.mean([brute_share(tiny, gene, d) * tiny.shift(gene, d) for d in used], axis=0)


@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("prior_cells", [1, None, 7.5])
def test_probabilities(tiny, shrink, prior_cells):
    prediction = Additive(shrink=shrink, prior_cells=prior_cells).fit(tiny.histograms, tiny.embeddings).predict(LABELS)
    pooled = PooledHistogram().fit(tiny.histograms, tiny.embeddings).predict("F").probs[0]
    weight = 50 if prior_cells is None else prior_cells
    for p, label in enumerate(LABELS):
        for c, day in enumerate(DAYS):
            genes = label.split("+")
            total = tiny.shares("control", day) + sum(brute_shift(tiny, gene, day, shrink) for gene in genes)
            fewest = min(CELLS[gene][day] if gene in SINGLES else 67 for gene in genes)
            expected = (fewest * normalize(np.clip(total, 0, None)) + weight * pooled[c]) / (fewest + weight)
            np.testing.assert_allclose(prediction.probs[p, c], expected, rtol=1e-10, err_msg=f"{label} {day}")


def test_without_contexts(tiny_all):
    fitted = Additive(shrink=False, prior_cells=1e-9).fit(tiny_all.histograms, tiny_all.embeddings)
    pair = fitted.predict("A+B").probs[0, 0]
    total = tiny_all.shares("A") + tiny_all.shares("B") - tiny_all.shares("control")
    np.testing.assert_allclose(pair, normalize(np.clip(total, 0, None)), atol=1e-8)
    np.testing.assert_allclose(fitted.predict("C").probs[0, 0], tiny_all.shares("C"), atol=1e-8)
    mean = np.mean([tiny_all.shares(single) - tiny_all.shares("control") for single in SINGLES], axis=0)
    twice = normalize(np.clip(tiny_all.shares("control") + 2 * mean, 0, None))
    np.testing.assert_allclose(fitted.predict("E+F").probs[0, 0], twice, atol=1e-8)


@pytest.mark.parametrize("prior_cells", [None, 30])
def test_logits(tiny, prior_cells):
    fitted = Additive("logit", prior_cells=prior_cells).fit(tiny.histograms, tiny.embeddings)
    prediction = fitted.predict(LABELS)
    dataset = tiny.histograms.dataset
    control = smoothed_controls(
        dataset["counts"].to_numpy(),
        dataset["n_cells"].to_numpy(),
        np.searchsorted(DAYS, dataset["context"].to_numpy()),
        dataset["perturbation"].to_numpy() == "control",
    )
    weight = 200 if prior_cells is None else prior_cells

    def log_ratio(label, day):
        c = DAYS.index(day)
        smoothed = (tiny.counts(label, day) + weight * control[c]) / (len(tiny.cells(label, day)) + weight)
        return np.log(smoothed / control[c])

    def shift(gene, day):
        if gene not in SINGLES:
            return np.mean([shift(single, day) for single in SINGLES], axis=0)
        days = [d for d in DAYS if len(tiny.cells(gene, d))]
        return np.mean([log_ratio(gene, d) for d in ([day] if day in days else days)], axis=0)

    for p, label in enumerate(LABELS):
        for c, day in enumerate(DAYS):
            ratios = [np.exp(shift(gene, day)) for gene in label.split("+")]
            expected = normalize(reduce(np.multiply, ratios, control[c]))
            np.testing.assert_allclose(prediction.probs[p, c], expected, rtol=1e-10, err_msg=f"{label} {day}")


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_no_bin_is_impossible(tiny, scale):
    assert (Additive(scale).fit(tiny.histograms, tiny.embeddings).predict(LABELS).probs > 0).all()


def test_pairs_in_training_make_no_shifts(tiny):
    """But they count among the pooled cells."""
    options = {"shrink": False, "prior_cells": 1e-9}
    labels = ["A+B", "E", "C"]
    both = [
        Additive(**options).fit(histograms, tiny.embeddings).predict(labels, context=["d1", "d2"]).probs
        for histograms in (tiny.histograms, tiny.histograms.drop(["A+B", "C+D"]))
    ]
    np.testing.assert_allclose(*both, atol=1e-8)


def test_pairs_alone(tiny):
    with pytest.raises(ValueError, match=r"no perturbation in training is of one gene"):
        Additive().fit(tiny.histograms.select(["A+B"]), tiny.embeddings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "log"}, r"scale must be 'probability' or 'logit', not 'log'"),
        ({"prior_cells": 0}, r"prior_cells must be a number above 0, not 0"),
        ({"prior_cells": float("nan")}, r"prior_cells must be a number above 0, not nan"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Additive(**options)


# -------------------------------------------------------------------------------------------------------- signal_share


def shares_of(n_cells, probs, rng):
    return rng.multinomial(n_cells, probs) / n_cells


def test_signal_share_tells_signal_from_sampling():
    rng = np.random.default_rng(0)
    n, n_control = np.array([60]), np.array([400])
    control, other = rng.dirichlet(np.ones(10), size=(2, 2000))
    drawn = shares_of(400, control, rng)[None]
    nothing = signal_share(shares_of(60, control, rng)[None], drawn, n, n_control)
    assert np.median(nothing) == 0
    assert nothing.mean() < 0.2
    much = signal_share(shares_of(60, other, rng)[None], drawn, n, n_control)
    assert np.median(much) > 0.8
    # Size less noise is an unbiased estimate of the squared distance of the CDFs.
    shares = shares_of(60, other, rng)[None]
    size = ((shares - drawn).cumsum(axis=-1) ** 2).sum(axis=-1)
    kept = signal_share(shares, drawn, n, n_control)[..., 0]
    true = ((other - control).cumsum(axis=-1) ** 2).sum(axis=-1)
    far = true > np.quantile(true, 0.7)  # where nothing is cut at zero
    difference = (kept * size - true)[0, far]
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(far.sum())


def test_one_cell_tells_no_signal():
    shares, control = np.eye(3)[None, :1], np.full((1, 1, 3), 1 / 3)
    assert signal_share(shares, control, np.array([1]), np.array([50])) == 0
    assert signal_share(shares, control, np.array([50]), np.array([1])) == 0
    assert signal_share(shares, control, np.array([50]), np.array([50])) > 0.9
    assert signal_share(control, control, np.array([50]), np.array([50])) == 0


@given(st.integers(2, 50), st.integers(2, 50), st.integers(0, 2**32))
def test_signal_share_is_a_share(n, n_control, seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(5, 0.3), size=3)
    shares, control = shares_of(n, probs, rng)[None], shares_of(n_control, probs, rng)[None]
    share = signal_share(shares, control, np.array([n]), np.array([n_control]))
    assert ((share >= 0) & (share <= 1)).all()
