"""Arguments that many calls have: objects that are easily mistaken for one another, numbers of things, and seeds."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import SupportsIndex


def check_type(name: str, value: object, *kinds: type, made_by: str) -> None:
    """Refuse an object of another kind, before something is asked of it that it does not have.

    Parameters
    ----------
    name
        Of the argument.
    value
        What was given.
    kinds
        What it may be.
    made_by
        The call that makes such an object.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected {wanted}, made by {made_by}; got {type(value).__name__}")


def check_count(name: str, value: SupportsIndex, least: int = 1) -> int:
    """Refuse what is no number of things, before something is computed with it.

    Parameters
    ----------
    name
        Of the argument.
    value
        As a user gives it.
    least
        What it must be at least.

    Returns
    -------
    int
        The same as a plain int.

    Raises
    ------
    ValueError
        If it is no whole number, or below `least`. True is no number.
    """
    number = _whole_number(value)
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def check_seed(seed: SupportsIndex) -> int:
    """Refuse what no random numbers can be drawn from.

    Parameters
    ----------
    seed
        As a user gives it.

    Returns
    -------
    int
        The same as a plain int.

    Raises
    ------
    ValueError
        If it is no whole number from 0 to 2⁶³ − 1.
    """
    number = _whole_number(seed)
    if number is None or not 0 <= number < 2**63:
        raise ValueError(f"seed must be a whole number of at least 0 (and below 2**63), not {seed!r}")
    return number


def _whole_number(value: SupportsIndex) -> int | None:
    """Give a whole number of any type as an int; None for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Refuse a value that is not a finite number in a range.

    Parameters
    ----------
    name
        Of the argument.
    value
        As a user gives it.
    above, least, below
        Bounds: greater than, at least, less than.

    Returns
    -------
    float
        The same as a plain float.

    Raises
    ------
    ValueError
        If it is no finite number, or out of range. True is no number.
    """
    bounds = [
        f"{what} {bound:g}"
        for what, bound in (("above", above), ("of at least", least), ("below", below))
        if math.isfinite(bound)
    ]
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not (math.isfinite(number) and above < number < below and number >= least):
        raise ValueError(f"{name} must be a finite number {' and '.join(bounds)}".rstrip() + f", not {value!r}")
    return number
