import re

import pytest

from distpert._shared.labels import (
    CONTROL_LABELS,
    canonical_label,
    genes_of,
    listed,
    looks_unperturbed,
    resolve_control,
    spelling_hint,
)


@pytest.mark.parametrize(
    ("label", "canonical"),
    [
        ("KLF1", "KLF1"),
        (" KLF1 ", "KLF1"),
        ("KLF1+ctrl", "KLF1"),
        ("ctrl+KLF1", "KLF1"),
        ("KLF1+control", "KLF1"),
        ("non-targeting+KLF1", "KLF1"),
        ("KLF1+NT", "KLF1"),
        ("ctrl+ctrl", "NT"),
        ("NT+ctrl", "NT"),
        ("NT", "NT"),
        ("B+A", "A+B"),
        ("A+B", "A+B"),
        (" B + A ", "A+B"),
        ("C+A+B", "A+B+C"),
        ("A+", "A"),
        ("+", "+"),
        ("", ""),
        ("ctrl", "ctrl"),  # a label of one part is left alone
    ],
)
def test_canonical_label(label, canonical):
    assert canonical_label(label, "NT") == canonical
    assert canonical_label(canonical, "NT") == canonical


@pytest.mark.parametrize(("label", "gene", "once"), [("A+A", "A", "A"), ("A+ctrl+ A", "A", "A"), ("B+A+B", "B", "A+B")])
def test_a_gene_named_twice(label, gene, once):
    with pytest.raises(ValueError, match=f"the label '{re.escape(label)}' names {gene} twice.* '{re.escape(once)}'$"):
        canonical_label(label, "NT")
    assert canonical_label("NT+NT+ctrl+ctrl", "NT") == "NT"


def test_control_with_a_plus_sign_is_left_alone():
    assert canonical_label("safe+NT", "safe+NT") == "safe+NT"


def test_genes_of():
    assert genes_of("KLF1") == ("KLF1",)
    assert genes_of("A + B") == ("A", "B")
    assert genes_of("") == ()


@pytest.mark.parametrize("present", CONTROL_LABELS)
@pytest.mark.parametrize("asked", CONTROL_LABELS)
def test_one_usual_control_label_stands_for_another(asked, present):
    assert resolve_control(asked, ["A", present]) == present


def test_the_label_asked_for_comes_first():
    assert resolve_control("control", ["A", "non-targeting", "control"]) == "control"
    assert resolve_control("NT", ["A", "control", "NT"]) == "NT"


def test_two_guide_control_counts():
    assert resolve_control("control", ["A+ctrl", "ctrl+ctrl"]) == "ctrl"


@pytest.mark.parametrize(
    ("control", "labels"),
    [
        ("control", ["A", "B"]),
        ("control", ["A", "ctrl", "non-targeting"]),  # which one?
        ("NT", ["A", "control"]),  # asked for by name: no guessing
        ("control", ["A+ctrl"]),
    ],
)
def test_no_control_label(control, labels):
    with pytest.raises(ValueError, match=f"labeled '{control}'.*labels there are: .*control=") as caught:
        resolve_control(control, labels)
    assert all(label in str(caught.value) for label in labels)


def test_labels_in_the_error_are_cut_behind_those_of_controls():
    labels = [f"G{i:02}" for i in range(22)] + ["NT-1", "non_targeting"]
    with pytest.raises(ValueError, match=r"there are: NT-1, non_targeting, G00, .*G07 and 14 more"):
        resolve_control("control", labels)


def test_listed():
    assert listed([]) == "none"
    assert listed(["a", 2]) == "a, 2"
    assert listed("abc", most=3) == "a, b, c"
    assert listed("abcd", most=2) == "a, b and 2 more"


@pytest.mark.parametrize("separator", ["_", ",", ", ", "|", ";", "/", ":", "&", ".", " ", "-", "__"])
def test_pairs_with_another_sign(separator):
    wanted = f" Pairs are written with a plus sign: {f'KLF1{separator}MYC'!r} would be 'KLF1+MYC'."
    assert spelling_hint(["HLA-A", f"KLF1{separator}MYC", "MYC_KLF1"], ["MYC", "KLF1", "HLA-A"]) == wanted
    assert spelling_hint([f"KLF1{separator}ctrl"], {"KLF1"}).endswith("would be 'KLF1+ctrl'.")
    assert spelling_hint([f"HLA-A{separator.replace('-', '_')}MYC"], {"HLA-A", "MYC"}).endswith("would be 'HLA-A+MYC'.")
    others = ["KLF1{}MYC", "MYC{}MYC", "ctrl{}control", "MYC{}", "klf1"]
    assert spelling_hint([name.format(separator) for name in others], ["MYC"]) == ""


def test_other_case_and_guides():
    genes = ["KLF1", "MYC", "HLA-A"]
    assert spelling_hint(["TP53", "hla-a"], genes) == " 'hla-a' and 'HLA-A' differ in case."
    for name in ("MYC_1", "MYC-2", "MYC.g3", "MYC_sgRNA12"):
        expected = f" {name!r} looks like a guide: label cells by the gene that it targets, 'MYC'."
        assert spelling_hint([name], genes) == expected
    assert spelling_hint(["MYC_x", "TP53_1", "1_2", "MYC_1_2"], genes) == ""


@pytest.mark.parametrize(
    ("label", "expected"),
    [(name, True) for name in ("NT", "NT-3", "ntc", "non_targeting", "Non-Targeting_12", "Control", "unassigned")]
    + [(name, False) for name in ("NT5C", "NTF3", "CTRB1", "MYC", "A+ctrl", "5", "")],
)
def test_labels_of_cells_without_perturbation(label, expected):
    assert looks_unperturbed(label) == expected
