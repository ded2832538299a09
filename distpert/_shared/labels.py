"""Perturbation labels in their usual forms: ``control``, ``A``, ``A+B``, ``A+ctrl``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

_PLUS = re.compile(r"(?<![_(])\+|\+(?![_)])")  # not the plus of a strand: _+_ or (+)
CONTROL_LABELS = ("control", "ctrl", "non-targeting")
# Other labels of cells without one known perturbation, in lower case, without separators and numbers.
_NO_PERTURBATION = {"control", "ctrl", "nt", "ntc", "nontargeting", "nontargetingcontrol", "negativecontrol", "negctrl"}
_NO_PERTURBATION |= {"safetargeting", "scramble", "scrambled", "unassigned", "unperturbed", "multiplet", "doublet"}


def label_text(value: object) -> str:
    """Return a label or context as text, the same text for every type.

    Parameters
    ----------
    value
        From a column or from a user: ``"A "``, ``5``, ``5.0``.

    Returns
    -------
    str
        Text without spaces around it. Whole numbers have no decimals, because a column of integers turns into floats
        when a value is missing.

    Examples
    --------
    >>> label_text(5.0), label_text(5), label_text(" 5 ")
    ('5', '5', '5')
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def looks_unperturbed(label: str) -> bool:
    """Whether screens use a label for cells without one known perturbation.

    Parameters
    ----------
    label
        From the data: ``NT-3``, ``non_targeting``, ``Control``, ``unassigned``.

    Returns
    -------
    bool
        Case, separators and a number at the end make no difference.
    """
    without_number = re.sub(r"[\W_]*\d+$", "", label.casefold())
    return re.sub(r"[\W_]+", "", without_number) in _NO_PERTURBATION


def is_usual_control(label: str) -> bool:
    """Whether a label is one of `CONTROL_LABELS`, in any case."""
    return label.casefold() in CONTROL_LABELS


def canonical_label(label: str, control: str) -> str:
    """Return the same label for every way to write a perturbation.

    Parameters
    ----------
    label
        A label from the data.
    control
        The label of control cells.

    Returns
    -------
    str
        `label` without spaces around its parts, without control parts (``A+ctrl`` and ``ctrl+A`` are
        ``A``, ``ctrl+ctrl`` is `control`) and with its genes sorted (``B+A`` is ``A+B``). A label of one
        part is returned as it is.

    Raises
    ------
    ValueError
        If a gene is named twice (``A+A``). It would count as another perturbation than ``A``.
    """
    label = label.strip()
    parts = genes_of(label)
    if label == control or "+" not in label or not parts:
        return label
    genes = sorted(part for part in parts if part != control and not is_usual_control(part))
    if repeated := sorted({gene for gene in genes if genes.count(gene) > 1}):
        once = "+".join(dict.fromkeys(genes))
        raise ValueError(f"the label {label!r} names {listed(repeated)} twice. Name each gene once: {once!r}")
    return "+".join(genes) or control


