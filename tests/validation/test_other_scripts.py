"""Scripts on rankings and on screens as sources, on the smallest screens that run through."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import distpert

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "validation"

if not (SCRIPTS / "run.py").exists():
    pytest.skip("validation/ is not part of this distribution", allow_module_level=True)


@pytest.fixture(scope="module")
def scripts():
    names = ("ranking", "screens", "signatures")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screens")
    for seed in range(2):
        screen = distpert.simulate(n_perturbations=12, n_unseen=1, n_genes=8, n_cells=30, n_controls=60, seed=seed)
        screen.adata.write_h5ad(folder / f"screen{seed}.h5ad")
        screen.embeddings.to_csv(folder / f"embeddings{seed}.csv")
    return folder


def test_ranking(scripts, files, tmp_path):
    data = ["--data", str(files / "screen0.h5ad"), "--embeddings", str(files / "embeddings0.csv")]
    scripts["ranking"].main([*data, "--out", str(tmp_path), "--n-folds", "3"])
    rows = pd.read_csv(tmp_path / "ranking.csv")
    assert len(rows) == 12
    assert rows["truth"].notna().all()
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert {"effect", "neighbor", "effect − neighbor"} <= set(summary["by"])
    assert (summary["lower"].dropna() <= summary["upper"].dropna()).all()


def test_measures(scripts):
    truth = np.arange(20.0)
    assert scripts["ranking"].measures(truth, truth) == {
        "rank correlation": pytest.approx(1), "enrichment": 10, "area under the curve": 1,
    }  # fmt: skip
    assert scripts["ranking"].measures(-truth, truth)["area under the curve"] == 0


def test_signatures(scripts, files, tmp_path):
    data = ["--data", str(files / "screen0.h5ad"), "--embeddings", str(files / "embeddings0.csv"), "--n-folds", "3"]
    for second in (["--halves"], ["--other", str(files / "screen1.h5ad")]):
        out = tmp_path / second[0].strip("-")
        scripts["signatures"].main([*data, *second, "--out", str(out)])
        table = pd.read_csv(out / "signatures.csv")
        np.testing.assert_allclose(table["difference"], table["with signatures"] - table["known"], atol=1e-12)
