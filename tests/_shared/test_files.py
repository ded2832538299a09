"""A file is there whole or as it was, whatever happens while it is written."""

import os

import pytest

import distpert
from distpert._shared.files import write_whole


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "x.txt"
    for text in ("one", "two"):
        write_whole(str(path), lambda part, text=text: part.write_text(text))
        assert path.read_text() == text
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")

    def fail(part):
        part.write_text("half of it")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("what", ["fit", "histograms"])
def test_paths_that_are_no_files(small_fit, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    saved = small_fit if what == "fit" else small_fit.histograms
    with pytest.raises(FileNotFoundError, match=r"^no such folder: nowhere\. Create it first$"):
        saved.save("nowhere/x.nc")
    for folder in (".", "", str(tmp_path)):
        with pytest.raises(IsADirectoryError, match=r" is a folder\. Pass the path of a file$"):
            saved.save(folder)


def test_histograms_that_cannot_be_saved_leave_the_old_file(small_fit, tmp_path, monkeypatch):
    import xarray as xr

    path = tmp_path / "counts.nc"
    small_fit.histograms.save(path)

    def fail(dataset, file, **options):
        file.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        small_fit.histograms.save(path)
    monkeypatch.undo()
    assert distpert.load_histograms(path).dataset.identical(small_fit.histograms.dataset)
    assert os.listdir(tmp_path) == ["counts.nc"]
