"""Perturbation labels as the field writes them: ``control``, ``A``, ``A+B``, ``A+ctrl``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

CONTROL_LABELS = ("control", "ctrl", "non-targeting")
# What else cells without a perturbation go by, without case, separators and numbers.
_NO_PERTURBATION = {"control", "ctrl", "nt", "ntc", "nontargeting", "nontargetingcontrol", "negativecontrol", "negctrl"}
_NO_PERTURBATION |= {"safetargeting", "scramble", "scrambled", "unassigned", "unperturbed", "multiplet", "doublet"}


def looks_unperturbed(label: str) -> bool:
    """Whether a label is one that screens use for cells without a perturbation, or with more than are known.

    Parameters
    ----------
    label
        As found in the data: ``NT-3``, ``non_targeting``, ``Control``, ``unassigned``.

    Returns
    -------
    bool
        Whatever its case, separators and numbers at its end.
    """
    without_number = re.sub(r"[\W_]*\d+$", "", label.casefold())
    return re.sub(r"[\W_]+", "", without_number) in _NO_PERTURBATION


def canonical_label(label: str, control: str) -> str:
    """Give every way of writing one perturbation the same label.

    Parameters
    ----------
    label
        A label as found in the data.
    control
        The label of control cells.

    Returns
    -------
    str
        `label` without spaces around its parts, without control parts (``A+ctrl`` and ``ctrl+A`` are
        ``A``, ``ctrl+ctrl`` is `control`) and with its genes sorted (``B+A`` is ``A+B``). A label of one
        part stays as it is.

    Raises
    ------
    ValueError
        If a gene is named twice (``A+A``): it would be taken for another perturbation than ``A``.
    """
    label = label.strip()
    parts = genes_of(label)
    if label == control or "+" not in label or not parts:
        return label
    genes = sorted(part for part in parts if part not in (control, *CONTROL_LABELS))
    if repeated := sorted({gene for gene in genes if genes.count(gene) > 1}):
        once = "+".join(dict.fromkeys(genes))
        raise ValueError(
            f"the label {label!r} names {listed(repeated)} twice. A gene perturbed twice is one gene: label it {once!r}"
        )
    return "+".join(genes) or control


def canonical_labels(labels: Iterable[Any], control: str) -> list[str]:
    """Give each of some labels in its canonical form.

    Parameters
    ----------
    labels
        As a user gives them.
    control
        The label of control cells.

    Returns
    -------
    list of str
        As `canonical_label` gives them, in order.

    Raises
    ------
    TypeError
        If a label is no string.
    ValueError
        If a label names a gene twice.
    """
    given = list(labels)
    if wrong := [label for label in given if not isinstance(label, str)]:
        raise TypeError(f"a label is a str, and a pair is written 'A+B'; got {wrong[0]!r}")
    return [canonical_label(label, control) for label in given]


def genes_of(label: str) -> tuple[str, ...]:
    """Split a label into its genes.

    Parameters
    ----------
    label
        A perturbation label, such as ``A`` or ``A+B``.

    Returns
    -------
    tuple of str
        The parts between the plus signs, in their order.
    """
    return tuple(part for part in map(str.strip, label.split("+")) if part)


def spelling_hint(names: Iterable[str], genes: Collection[str]) -> str:
    """Say so where a name is of a gene in other case, of a guide, or of genes without a plus sign between them.

    Parameters
    ----------
    names
        What has no embedding.
    genes
        Symbols that have one.

    Returns
    -------
    str
        A sentence about the first such name, with a blank before it; empty if there is none.
    """
    known, controls = set(genes), set(CONTROL_LABELS)
    in_capitals = {gene.upper(): gene for gene in known}
    for name, sign in product(names, "_,;|/:& -."):
        if (same := in_capitals.get(name.upper(), name)) != name:
            return f" {name!r} and {same!r} differ in case."
        parts = [part.strip() for part in name.split(sign) if part.strip()]
        number = len(parts) == 2 and parts[1] not in known and re.fullmatch("[A-Za-z]{0,5}[0-9]+", parts[1])
        if number and parts[0] in known:
            return f" {name!r} looks like a guide: label cells by the gene that it targets, {parts[0]!r}."
        perturbed = [part for part in parts if part not in controls]
        if len(parts) > 1 and perturbed and len(set(perturbed)) == len(perturbed) and known.issuperset(perturbed):
            return f" Pairs are written with a plus sign: {name!r} would be {'+'.join(parts)!r}."
    return ""


def resolve_control(control: str, labels: Collection[str]) -> str:
    """Find the label of control cells among the labels of a screen.

    Parameters
    ----------
    control
        The label asked for.
    labels
        The labels there are; ``ctrl+ctrl`` counts as ``ctrl``.

    Returns
    -------
    str
        `control` if it is there. Otherwise, only where `control` is one of `CONTROL_LABELS`, the single
        one of them that is there.

    Raises
    ------
    ValueError
        If there is no such label, or more than one.
    """
    # "ctrl+ctrl" is how two-guide screens write a control cell.
    present = set(labels) | {parts[0] for parts in map(genes_of, labels) if len(set(parts)) == 1}
    if control in present:
        return control
    others = [name for name in CONTROL_LABELS if name in present]
    if control in CONTROL_LABELS and len(others) == 1:
        return others[0]
    likely = sorted(filter(looks_unperturbed, labels))
    rest = sorted(set(labels) - set(likely))
    raise ValueError(
        f"no cell is labelled {control!r}, so there are no control cells. The labels there are: "
        f"{listed([*likely, *rest])}. Pass the label of the control cells as control=."
    )


def listed(names: Iterable[object], most: int = 10) -> str:
    """Join names for a message, cut after the first `most`: ``a, b, c and 12 more``.

    Parameters
    ----------
    names
        What to list.
    most
        How many to write out.

    Returns
    -------
    str
        The names with commas between them, ``none`` if there are none.
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return (", ".join(texts[:most]) or "none") + more
