"""Folds: nothing that a fold holds out leaks into its training labels."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distpert.cross_validation.splits import Fold, Splits, split_perturbations

SINGLES = [f"G{i}" for i in range(20)]
PAIRS = ["G0+G1", "G0+G2", "G1+G2", "G3+G4", "G5+X", "X+Y", "G6+G7", "G8+G9", "G10+G11"]


@st.composite
def screens(draw):
    genes = [f"G{i}" for i in range(draw(st.integers(4, 12)))]
    singles = draw(st.lists(st.sampled_from(genes), unique=True, min_size=1))
    pair = st.lists(st.sampled_from(genes), min_size=2, max_size=3, unique=True).map(lambda two: "+".join(sorted(two)))
    return sorted({*singles, *draw(st.lists(pair, max_size=20))}), draw(st.integers(2, 4)), draw(st.integers(0, 99))


@given(screens())
def test_what_is_held_out(screen):
    labels, n_folds, seed = screen
    try:
        splits = split_perturbations(labels, n_folds, seed=seed)
    except ValueError:
        assume(False)
    held_genes = [gene for fold in splits.folds for gene in fold.genes]
    assert sorted(held_genes) == sorted({gene for label in labels for gene in label.split("+")})
    sizes = [len(fold.genes) for fold in splits.folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in splits.folds:
        training = [label for label in labels if fold.trains_on(label)]
        assert training
        assert {*training, *fold.held_out} == set(labels)
        assert not set(training).intersection(fold.held_out)
        seen = {gene for label in training for gene in label.split("+")}
        assert not seen.intersection(fold.genes)
        for label, category in fold.held_out.items():
            genes = label.split("+")
            expected = "unseen_single" if len(genes) == 1 else f"combo_seen{sum(gene in seen for gene in genes)}"
            assert category == expected
    for label in labels:  # a single once, a combination at least once
        times = sum(label in fold.held_out for fold in splits.folds)
        assert times == 1 if "+" not in label else times >= 1


def test_each_combination_is_also_held_out_with_its_genes_in_training():
    labels = [*SINGLES, *PAIRS]
    for seed in range(5):
        splits = split_perturbations(labels, 5, seed=seed)
        with_singles = [pair for pair in PAIRS if set(pair.split("+")) <= set(SINGLES)]
        for pair in with_singles:  # unless its part of the pairs falls into the fold of one of its genes
            folds = [fold for fold in splits.folds if pair in fold.held_out]
            of_genes = [fold for fold in folds if set(pair.split("+")).intersection(fold.genes)]
            assert len(folds) - len(of_genes) in (0, 1)
            assert all(fold.held_out[pair] == "combo_seen2" for fold in folds if fold not in of_genes)
    assert splits.categories[0] == "unseen_single"
    assert "combo_seen2" in splits.categories


def test_a_gene_of_one_held_out_pair_alone_is_not_seen():
    splits = split_perturbations(["A", "B", "C", "A+Z"], 2, seed=0)
    for fold in splits.folds:
        if "A+Z" in fold.held_out:  # Z occurs nowhere else
            assert fold.held_out["A+Z"] == ("combo_seen0" if "A" in fold.genes else "combo_seen1")


def test_leave_one_out():
    splits = split_perturbations(SINGLES, len(SINGLES))
    assert sorted(next(iter(fold.held_out)) for fold in splits.folds) == sorted(SINGLES)
    assert all(len(fold.held_out) == 1 for fold in splits.folds)


def test_labels_for_training_only():
    splits = split_perturbations(["A", "B", "A+C"], 3, seed=0, training_only=["A+NEW", "C+NEW", "OTHER"])
    for fold in splits.folds:
        assert "OTHER" not in fold.held_out
        assert fold.trains_on("OTHER")
        assert fold.trains_on("A+NEW") == ("A" not in fold.genes)
        assert fold.trains_on("C+NEW") == ("C" not in fold.genes)
    of_a = next(fold for fold in splits.folds if "A" in fold.genes)
    assert of_a.held_out["A+C"] == "combo_seen1"  # C is seen in C+NEW


def test_labels_are_read_as_those_of_a_screen_are():
    """Nothing leaks because it is written in another way, and controls are not perturbations."""
    canonical = ["A", "B", "C", "D", "A+B", "C+D"]
    written = ["A", "ctrl+A", "B ", "C+control", "D", "B+A", "A+B", "D+C", "control", "ctrl+ctrl", "non-targeting"]
    expected = split_perturbations(canonical, 3, training_only=["A+E"])
    assert split_perturbations(written, 3, training_only=["E+A", "control"]) == expected
    named = ["A+NT" if label == "A" else label for label in canonical]
    assert split_perturbations([*named, "NT", "NT+NT"], 3, control="NT", training_only=["A+E"]) == expected
    for fold in expected.folds:
        assert fold.trains_on("control")
        for label, other in {"A+B": "B+A", "C+D": "D+C+ctrl", "A": "A+ctrl"}.items():
            assert fold.trains_on(other) == fold.trains_on(label)


def test_seed():
    one, same, other = (split_perturbations([*SINGLES, *PAIRS], 5, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert split_perturbations(np.array(SINGLES), 5) == split_perturbations(iter(SINGLES), 5)


def test_round_trip():
    splits = split_perturbations([*SINGLES, *PAIRS], 5, seed=4)
    assert Splits.from_json(splits.to_json()) == splits
    for text in ("", "{}", "[]", '{"folds": [1], "seed": 0}'):
        with pytest.raises(ValueError, match="has no splits"):
            Splits.from_json(text)


def test_prints_itself():
    folds = (Fold(("A",), {"A": "unseen_single", "A+B": "combo_seen1"}), Fold(("B",), {"B": "unseen_single"}))
    assert repr(Splits(folds, 7)).splitlines() == [
        "Splits: 2 folds of 3 perturbations, seed 7",
        "  fold  unseen_single    combo_seen1",
        "     0              1              1",
        "     1              1              0",
    ]


def test_errors():
    with pytest.raises(ValueError, match="n_folds must be at least 2, not 1"):
        split_perturbations(SINGLES, 1)
    with pytest.raises(ValueError, match="3 perturbations cannot be split into 4 folds: A, B, C"):
        split_perturbations(["A", "B", "C"], 4)
    with pytest.raises(ValueError, match="3 perturbed genes cannot be split into 4 folds"):
        split_perturbations(["A", "B", "C", "A+B", "B+C"], 4)
    with pytest.raises(ValueError, match="would leave nothing to train on"):
        split_perturbations(["A+B", "A+C"], 2)
    with pytest.raises(ValueError, match=r"n_folds must be a whole number of at least 2, not 2\.5"):
        split_perturbations(SINGLES, 2.5)
    with pytest.raises(TypeError, match=r"labels must be strings, .*; got nan"):
        split_perturbations([*SINGLES, float("nan")])
    with pytest.raises(ValueError, match="0 perturbations cannot be split into 9 folds: none"):
        split_perturbations(["control"])
