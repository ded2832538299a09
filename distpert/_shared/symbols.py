"""Names that resemble an unknown one, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

import numpy as np


def nearest_symbols(symbol: str, available: Iterable[str], n: int = 3) -> list[str]:
    """Return the symbols that are most similar to a given one, in any case.

    Parameters
    ----------
    symbol
        The symbol to look for.
    available
        The known symbols.
    n
        How many to return at most.

    Returns
    -------
    list of str
        First those that differ only in case, then the closest by `difflib`'s ratio (0.6 or more).
    """
    wanted = symbol.upper()
    spellings: dict[str, list[str]] = {}
    for other in available:
        # The ratio, 2 (letters matched) / (total length), is below 0.6 for lengths outside 3/7 to 7/3.
        if 3 * len(wanted) <= 7 * len(other) and 3 * len(other) <= 7 * len(wanted):
            spellings.setdefault(other.upper(), []).append(other)
    same = spellings.pop(wanted, [])
    close = difflib.get_close_matches(wanted, _share_letters(wanted, list(spellings)), n=n) if n > len(same) else []
    return [*same, *(spelling for other in close for spelling in spellings[other])][:n]


def check_known(name: str, known: Collection[str], what: str) -> None:
    """Refuse a name that is not predicted.

    Parameters
    ----------
    name
        The name.
    known
        The predicted names.
    what
        What they are, in the plural.

    Raises
    ------
    TypeError
        If the name is not a string, for example a list of names.
    KeyError
        If the name is unknown. The message names the nearest ones.
    """
    if not isinstance(name, str):
        raise TypeError(f"name one of the {what} as a str, not {name!r}")
    if name not in known:
        near = nearest_symbols(name, known)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise KeyError(f"{name!r} is not among the predicted {what}{hint}")


def _share_letters(word: str, words: list[str], n: int = 200) -> list[str]:
    """Keep the n words that share most letters with a word, because difflib is slow with 20,000 words.

    The rank is 2 (letters in common, with multiplicity) / (total length), an upper bound of difflib's ratio.
    """
    if len(words) <= n:
        return words
    letters = np.array(words).view(np.uint32).reshape(len(words), -1)
    common = sum(np.minimum((letters == ord(c)).sum(axis=1), word.count(c)) for c in set(word))
    bound = common / ((letters != 0).sum(axis=1) + len(word))
    return [words[i] for i in np.argsort(-bound, kind="stable")[:n]]
