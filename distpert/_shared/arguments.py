"""Checks of arguments that many calls have: types, whole numbers, seeds and real numbers."""

from __future__ import annotations

import math
import operator
from numbers import Real
from typing import SupportsIndex


def check_type(name: str, value: object, *kinds: type, made_by: str) -> None:
    """Refuse an argument of another type, and name the call that makes the right one.

    Parameters
    ----------
    name
        Name of the argument.
    value
        Its value.
    kinds
        The accepted types.
    made_by
        The call that returns such an object.

    Raises
    ------
    TypeError
        If the value has none of these types.
    """
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected {wanted}, made by {made_by}; got {type(value).__name__}")


def check_count(name: str, value: SupportsIndex, least: int = 1) -> int:
    """Refuse a value that is not a whole number, or is too small.

    Parameters
    ----------
    name
        Name of the argument.
    value
        Its value.
    least
        The smallest value that is accepted.

    Returns
    -------
    int
        The value as a plain int.

    Raises
    ------
    ValueError
        If the value is not a whole number, or is below `least`. True and False are not numbers.
    """
    number = _whole_number(value)
    if number is None or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def check_seed(seed: SupportsIndex) -> int:
    """Refuse a value that cannot be the seed of random numbers.

    Returns
    -------
    int
        The seed as a plain int.

    Raises
    ------
    ValueError
        If it is not a whole number from 0 to 2⁶³ − 1.
    """
    number = _whole_number(seed)
    if number is None or not 0 <= number < 2**63:
        raise ValueError(f"seed must be a whole number of at least 0 (and below 2**63), not {seed!r}")
    return number


def _whole_number(value: SupportsIndex) -> int | None:
    """Return a whole number of any type as an int, and None for anything else."""
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
        Name of the argument.
    value
        Its value.
    above, least, below
        Bounds: greater than, at least, less than.

    Returns
    -------
    float
        The value as a plain float.

    Raises
    ------
    ValueError
        If the value is not a finite number, or is out of range. True and False are not numbers.
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


def quantile_levels(ci_prob: float) -> list[float]:
    """Return the quantile levels of the median and the ends of a central interval.

    Raises
    ------
    ValueError
        If the probability is not between 0 and 1.
    """
    if not 0 < ci_prob < 1:
        raise ValueError(f"ci_prob must lie between 0 and 1, not {ci_prob}")
    return [0.5, (1 - ci_prob) / 2, (1 + ci_prob) / 2]
