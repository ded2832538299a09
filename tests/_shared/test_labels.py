import re

import numpy as np
import pytest

from distpert._shared.labels import (
    CONTROL_LABELS,
    canonical_label,
    genes_of,
    is_usual_control,
    label_text,
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
        ("KLF1+CTRL", "KLF1"),
        ("Non-Targeting+KLF1", "KLF1"),
        ("Control+ctrl", "NT"),
        ("KLF1+nt", "KLF1+nt"),  # only the usual control labels count in any case
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
        ("CTRL", "CTRL"),
        ("KLF1_+_7437.23", "KLF1_+_7437.23"),  # the plus of a strand
        ("MYC+KLF1_+_7437.23", "KLF1_+_7437.23+MYC"),
        ("chr6:100-200(+)", "chr6:100-200(+)"),
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


@pytest.mark.parametrize(
    ("label", "genes"),
    [
        ("CDKN1A_+_36646433.23", ("CDKN1A_+_36646433.23",)),
        ("chr6:100-200(+)", ("chr6:100-200(+)",)),
        ("chr6:100-200(+)+KLF1", ("chr6:100-200(+)", "KLF1")),
        ("KLF1_+_7437.23+MYC_+_12.2", ("KLF1_+_7437.23", "MYC_+_12.2")),
        ("KLF1_-_7437.23+MYC_-_12.2", ("KLF1_-_7437.23", "MYC_-_12.2")),
        ("KLF1_+MYC", ("KLF1_", "MYC")),  # a plus with a sign on one side alone
        ("KLF1+_MYC", ("KLF1", "_MYC")),
        ("KLF1++MYC", ("KLF1", "MYC")),
    ],
)
def test_the_plus_of_a_strand_does_not_separate_genes(label, genes):
    assert genes_of(label) == genes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("A", "A"),
        (" A+B\t", "A+B"),
        (np.str_(" A"), "A"),
        (5, "5"),
        (5.0, "5"),
        (np.float32(5), "5"),
        (np.float64(5), "5"),
        (np.int8(5), "5"),
        (-0.0, "0"),
        (-2.0, "-2"),
        (2.5, "2.5"),
        (np.float32(2.5), "2.5"),
        (1e15, "1000000000000000"),
        ("5.0", "5.0"),  # text stays as it is
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (None, "None"),
        ("", ""),
    ],
)
def test_text_of_labels(value, text):
    assert label_text(value) == text
    assert label_text(text) == text
    assert type(label_text(value)) is str


@pytest.mark.parametrize("present", CONTROL_LABELS)
@pytest.mark.parametrize("asked", CONTROL_LABELS)
def test_one_usual_control_label_stands_for_another(asked, present):
    assert resolve_control(asked, ["A", present]) == present


@pytest.mark.parametrize("asked", ["control", "Ctrl", "NON-TARGETING"])
@pytest.mark.parametrize("present", ["Non-Targeting", "CTRL", "Control", "ctrl"])
def test_usual_control_labels_in_another_case(asked, present):
    assert is_usual_control(asked)
    assert is_usual_control(present)
    assert resolve_control(asked, ["A", present, f"{present}+A"]) == present
    assert resolve_control(asked, ["A", f"{present}+{present}"]) == present


def test_the_label_asked_for_comes_first():
    assert resolve_control("control", ["A", "non-targeting", "control"]) == "control"
    assert resolve_control("NT", ["A", "control", "NT"]) == "NT"
    assert resolve_control("ctrl", ["A", "CTRL", "ctrl", "Control"]) == "ctrl"


def test_two_guide_control_counts():
    assert resolve_control("control", ["A+ctrl", "ctrl+ctrl"]) == "ctrl"


@pytest.mark.parametrize(
    ("control", "labels"),
    [
        ("control", ["A", "B"]),
        ("control", ["A", "ctrl", "non-targeting"]),  # which one?
        ("control", ["A", "Ctrl", "CTRL"]),
        ("NT", ["A", "control"]),  # asked for by name: no guessing
        ("NT", ["A", "nt"]),
        ("control", ["A+ctrl"]),
    ],
)
def test_no_control_label(control, labels):
    with pytest.raises(ValueError, match=f"labeled '{control}'.*labels are: .*control=") as caught:
        resolve_control(control, labels)
    assert all(label in str(caught.value) for label in labels)


