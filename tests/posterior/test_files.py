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


NEW = (
    "control", "basis", "level_scale", "common_scale", "loading_scale", "perturbed_share", "log_concentration_scale",
    "typical_log_concentration", "log_concentration_spread", "common_size", "factor_size", "direction_size",
)  # fmt: skip


def as_version(number, path):
    """Give a file what it had before version 4, 3 or 2."""
    with h5py.File(path, "r+") as file:
        facts = json.loads(file.attrs["facts"])
        kernel = facts["kernel"]
        facts["kernel"] = {"length_scale": kernel["length_scales"][0]} | {n: kernel[n] for n in ("power", "shared")}
        # Before version 4, embeddings had one kernel for all sources, and controls had no parts.
        del file["embeddings"]["covered"], file["embeddings"]["symbol"]
        for name in ("part_counts", "part_n_cells", "part_context"):
            del file["histograms"][name]
        if number < 3:
            for name in NEW:
                del file["parameters"][name]
            del facts["diagnostics"], facts["settings"]["inference"]
            facts["settings"]["priors"] = {"common": 2.0, "context": 1.0, "loading": 0.1, "loading_smoothness": 0.8} | {
                "log_concentration": [8.0, 1.5],
                "share": [1.0, 1.0],
            }
        if number < 2:
            facts["settings"]["optimisation"] = facts["settings"].pop("optimization")
        file.attrs["facts"], file.attrs["format_version"] = json.dumps(facts), number


def without_parts(histograms):
    return histograms.dataset.drop_vars(["part_counts", "part_n_cells", "part_context"])


@pytest.fixture(params=[1, 2])
def old(request, path):
    """A file of an older version."""
    as_version(request.param, path)
    return path


def test_version_3_is_read(small_fit, path):
    """One source, and predictions as before but for the noise of gene programs."""
    as_version(3, path)
    loaded = distpert.load(path)
    assert loaded.histograms.dataset.identical(without_parts(small_fit.histograms))
    assert loaded.kernel.length_scales == small_fit.kernel.length_scales
    assert loaded.kernel.weights == (1.0,)
    assert loaded.parameters.identical(small_fit.parameters)
    assert loaded.embeddings.n_sources == 1
    labels = ["GENE2", small_fit.embeddings.genes[-1]]
    one, other = (fit.predict(labels, num_draws=20, progress_bar=False).moments() for fit in (loaded, small_fit))
    assert one.isel(perturbation=1).identical(other.isel(perturbation=1))  # an unseen one
    assert np.isfinite(one.to_array()).all()


def test_older_versions_are_read(small_fit, old):
    """All that is shared counts as known: controls are the smoothed ones, from which those versions shifted."""
    loaded = distpert.load(old)
    assert loaded.histograms.dataset.identical(without_parts(small_fit.histograms))
    assert loaded.settings["optimization"] == small_fit.settings["optimization"]
    assert distpert.Priors(**loaded.settings["priors"]).common == 2.0
    parameters = loaded.parameters
    for name in ("common", "loading", "response", "response_scale", "on_target", "log_concentration", "eigenvalues"):
        np.testing.assert_array_equal(parameters[name], small_fit.parameters[name])
    control = small_fit.groups.smoothed_control
    np.testing.assert_allclose(np.exp(parameters["control"]), control, rtol=1e-5)
    for name in ("level_scale", "common_scale", "loading_scale", "log_concentration_scale"):
        assert (parameters[name] == 0).all()
        assert parameters[name].dims == small_fit.parameters[name].dims
        assert parameters[name].shape == small_fit.parameters[name].shape
    shared = loaded.shared.draw(0, slice(0, 5), 3, 0)
    np.testing.assert_allclose(np.exp(shared.control), np.broadcast_to(control[0], shared.control.shape), rtol=1e-5)
    base = parameters["control"][0] + parameters["common"][0]
    np.testing.assert_allclose(shared.base, np.broadcast_to(base, shared.base.shape), rtol=1e-5, atol=1e-5)
    kappa = np.exp(parameters["log_concentration"])
    np.testing.assert_allclose(shared.concentration, np.broadcast_to(kappa, (3, 5)), rtol=1e-5)


def test_older_versions_predict(small_fit, old):
    loaded = distpert.load(old)
    labels = ["GENE2", "GENE6", "GENE1+GENE4"]
    prediction = loaded.predict(labels, num_draws=20, progress_bar=False)
    assert np.isfinite(prediction.moments().to_array()).all()
    assert np.isfinite(prediction.effects().to_array()).all()
    assert "concentration" in repr(loaded)
    low, typical, high = loaded.concentration_interval()
    assert low == typical == high
    assert loaded.samples is None
    assert loaded.left_out_r2().keys() == {"single genes"}
    prior = loaded.prior_predictive("GENE2", num_draws=4, progress_bar=False)
    assert np.isfinite(prior.moments().to_array()).all()


def test_older_versions_are_saved_as_version_4(small_fit, old):
    before = distpert.load(old)
    before.save(old)
    with h5py.File(old) as file:
        assert file.attrs["format_version"] == 4
        assert "optimization" in json.loads(file.attrs["facts"])["settings"]
    after = distpert.load(old)
    assert after.settings == before.settings
    assert after.parameters.identical(before.parameters)


def test_round_trip_of_chains(sampled, tmp_path):
    """Made-up draws of two contexts; predictions come from them before and after."""
    sampled.save(tmp_path / "fit.nc")
    loaded = distpert.load(tmp_path / "fit.nc")
    assert loaded.samples.identical(sampled.samples)
    assert loaded.parameters.identical(sampled.parameters)
    assert loaded.diagnostics == sampled.diagnostics
    assert len(loaded.loss) == 0
    for name in ("moments", "summary", "histogram"):
        left, right = (
            getattr(fit.predict(["GENE2", "GENE11"], num_draws=6, progress_bar=False), name)()
            for fit in (loaded, sampled)
        )
        assert left.identical(right)


def test_round_trip_of_a_fit_by_chains(chains, tmp_path):
    chains.save(tmp_path / "fit.nc")
    loaded = distpert.load(tmp_path / "fit.nc")
    assert loaded.samples.identical(chains.samples)
    assert (loaded.settings, loaded.diagnostics, loaded.converged) == (
        chains.settings,
        chains.diagnostics,
        chains.converged,
    )
    assert distpert.Sampling(**loaded.settings["sampling"]).num_chains == 2
    assert repr(loaded) == repr(chains)


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
        ValueError, match=r"format version 99, and this distpert reads versions up to 4: upgrade distpert"
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
