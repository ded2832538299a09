"""Optimizations that are interrupted go on, and end where they would have ended."""

from functools import partial

import jax
import numpy as np
import pytest

import distpert
from distpert.model import checkpoints, inference

OPTIONS = {"progress_bar": False, "optimization": distpert.Optimization(max_epochs=6, min_steps=1)}


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    monkeypatch.setattr(inference, "Checkpoint", partial(checkpoints.Checkpoint, seconds=0.0))


def killed_after(n_epochs, monkeypatch):
    """Make the optimization stop after some epochs, as if it had been killed."""
    original, seen = inference.has_converged, []

    def count(losses, settings):
        seen.append(len(losses))
        if len(seen) > n_epochs:
            raise Killed
        return original(losses, settings)

    monkeypatch.setattr(inference, "has_converged", count)


def test_a_resumed_fit_is_the_uninterrupted_one(small, tmp_path, monkeypatch):
    expected = distpert.fit(small.adata, small.embeddings, **OPTIONS)
    path = tmp_path / "fit.ckpt"
    with monkeypatch.context() as patched:
        killed_after(3, patched)
        with pytest.raises(Killed):
            distpert.fit(small.adata, small.embeddings, checkpoint=path, **OPTIONS)
    assert path.exists()
    resumed = distpert.fit(small.adata, small.embeddings, checkpoint=path, **OPTIONS)
    np.testing.assert_array_equal(resumed.loss, expected.loss)
    for name in expected.parameters:
        np.testing.assert_array_equal(resumed.parameters[name], expected.parameters[name])
    again = distpert.fit(small.adata, small.embeddings, checkpoint=path, **OPTIONS)  # from the last epoch
    np.testing.assert_array_equal(again.loss, expected.loss)
    np.testing.assert_array_equal(again.parameters["loading"], expected.parameters["loading"])


def test_checkpoints_of_other_fits_are_refused(small, tmp_path):
    path = tmp_path / "fit.ckpt"
    distpert.fit(small.adata, small.embeddings, checkpoint=path, **OPTIONS)
    with pytest.raises(ValueError, match=r"fit.ckpt is of other data or settings. Pass another path, or delete it"):
        distpert.fit(small.adata, small.embeddings, checkpoint=path, seed=1, **OPTIONS)
    with pytest.raises(ValueError, match="of other data or settings"):
        distpert.fit(small.adata[:, ::-1].copy(), small.embeddings, checkpoint=path, **OPTIONS)
    for torn in (b"torn", path.read_bytes()[:500]):
        path.write_bytes(torn)
        with pytest.raises(ValueError, match=r"cannot read the checkpoint .*fit.ckpt. Delete it to start anew"):
            distpert.fit(small.adata, small.embeddings, checkpoint=path, **OPTIONS)


def test_wrong_paths_before_any_work(small, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*none. Create it first"):
        distpert.fit(small.adata, small.embeddings, checkpoint=tmp_path / "none" / "fit.ckpt")
    with pytest.raises(ValueError, match="checkpoint= belongs to inference='svi'"):
        distpert.fit(small.adata, small.embeddings, checkpoint=tmp_path / "fit.ckpt", inference="nuts")


def test_writes_are_a_minute_apart(tmp_path):
    checkpoint = checkpoints.Checkpoint(tmp_path / "one", "x", 1000.0)
    key = jax.random.key(0, impl="rbg")
    checkpoint.write({"a": np.ones(2)}, key, [1.0])
    assert checkpoint.read({"a": np.zeros(2)}) is None
    checkpoint.write({"a": np.ones(2)}, key, [1.0], now=True)
    checkpoint.write({"a": np.zeros(2)}, key, [1.0, 0.5])
    state, _, losses = checkpoint.read({"a": np.zeros(2)})
    assert losses == [1.0]
    assert (state["a"] == 1).all()
    checkpoint.write({"a": np.zeros(2)}, key, [1.0, 0.5], now=True)
    assert checkpoint.read({"a": np.zeros(2)})[2] == [1.0, 0.5]