def test_labels_in_the_error_are_cut_behind_those_of_controls():
    labels = [f"G{i:02}" for i in range(22)] + ["NT-1", "non_targeting"]
    with pytest.raises(ValueError, match=r"The labels are: NT-1, non_targeting, G00, .*G07 and 14 more"):
        resolve_control("control", labels)


def test_listed():
    assert listed([]) == "none"
    assert listed(["a", 2]) == "a, 2"
    assert listed("abc", most=3) == "a, b, c"
    assert listed("abcd", most=2) == "a, b and 2 more"


@pytest.mark.parametrize("separator", ["_", ",", ", ", "|", ";", "/", ":", "&", ".", " ", "__"])
def test_pairs_with_another_sign(separator):
    wanted = f" Pairs are written with a plus sign: {f'KLF1{separator}MYC'!r} would be 'KLF1+MYC'."
    assert spelling_hint(["HLA-A", f"KLF1{separator}MYC", "MYC_KLF1"], ["MYC", "KLF1", "HLA-A"]) == wanted
    for control in ("ctrl", "CTRL", "Control"):
        hint = spelling_hint([f"KLF1{separator}{control}"], {"KLF1"})
        assert hint.endswith(f"would be 'KLF1+{control}'.")
    assert spelling_hint([f"HLA-A{separator}MYC"], {"HLA-A", "MYC"}).endswith("would be 'HLA-A+MYC'.")
    others = ["KLF1{}MYC", "MYC{}MYC", "ctrl{}control", "MYC{}", "klf1"]
    assert spelling_hint([name.format(separator) for name in others], ["MYC"]) == ""


def test_other_case_and_guides():
    genes = ["KLF1", "MYC", "HLA-A"]
    assert (
        spelling_hint(["TP53", "hla-a"], genes) == " 'hla-a' and 'HLA-A' differ only in case: write them the same way."
    )
    for name in ("MYC_1", "MYC-2", "MYC.g3", "MYC_sgRNA12", "MYC_1_2"):
        expected = f" {name!r} looks like a guide: label cells with its target gene, 'MYC'."
        assert spelling_hint([name], genes) == expected
    assert spelling_hint(["MYC_x", "TP53_1", "1_2", "MYC_", "MYC1"], genes) == ""


@pytest.mark.parametrize(
    "name",
    [
        *("sgKLF1_2", "KLF1-g1", "KLF1_P1P2", "KLF1_+_7437.23", "KLF1_-_74376086.23-P1P2", "KLF1_sg2", "KLF1-sgRNA-2"),
        *("sgKLF1", "sg-KLF1", "sg_KLF1-1", "gKLF1", "gRNA_KLF1_1", "SGRNA-KLF1", "KLF1_guide3", "KLF1:1", "KLF1|g2"),
    ],
)
def test_names_of_guides(name):
    expected = f" {name!r} looks like a guide: label cells with its target gene, 'KLF1'."
    assert spelling_hint(["TP53", name], ["KLF", "KLF1", "KLF10"]) == expected


def test_guides_of_genes_with_a_dash():
    assert spelling_hint(["HLA-A_1"], ["HLA-A", "HLA"]).endswith("target gene, 'HLA-A'.")
    assert spelling_hint(["NKX2-1-g2"], ["NKX2-1", "NKX2"]).endswith("target gene, 'NKX2-1'.")


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("GATA6-AS1", ["GATA6", "AS1"]),  # antisense
        ("TNFAIP8L2-SCNM1", ["TNFAIP8L2", "SCNM1"]),  # read-through
        ("KLF1-MYC", ["KLF1", "MYC"]),
        ("HLA-B", ["HLA-A", "B"]),
        ("GCLC", ["CLC"]),  # no guide of CLC
        ("GPAM", ["PAM"]),
        ("SGK1", ["K1", "GK1"]),
        ("gclc", ["clc"]),
        ("KLF10", ["KLF1"]),
    ],
)
def test_symbols_that_are_neither_guides_nor_pairs(name, genes):
    assert spelling_hint([name], genes) == ""


@pytest.mark.parametrize(
    ("label", "expected"),
    [(name, True) for name in ("NT", "NT-3", "ntc", "non_targeting", "Non-Targeting_12", "Control", "unassigned")]
    + [(name, False) for name in ("NT5C", "NTF3", "CTRB1", "MYC", "A+ctrl", "5", "")],
)
def test_labels_of_cells_without_perturbation(label, expected):
    assert looks_unperturbed(label) == expected
