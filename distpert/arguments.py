"""Arguments that are easily mistaken for one another."""

from __future__ import annotations


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
