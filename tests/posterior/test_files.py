"""A fit saved and loaded is the same fit; a damaged file is refused."""

import json
import pickle
import subprocess
import sys
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import xarray as xr

import distpert


@pytest.fixture
def path(small_fit, tmp_path):
    file = tmp_path / "fit.nc"
    small_fit.save(file)
    return file


def predictions(fit, labels):
    prediction = fit.predict(labels, num_draws=20, seed=3, progress_bar=False)
    return [
        prediction.histogram(),
        prediction.histogram("wasserstein"),
        prediction.moments(n_cells=30),
        prediction.summary(),
        prediction.histogram_interval(n_cells=30),
        prediction.sample_cells(5).to_df().to_xarray(),
    ]


@pytest.mark.parametrize("name", ["fitted", "context_fit", "small_fit"])
def test_round_trip(name, request, tmp_path):
    fit = request.getfixturevalue(name)
    fit.save(tmp_path / "fit.nc")
    loaded = distpert.load(tmp_path / "fit.nc")
    assert loaded.parameters.identical(fit.parameters)
    assert all(loaded.parameters[name].dtype == fit.parameters[name].dtype for name in fit.parameters)
    assert loaded.histograms.dataset.identical(fit.histograms.dataset)
    assert (loaded.embeddings.genes, loaded.embeddings.source_dims) == (
        fit.embeddings.genes,
        fit.embeddings.source_dims,
    )
    np.testing.assert_array_equal(loaded.embeddings.vectors, fit.embeddings.vectors)
    np.testing.assert_array_equal(loaded.loss, fit.loss)
    assert (loaded.kernel, loaded.converged, loaded.seconds) == (fit.kernel, fit.converged, fit.seconds)
    assert loaded.settings == fit.settings
    assert repr(loaded) == repr(fit)
    labels = ["GENE2", fit.embeddings.genes[-1], "GENE4+GENE1"]
    for left, right in zip(predictions(loaded, labels), predictions(fit, labels), strict=True):
        assert left.identical(right)


def test_prior_of_a_loaded_fit(small_fit, path):
    options = {"num_draws": 8, "seed": 3, "progress_bar": False}
    loaded, fitted = (fit.prior_predictive("GENE2", **options) for fit in (distpert.load(path), small_fit))
    assert loaded.moments(n_cells=30).identical(fitted.moments(n_cells=30))


def test_fresh_process(small_fit, path, tmp_path):
    labels = ["GENE2", "GENE6", "GENE4+GENE1"]
    script = (
        "import sys, numpy as np, distpert\n"
        "prediction = distpert.load(sys.argv[1]).predict(sys.argv[3:], num_draws=20, progress_bar=False)\n"
        "np.savez(sys.argv[2], histogram=prediction.histogram(), mean=prediction.moments(n_cells=30)['mean'])\n"
    )
    out = tmp_path / "out.npz"
    subprocess.run([sys.executable, "-c", script, str(path), str(out), *labels], check=True)
    prediction = small_fit.predict(labels, num_draws=20, progress_bar=False)
    histogram, moments = prediction.histogram(), prediction.moments(n_cells=30)
    with np.load(out) as saved:
        np.testing.assert_array_equal(saved["histogram"], histogram)
        np.testing.assert_array_equal(saved["mean"], moments["mean"])


def test_save_again_gives_the_same(path, tmp_path):
    loaded = distpert.load(path)
    loaded.save(tmp_path / "again.nc")
    assert distpert.load(tmp_path / "again.nc").parameters.identical(loaded.parameters)
    loaded.save(path)  # over the file it was read from
    assert distpert.load(path).parameters.identical(loaded.parameters)
    assert {file.name for file in tmp_path.iterdir()} == {"fit.nc", "again.nc"}


@pytest.mark.slow
def test_numpy_seed_can_be_saved(small, small_fit, tmp_path):
    fit = distpert.fit(small.adata, small.embeddings, seed=np.int64(0), progress_bar=False)
    fit.save(tmp_path / "fit.nc")
    assert distpert.load(tmp_path / "fit.nc").settings["seed"] == 0
    assert fit.parameters.identical(small_fit.parameters)


