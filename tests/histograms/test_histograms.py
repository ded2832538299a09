"""Histograms once they are counted: parts of them, files, and how they print."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from distpert.histograms.counting import count_histograms
from distpert.histograms.histograms import Histograms, load_histograms

LABELS = ("control", "control", "B", "A", "A+ctrl", "B+A", "A+B")


def cells(n_genes=5):
    rng = np.random.default_rng(0)
    matrix = rng.poisson(1.0, (200, n_genes)).astype(np.float32)
    matrix[:, 0] = 0
    names = [f"c{i}" for i in range(len(matrix))]
    labels = np.resize(LABELS, len(matrix))
    obs = pd.DataFrame({"perturbation": labels, "day": rng.choice(["d2", "d1"], len(matrix))}, index=names)
    return anndata.AnnData(np.log1p(matrix), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def test_select_and_drop():
    histograms = count_histograms(cells(), context_key="day")
    chosen = histograms.select(["B+A", "B"])
    assert chosen.perturbations == ("A+B", "B")
    assert chosen.dataset["perturbation"].values.tolist() == ["control"] * 2 + ["A+B"] * 2 + ["B"] * 2
    assert histograms.select("B").perturbations == ("B",)
    assert histograms.select([]).perturbations == ()
    xr.testing.assert_identical(histograms.drop(["A"]).dataset, chosen.dataset)
    xr.testing.assert_identical(chosen.dataset["bin_left"].variable, histograms.dataset["bin_left"].variable)


@pytest.mark.parametrize("method", ["select", "drop"])
def test_unknown_perturbations(method):
    histograms = count_histograms(cells())
    with pytest.raises(KeyError, match=r"no such perturbation: X, Z\. The perturbations are A, A\+B, B."):
        getattr(histograms, method)(["Z", "A", "X"])
    with pytest.raises(KeyError, match="Control groups are always kept"):
        getattr(histograms, method)(["control"])


@pytest.mark.parametrize("context_key", [None, "day"])
def test_save_and_load(tmp_path, context_key):
    path = tmp_path / "histograms.nc"
    histograms = count_histograms(cells(), context_key=context_key)
    histograms.save(path)
    histograms.save(str(path))  # over the first
    for loaded in (load_histograms(path), Histograms.load(str(path))):
        xr.testing.assert_identical(loaded.dataset, histograms.dataset)
        for name, variable in histograms.dataset.variables.items():
            assert loaded.dataset[name].dtype == variable.dtype
            if variable.dtype != object:
                assert loaded.dataset[name].values.tobytes() == variable.values.tobytes()
        assert repr(loaded) == repr(histograms)
        assert type(loaded.dataset.attrs["format_version"]) is int


def test_a_part_can_be_saved(tmp_path):
    part = count_histograms(cells()).select(["A"])
    part.save(tmp_path / "part.nc")
    xr.testing.assert_identical(load_histograms(tmp_path / "part.nc").dataset, part.dataset)


def test_files_that_cannot_be_loaded(tmp_path):
    path = tmp_path / "histograms.nc"
    with pytest.raises(FileNotFoundError, match=r"no such file: .*histograms\.nc"):
        load_histograms(path)
    count_histograms(cells()).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"perturbation,gene\n", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot read .*histograms\.nc: it is damaged.*\.save\(path\)"):
            load_histograms(path)
    with pytest.raises(ValueError, match="cannot read"):
        load_histograms(tmp_path)


@pytest.mark.parametrize("variable", ["counts", "out_of_range", "bin_left", "n_cells"])
def test_a_damaged_block(tmp_path, variable):
    path = tmp_path / "histograms.nc"
    count_histograms(cells(n_genes=60)).save(path)
    with h5py.File(path) as file:
        block = file[variable].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[block.byte_offset + block.size // 2] ^= 1  # one bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged"):
        load_histograms(path)


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "other.nc"
    histograms = count_histograms(cells())
    xr.Dataset({"counts": ("x", [1])}, attrs={"format_version": 1}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc has no histograms"):
        load_histograms(path)
    histograms.dataset.drop_attrs().to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc has no histograms"):
        load_histograms(path)
    histograms.dataset.assign_attrs(format_version=2).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc has format version 2, .* up to 1\. Upgrade distpert"):
        load_histograms(path)


def test_repr():
    adata = cells()
    histograms = count_histograms(adata)
    assert repr(histograms) == (
        "Histograms\n"
        "  cells          200, of which 58 of control 'control'\n"
        "  perturbations  3: A, A+B, B\n"
        "  genes          5\n"
        "  constant genes 1: g0\n"
        "  bins           15 for each gene"
    )
    held_out = adata[:, ["g2", "g3"]].copy()
    held_out.X = held_out.X * 1.25
    text = repr(count_histograms(held_out, bins=count_histograms(adata[:, ["g2", "g3"]].copy())))
    assert "constant" not in text
    assert "% of values, counted in the end bins" in text
    assert "  contexts       2 of 'day': d1, d2\n" in repr(count_histograms(adata, context_key="day"))
