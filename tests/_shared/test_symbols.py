import difflib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distpert._shared.symbols import check_known, nearest_symbols


def test_the_same_symbol_in_another_case_comes_first():
    assert nearest_symbols("klf1", ["KLF10", "Klf1", "KLF1", "MYC"]) == ["Klf1", "KLF1", "KLF10"]
    assert nearest_symbols("klf1", ["KLF1", "Klf1", "kLF1", "KLF10"], n=2) == ["KLF1", "Klf1"]


def test_nothing_near_gives_nothing():
    assert nearest_symbols("KLF1", ["MYC", "TP53"]) == []
    assert nearest_symbols("KLF1", []) == []
    assert nearest_symbols("", ["MYC"]) == []


def test_known_names_pass_and_others_are_told_with_the_nearest():
    check_known("KLF1", ["KLF1", "MYC"], "genes")
    with pytest.raises(KeyError, match="'klf1' is not among the predicted genes; nearest: KLF1"):
        check_known("klf1", ["KLF1", "MYC"], "genes")
    with pytest.raises(KeyError, match="'SOX2' is not among the predicted contexts") as told:
        check_known("SOX2", ["KLF1", "MYC"], "contexts")
    assert "nearest" not in str(told.value)


@settings(max_examples=20, deadline=None)
@given(
    symbol=st.text("ABCDEF12", min_size=2, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    n_available=st.integers(1, 600),
)
def test_nearest_symbols_are_those_of_difflib(symbol, seed, n_available):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 8, size=n_available)
    available = sorted({"".join(rng.choice(list("ABCDEFGHIJKLMNOPQ12345"), size=n)) for n in lengths})
    expected = difflib.get_close_matches(symbol, available, n=3, cutoff=0.6)

    def ratios(found):
        return [difflib.SequenceMatcher(None, other, symbol).ratio() for other in found]

    found = nearest_symbols(symbol, available)
    assert found[:1] == [symbol] if symbol in available else ratios(found) == ratios(expected)
