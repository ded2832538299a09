"""Scripts that check the inference, on the smallest input that runs through."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "validation" / "inference"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_recovery(tmp_path):
    sizes = ["--perturbations", "6", "--screens", "1", "--unseen", "3", "--genes", "8", "--draws", "50"]
    script("recovery").main(["--out", str(tmp_path), *sizes])
    coverage = pd.read_csv(tmp_path / "coverage.csv")
    assert len(coverage) == 2 * 4
    assert coverage["coverage"].between(0, 1).all()
    parameters = pd.read_csv(tmp_path / "parameters.csv")
    assert (parameters["lower"] < parameters["upper"]).all()
    inside = (parameters["lower"] <= [300, 0.9]) & (parameters["upper"] >= [300, 0.9])
    np.testing.assert_array_equal(parameters["holds"], inside)


def test_bands_of_uniform_ranks_and_of_others(tmp_path):
    """Uniform ranks lie in the band, ranks of an over-confident posterior do not."""
    rng = np.random.default_rng(4)
    rows = [
        {"screen": screen, "which": which, "moment": moment, "rank": rank}
        for screen in range(60)
        for which in ("seen", "unseen")
        for moment in ("mean", "variance", "skewness", "kurtosis")
        for rank in (rng.random(8) if which == "seen" else rng.beta(0.4, 0.4, 8))
    ]
    script("sbc").report(pd.DataFrame(rows), tmp_path)
    bands = pd.read_csv(tmp_path / "bands.csv").set_index(["which", "moment"])["uniform within the band"]
    assert bands["seen"].sum() >= 3
    assert not bands["unseen"].any()