def test_loaded_settings_fit_again(small, small_fit, path):
    """Priors and optimization come back as what can be passed to `fit`."""
    settings = distpert.load(path).settings
    again = distpert.fit(
        small.adata,
        small.embeddings,
        priors=distpert.Priors(**settings["priors"]),
        optimization=distpert.Optimization(**settings["optimization"]),
        seed=settings["seed"],
        progress_bar=False,
    )
    assert again.parameters.identical(small_fit.parameters)


def as_version_1(path):
    """Give a file the spelling that it had before version 2."""
    with h5py.File(path, "r+") as file:
        facts = json.loads(file.attrs["facts"])
        facts["settings"]["optimisation"] = facts["settings"].pop("optimization")
        file.attrs["facts"], file.attrs["format_version"] = json.dumps(facts), 1


def test_version_1_is_read(small_fit, path):
    as_version_1(path)
    loaded = distpert.load(path)
    assert loaded.settings == small_fit.settings
    assert distpert.Optimization(**loaded.settings["optimization"]) == distpert.Optimization()
    labels = ["GENE2", "GENE6"]
    for left, right in zip(predictions(loaded, labels), predictions(small_fit, labels), strict=True):
        assert left.identical(right)


def test_version_1_is_saved_as_version_2(small_fit, path):
    as_version_1(path)
    distpert.load(path).save(path)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 2
        assert "optimization" in json.loads(file.attrs["facts"])["settings"]
    assert distpert.load(path).settings == small_fit.settings


def test_numpy_scales_can_be_saved(small_fit, tmp_path):
    priors = distpert.Priors(loading=np.float32(0.5), share=np.array([2, 3]))
    optimization = distpert.Optimization(max_epochs=np.int64(5), step_size=np.float32(0.25))
    settings = small_fit.settings | {"priors": asdict(priors), "optimization": asdict(optimization)}
    replace(small_fit, settings=settings).save(tmp_path / "fit.nc")
    loaded = distpert.load(tmp_path / "fit.nc").settings
    assert distpert.Priors(**loaded["priors"]) == priors
    assert distpert.Optimization(**loaded["optimization"]) == optimization


def test_paths_may_be_strings(small_fit, tmp_path):
    small_fit.save(str(tmp_path / "fit.nc"))
    assert distpert.load(str(tmp_path / "fit.nc")).perturbations == small_fit.perturbations


def test_no_pickle(small_fit, tmp_path, monkeypatch):
    def refuse(*args, **options):
        pytest.fail("pickle was used")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    small_fit.save(tmp_path / "fit.nc")
    distpert.load(tmp_path / "fit.nc")


# ------------------------------------------------------------------------------------------------------ damaged files


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nowhere.nc"):
        distpert.load(tmp_path / "nowhere.nc")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_truncated_file(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"fit.nc: it is damaged, or not a netCDF file"):
        distpert.load(path)


def test_random_bytes(path):
    path.write_bytes(np.random.default_rng(0).bytes(10_000))
    with pytest.raises(ValueError, match=r"fit.nc: it is damaged, or not a netCDF file"):
        distpert.load(path)


def test_file_of_histograms(small_fit, tmp_path):
    small_fit.histograms.save(tmp_path / "counts.nc")
    with pytest.raises(ValueError, match=r"counts.nc has no fit. .*distpert.load_histograms"):
        distpert.load(tmp_path / "counts.nc")


def test_any_other_netcdf_file(tmp_path):
    xr.Dataset({"x": ("t", [1.0])}).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"x.nc has no fit"):
        distpert.load(tmp_path / "x.nc")


def test_newer_version(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(
        ValueError, match=r"format version 99, and this distpert reads versions up to 2: upgrade distpert"
    ):
        distpert.load(path)


@pytest.mark.parametrize("part", ["histograms", "embeddings", "parameters", "loss", "embeddings/vectors", "facts"])
def test_file_that_lacks_a_part(path, part):
    with h5py.File(path, "r+") as file:
        del (file.attrs if part == "facts" else file)[part]
    with pytest.raises(ValueError, match=r"damaged"):
        distpert.load(path)


def test_failed_save_leaves_the_old_file(small_fit, path, tmp_path, monkeypatch):
    before = path.read_bytes()

    def fail(tree, file, **options):
        file.write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        small_fit.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]