def canonical_labels(labels: Iterable[Any], control: str) -> list[str]:
    """Return labels in their canonical form, as `canonical_label` does.

    Parameters
    ----------
    labels
        Labels from a user.
    control
        The label of control cells.

    Returns
    -------
    list of str
        In the same order.

    Raises
    ------
    TypeError
        If a label is not a string.
    ValueError
        If a label names a gene twice.
    """
    given = list(labels)
    if wrong := [label for label in given if not isinstance(label, str)]:
        raise TypeError(f"labels must be strings, and a pair is written 'A+B'; got {wrong[0]!r}")
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
        The parts between the plus signs, in their order. The plus sign of a strand, as in the guide name
        ``CDKN1A_+_36646433.23`` or in ``chr6:100-200(+)``, does not separate genes.
    """
    return tuple(part for part in map(str.strip, _PLUS.split(label)) if part)


def spelling_hint(names: Iterable[str], genes: Collection[str]) -> str:
    """Guess what a name without an embedding means: a gene in another case, a guide, or a pair without a plus sign.

    Parameters
    ----------
    names
        Names without an embedding.
    genes
        Symbols with one.

    Returns
    -------
    str
        A sentence about the first name that looks like one of these, with a space before it; "" if none does. A dash
        does not count as the sign of a pair, because antisense and read-through genes have one (``GATA6-AS1``,
        ``TNFAIP8L2-SCNM1``).

    Examples
    --------
    >>> spelling_hint(["sgKLF1_2"], {"KLF1"})
    " 'sgKLF1_2' looks like a guide: label cells with its target gene, 'KLF1'."
    """
    known = set(genes)
    in_capitals = {gene.upper(): gene for gene in known}
    for name in names:
        if (same := in_capitals.get(name.upper(), name)) != name:
            return f" {name!r} and {same!r} differ only in case: write them the same way."
        if target := _target_of_guide(name, known):
            return f" {name!r} looks like a guide: label cells with its target gene, {target!r}."
        for sign in "_,;|/:& .":
            parts = [part.strip() for part in name.split(sign) if part.strip()]
            perturbed = [part for part in parts if not is_usual_control(part)]
            if len(parts) > 1 and perturbed and len(set(perturbed)) == len(perturbed) and known.issuperset(perturbed):
                return f" Pairs are written with a plus sign: {name!r} would be {'+'.join(parts)!r}."
    return ""


# Text before and after the gene in the name of a guide: sgKLF1_2, KLF1-g1, KLF1_P1P2, KLF1_+_74376086.23-P1P2.
# A single G can also begin a symbol: GCLC is not a guide of CLC.
_GUIDE_PREFIX = re.compile(r"(?:sg|g(?=[A-Z])|(?i:s?g)(?=[_-]|(?i:rna)))(?i:rna)?[_-]?")
_GUIDE_SUFFIX = re.compile(r"[_.:| -](?:[+-]_)?(?:sgrna|grna|guide|sg|g|p)?[_-]?[0-9][\w.-]*", re.IGNORECASE)


def _target_of_guide(name: str, known: Collection[str]) -> str | None:
    """Return the target gene in the name of a guide, and None for a name that does not look like one."""
    prefix = _GUIDE_PREFIX.match(name)
    for start in {0, prefix.end() if prefix else 0}:
        core = name[start:]
        if start and core in known:
            return core
        for end in range(len(core) - 1, 0, -1):
            if core[:end] in known and _GUIDE_SUFFIX.fullmatch(core, end):
                return core[:end]
    return None


def resolve_control(control: str, labels: Collection[str]) -> str:
    """Find the label of control cells among the labels of a screen.

    Parameters
    ----------
    control
        The label that the user named.
    labels
        The labels of the cells; ``ctrl+ctrl`` counts as ``ctrl``.

    Returns
    -------
    str
        `control` if a cell has this label. Otherwise, if `control` is one of `CONTROL_LABELS` and exactly one of these
        is among the labels, in any case, that label.

    Raises
    ------
    ValueError
        If there is no such label, or more than one.
    """
    # "ctrl+ctrl" is how two-guide screens write a control cell.
    present = set(labels) | {parts[0] for parts in map(genes_of, labels) if len(set(parts)) == 1}
    if control in present:
        return control
    others = sorted(name for name in present if is_usual_control(name))
    if is_usual_control(control) and len(others) == 1:
        return others[0]
    likely = sorted(filter(looks_unperturbed, labels))
    rest = sorted(set(labels) - set(likely))
    raise ValueError(
        f"no cell is labeled {control!r}, so there are no control cells. The labels are: "
        f"{listed([*likely, *rest])}. Pass the label of the control cells as control=."
    )


def listed(names: Iterable[object], most: int = 10) -> str:
    """Join names for a message: ``a, b, c and 12 more``.

    Parameters
    ----------
    names
        The names.
    most
        How many of them to write out.

    Returns
    -------
    str
        The names with commas between them; ``none`` if there are no names.
    """
    texts = [str(name) for name in names]
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return (", ".join(texts[:most]) or "none") + more
