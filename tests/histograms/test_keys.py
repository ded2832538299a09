"""The names by which cells are read, in files and as keyword arguments."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

import distpert
from distpert.histograms.keys import ScreenKeys

NAMES = ("perturbation_key", "control", "context_key", "layer", "gene_symbols")
text = st.text(min_size=1, max_size=8)
optional = st.none() | text


@given(st.builds(ScreenKeys, perturbation_key=text, control=text, context_key=optional, layer=optional))
def test_round_trip_through_attributes(keys):
    attrs = keys.to_attrs()
    assert tuple(attrs) == NAMES
    assert all(type(value) is str for value in attrs.values())
    assert ScreenKeys.from_attrs(attrs) == keys
    assert ScreenKeys.from_attrs({**attrs, "format_version": 1}) == keys
    assert ScreenKeys(**keys.to_dict()) == keys


def test_absent_and_empty_names_have_their_default():
    assert ScreenKeys.from_attrs({}) == ScreenKeys()
    assert ScreenKeys.from_attrs({name: "" for name in NAMES}) == ScreenKeys()
    assert ScreenKeys.from_attrs({"layer": "log"}) == ScreenKeys(layer="log")
    assert (ScreenKeys().perturbation_key, ScreenKeys().control) == ("perturbation", "control")
    assert ScreenKeys().context_key is ScreenKeys().layer is ScreenKeys().gene_symbols is None


def test_keys_cannot_be_changed_or_given_by_position():
    with pytest.raises(FrozenInstanceError):
        ScreenKeys().layer = "log"
    with pytest.raises(TypeError):
        ScreenKeys("perturbation")


def test_keys_of_counted_cells_read_the_same_cells_again(small, tmp_path):
    adata = small.adata.copy()
    adata.obs["guide"] = adata.obs.pop("perturbation").cat.rename_categories({"control": "Ctrl"})
    adata.obs["day"] = 1.0
    adata.layers["log"], adata.X = adata.X, None
    adata.var["symbol"] = adata.var_names
    names = dict(zip(NAMES, ("guide", "ctrl", "day", "log", "symbol"), strict=True))
    histograms = distpert.count_histograms(adata, **names)
    found = {**names, "control": "Ctrl"}  # as the cells have it
    assert histograms.keys == ScreenKeys(**found)
    assert histograms.columns == found
    assert (histograms.control, histograms.context_key, histograms.contexts) == ("Ctrl", "day", ("1",))
    again = distpert.count_histograms(adata, bins=histograms, **histograms.columns)
    assert again.dataset.identical(histograms.dataset)
    histograms.save(tmp_path / "histograms.nc")
    assert distpert.load_histograms(tmp_path / "histograms.nc").keys == histograms.keys


def test_keys_of_cells_read_by_default(small):
    assert distpert.count_histograms(small.adata).keys == ScreenKeys()
