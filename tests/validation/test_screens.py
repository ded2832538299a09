"""The files people have, each layout as a small synthetic file, and the real ones where they are at hand."""

import importlib.util
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "validation" / "screens.py"
DATA = Path(__file__).parents[3] / "shared" / "data"  # beside the repository, where it is at hand

if not SCRIPT.exists():
    pytest.skip("validation/ is not part of this distribution", allow_module_level=True)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("screens", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def open_screen(script, monkeypatch):
    monkeypatch.setattr(script, "BLOCK_CELLS", 7)  # several blocks also of small files
    return script.open_screen


LABELS = ["control", "CEBPE", "KLF1", "CEBPE_KLF1", "control", "BAK1"] * 5
SYMBOLS = ["KLF1", "ACTB", "GAPDH", "BAK1", "MYC"]


def counts(n_cells=30):
    return np.random.default_rng(0).poisson([0.3, 6, 4, 0.5, 2], size=(n_cells, 5)).astype(np.float32)


def log_normalized(x, totals=None):
    totals = x.sum(axis=1) if totals is None else np.asarray(totals)
    return np.log1p(x * (1e4 / np.maximum(totals, 1))[:, None])


def written(tmp_path, X, obs, var_names=SYMBOLS, **var):
    obs = pd.DataFrame(obs, index=[f"cell{i}" for i in range(X.shape[0])])
    path = tmp_path / "screen.h5ad"
    ad.AnnData(X, obs=obs, var=pd.DataFrame(var, index=pd.Index(list(var_names), dtype=object))).write_h5ad(path)
    return path


def labels_of(adata):
    return adata.obs["perturbation"].astype(object).tolist()


# ------------------------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_plain_counts(open_screen, tmp_path, capsys, layout):
    x = counts()
    plain = [label.replace("_", "+") for label in LABELS]
    path = written(tmp_path, layout(x), {"perturbation": plain, "day": [*"222333"] * 5})
    adata, keys = open_screen(path)
    assert keys == {"perturbation_key": "perturbation", "control": "control", "context_key": "day"}
    np.testing.assert_allclose(adata.X.toarray(), log_normalized(x), rtol=1e-6)
    assert adata.X.dtype == np.float32
    assert labels_of(adata) == plain
    assert capsys.readouterr().out == (
        "screen.h5ad: 30 cells × 5 genes, 3 single and 1 combined perturbations; plain layout; labels "
        "obs['perturbation'], control 'control'; context obs['day']: 2, 3; X raw counts, now log1p of counts per "
        "10,000 of the genes in the file; gene symbols var_names\n"
    )
    screen = read_screen(adata, ScreenKeys(**keys))
    assert screen.control == "control"
    assert set(screen.context) == {"2", "3"}


def test_plain_logarithms_stay(open_screen, tmp_path, capsys):
    x = log_normalized(counts()).astype(np.float32)
    path = written(tmp_path, scipy.sparse.csr_matrix(x), {"perturbation": LABELS, "total_counts": 1.0})
    adata, keys = open_screen(path)
    np.testing.assert_array_equal(adata.X.toarray(), x)
    assert keys["context_key"] is None
    assert "X taken as log-normalized, as it is" in capsys.readouterr().out
    assert "CEBPE_KLF1" in labels_of(adata)  # "_" joins genes in scPerturb's releases alone


def test_totals(open_screen, tmp_path, capsys):
    x = counts()
    totals = x.sum(axis=1) * 3 + 5
    obs = {"perturbation": LABELS, "total_counts": totals, "ncounts": totals * 2, "few": totals / 9}
    path = written(tmp_path, x, obs)
    np.testing.assert_allclose(open_screen(path)[0].X.toarray(), log_normalized(x, totals), rtol=1e-6)
    assert "of obs['total_counts']" in capsys.readouterr().out
    by_name = open_screen(path, totals="ncounts")[0]
    np.testing.assert_allclose(by_name.X.toarray(), log_normalized(x, totals * 2), rtol=1e-6)
    np.testing.assert_allclose(open_screen(path, totals=None)[0].X.toarray(), log_normalized(x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"obs\['few'\] is less than the sum of the counts in some cells"):
        open_screen(path, totals="few")
    with pytest.raises(ValueError, match="no column 'total' in obs; there are: perturbation, total_counts, ncounts"):
        open_screen(path, totals="total")


def test_scperturb(open_screen, tmp_path, capsys):
    x = counts()
    labels = [*LABELS[:-1], None]
    n = [0 if label in ("control", None) else len(label.split("_")) for label in labels]
    obs = {"perturbation": labels, "nperts": n, "ncounts": x.sum(axis=1) + 2, "UMI_count": 1, "cell_line": "K562"}
    adata, keys = open_screen(written(tmp_path, scipy.sparse.csr_matrix(x), obs, ensembl_id="ENSG00000000000"))
    assert labels_of(adata)[:6] == ["control", "CEBPE", "KLF1", "CEBPE+KLF1", "control", "BAK1"]
    assert adata.obs["perturbation"].isna().sum() == 1
    np.testing.assert_allclose(adata.X.toarray(), log_normalized(x, x.sum(axis=1) + 2), rtol=1e-6)
    assert keys["context_key"] is None
    said = capsys.readouterr().out
    assert "scPerturb release" in said
    assert "of obs['ncounts']" in said


def test_scperturb_symbols_with_an_underscore(open_screen, tmp_path):
    labels = ["control", "A_1", "B_A", "A_1"]
    path = written(tmp_path, counts(4), {"perturbation": labels, "nperts": [0, 1, 2, 1]})
    assert labels_of(open_screen(path)[0]) == ["control", "A_1", "A+B", "A_1"]
    path = written(tmp_path, counts(4), {"perturbation": labels, "nperts": [0, 1, 3, 1]})
    with pytest.raises(ValueError, match="does not fit the number of genes between '_' in B_A"):
        open_screen(path)


def test_gears(open_screen, tmp_path, capsys):
    x = log_normalized(counts()).astype(np.float32)
    names = {"control": "ctrl", "CEBPE": "CEBPE+ctrl", "KLF1": "ctrl+KLF1", "CEBPE_KLF1": "KLF1+CEBPE"}
    condition = [names.get(label, f"{label}+ctrl") for label in LABELS]
    obs = {"condition": condition, "cell_type": "A549", "dose_val": "1+1", "control": 0}
    ids = [f"ENSG{i:011}" for i in range(5)]
    adata, _ = open_screen(written(tmp_path, scipy.sparse.csr_matrix(x), obs, ids, gene_name=SYMBOLS))
    assert labels_of(adata)[:6] == ["control", "CEBPE", "KLF1", "CEBPE+KLF1", "control", "BAK1"]
    assert adata.var_names.tolist() == SYMBOLS
    np.testing.assert_array_equal(adata.X.toarray(), x)
    said = capsys.readouterr().out
    assert "GEARS release; labels obs['condition'], control 'ctrl'; no contexts" in said
    assert "gene symbols var['gene_name']" in said


def test_replogle(open_screen, tmp_path, capsys):
    x = counts()
    gene = ["non-targeting" if label == "control" else label for label in LABELS]
    obs = {"gene": gene, "gem_group": [1, 2] * 15, "UMI_count": x.sum(axis=1) * 2}
    ids = [f"ENSG{i:011}" for i in range(5)]
    symbols = ["KLF1", "ACTB", "GAPDH", "ACTB", None]
    adata, keys = open_screen(written(tmp_path, x, obs, ids, gene_name=symbols))
    assert set(labels_of(adata)) == {"control", "CEBPE", "KLF1", "CEBPE_KLF1", "BAK1"}
    assert adata.var_names.tolist() == ["KLF1", "ACTB", "GAPDH", "ENSG00000000004"]
    expected = log_normalized(x, x.sum(axis=1) * 2)[:, [0, 1, 2, 4]]  # of ACTB the first column has more
    np.testing.assert_allclose(adata.X.toarray(), expected, rtol=1e-6)
    assert keys["context_key"] is None
    said = capsys.readouterr().out
    assert "Replogle et al. 2022, original; labels obs['gene'], control 'non-targeting'" in said
    assert "of obs['UMI_count']" in said
    assert "var['gene_name'], 1 missing: identifier kept" in said
    assert "same symbol the one of largest mean kept: ACTB" in said


# ------------------------------------------------------------------------------------------------- what is left out


def test_fewer_genes(open_screen, tmp_path, capsys):
    x = counts()
    adata, _ = open_screen(written(tmp_path, x, {"perturbation": LABELS}), n_genes=2)
    variance = log_normalized(x).var(axis=0)
    most = {SYMBOLS[i] for i in np.argsort(-variance)[:2]}
    expected = [name for name in SYMBOLS if name in most | {"KLF1", "BAK1"}]
    assert adata.var_names.tolist() == expected
    columns = [SYMBOLS.index(name) for name in expected]
    # Shares are those of all genes.
    np.testing.assert_allclose(adata.X.toarray(), log_normalized(x)[:, columns], rtol=1e-6)
    also = len(expected) - 2
    assert f"2 genes of largest variance and {also} more that are perturbed" in capsys.readouterr().out


def test_one_of_several_data_sets(open_screen, tmp_path, capsys):
    x = counts()
    dataset = ["norman19"] * 12 + ["mcfaline23"] * 18
    path = written(tmp_path, x, {"perturbation": LABELS, "dataset": dataset, "cell_type": [*["k562"] * 12, *"ABC" * 6]})
    with pytest.raises(ValueError, match="pass dataset=, one of mcfaline23, norman19"):
        open_screen(path)
    with pytest.raises(ValueError, match="no data set 'replogle'"):
        open_screen(path, dataset="replogle")
    adata, keys = open_screen(path, dataset="mcfaline23")
    np.testing.assert_allclose(adata.X.toarray(), log_normalized(x[12:]), rtol=1e-6)
    assert keys["context_key"] == "cell_type"
    assert open_screen(path, dataset="norman19")[1]["context_key"] is None
    assert "data set 'norman19' of mcfaline23, norman19" in capsys.readouterr().out


def test_enhancers(open_screen, tmp_path, capsys):
    labels = ["control", "MYC_enh", "MYC", "HS2", "HS2ST1", "control"] * 5
    adata, _ = open_screen(written(tmp_path, counts(), {"perturbation": labels}))
    assert labels_of(adata) == ["control", "MYC", "HS2ST1", "control"] * 5
    assert "left out HS2, MYC_enh: enhancers, not genes" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- errors


def test_contexts_that_are_not_clear(open_screen, tmp_path):
    obs = {"perturbation": LABELS, "day": ["2", "3"] * 15, "cell_type": ["A", "B", "C"] * 10}
    path = written(tmp_path, counts(), obs)
    with pytest.raises(ValueError, match="which is the context, day, cell_type"):
        open_screen(path)
    assert open_screen(path, context_key="cell_type")[1]["context_key"] == "cell_type"
    assert open_screen(path, context_key=None)[1]["context_key"] is None
    with pytest.raises(ValueError, match="no column 'batch' in obs; there are: perturbation, day, cell_type"):
        open_screen(path, context_key="batch")


@pytest.mark.parametrize("obs", [{"guide": LABELS}, {"gene": LABELS, "batch": 1}, {"condition": LABELS}])
def test_unknown_layout(open_screen, tmp_path, obs):
    with pytest.raises(ValueError, match=f"unknown layout: .* the columns of obs are: {', '.join(obs)}"):
        open_screen(written(tmp_path, counts(), obs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 1.5, "neither raw counts nor log1p .* values from"),
        (lambda x: x - 0.5, "values from -0.5 to"),
        (lambda x: np.minimum(x, 1), "to 1, all integers"),
        (lambda x: x * 0, "no values in its first cells"),
    ],
)
def test_values_of_no_known_kind(open_screen, tmp_path, change, message):
    x = change(np.where(counts() > 9, 30, counts())).astype(np.float32)
    with pytest.raises(ValueError, match=message):
        open_screen(written(tmp_path, x, {"perturbation": LABELS}))


def test_no_symbols_and_no_controls(open_screen, tmp_path):
    ids = [f"ENSG{i:011}.2" for i in range(5)]
    with pytest.raises(ValueError, match=r"no column of var has symbols .* the columns are: names"):
        open_screen(written(tmp_path, counts(), {"perturbation": LABELS}, ids, names=SYMBOLS))
    with pytest.raises(ValueError, match="no cell is labeled 'control'"):
        open_screen(written(tmp_path, counts(), {"perturbation": ["A", "B"] * 15}))


# ----------------------------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize(
    ("name", "options", "shape", "n_perturbations", "context"),
    [
        ("renge_hipsc_crispko_23tfs", {}, (14945, 103), 23, "day"),
        ("papalexi_thp1_crispko_25genes", {}, (16192, 299), 25, "bio_rep"),
        ("norman2019_k562_crispra_18singles", {}, (1895, 500), 18, None),
        ("norman_mcfaline_perturbench", {"dataset": "norman19"}, (3375, 500), 33, None),
        ("norman_mcfaline_perturbench", {"dataset": "mcfaline23", "n_genes": 60}, (2586, 60), 9, "cell_type"),
        ("schraivogel_k562_tapseq_crispri", {}, (16496, 72), 10, None),
    ],
)
def test_real_files(script, name, options, shape, n_perturbations, context):
    path = DATA / f"{name}.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is not at hand")
    adata, keys = script.open_screen(path, **options)
    assert adata.shape == shape
    assert adata.obs["perturbation"].nunique() == n_perturbations + 1
    assert keys["context_key"] == context
    assert 3 < adata.X.max() < 9.3
    read_screen(adata, ScreenKeys(**keys))
