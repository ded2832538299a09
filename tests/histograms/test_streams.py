"""Matrices that are not in memory give the counts of those that are, to the last cell."""

import warnings
from unittest import mock

import anndata
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from anndata.io import sparse_dataset
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix

import distpert
from distpert.histograms import streams
from distpert.histograms.expression import check_matrix, digest_values
from distpert.histograms.keys import ScreenKeys
from distpert.histograms.screen import read_screen

N_CELLS, N_GENES = 60, 7


def make(values=None, seed=0):
    rng = np.random.default_rng(seed)
    if values is None:
        raw = rng.poisson(1.2, (N_CELLS, N_GENES)) * rng.lognormal(0, 0.5, (N_CELLS, 1))
        raw[:, 3] += 1  # a gene without zeros
        values = np.log1p(raw).astype(np.float32)
    labels = np.resize(["control", "A", "B", "control", "A+B"], len(values))
    obs = pd.DataFrame(
        {"perturbation": pd.Categorical(labels), "day": np.resize(["1", "2", "2"], len(values))},
        index=[f"{seed}-{i}" for i in range(len(values))],
    )
    return anndata.AnnData(csr_matrix(values), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same screen in several files."""
    folder, adata = tmp_path_factory.mktemp("streams"), make()
    for name, layout in {"csr": csr_matrix, "csc": csc_matrix, "dense": csr_matrix.toarray}.items():
        one = adata.copy()
        one.X = layout(adata.X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # zarr announces its next format
            one.write_h5ad(folder / f"{name}.h5ad")
            one.write_zarr(folder / f"{name}.zarr")
    for number in range(3):
        adata[20 * number : 20 * (number + 1), :: -1 if number == 1 else 1].copy().write_h5ad(
            folder / f"shard{number}.h5ad"
        )
    return folder


def in_dask(layout, chunks=(13, N_GENES)):
    dask_array = pytest.importorskip("dask.array")
    adata = make()
    array = dask_array.from_array(adata.X.toarray(), chunks=chunks)
    adata.X = array if layout is None else array.map_blocks(layout)
    return adata


def lazy(path):
    pytest.importorskip("dask")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anndata.experimental.read_lazy(path)


SOURCES = {
    **{name: (lambda folder, name=name: folder / name) for name in (
        "csr.h5ad", "csc.h5ad", "dense.h5ad", "csr.zarr", "csc.zarr", "dense.zarr",
    )},
    "text": lambda folder: str(folder / "csr.h5ad"),
    "backed": lambda folder: anndata.read_h5ad(folder / "csr.h5ad", backed="r"),
    "backed dense": lambda folder: anndata.read_h5ad(folder / "dense.h5ad", backed="r"),
    "lazy": lambda folder: lazy(folder / "csr.h5ad"),
    "lazy zarr": lambda folder: lazy(folder / "csc.zarr"),
    "dask dense": lambda folder: in_dask(None),
    "dask cut both ways": lambda folder: in_dask(None, (13, 4)),
    "dask csr": lambda folder: in_dask(csr_matrix),
    "dask csc": lambda folder: in_dask(csc_matrix),
    "dask coo": lambda folder: in_dask(coo_matrix),
    "one in a list": lambda folder: [folder / "csr.h5ad"],
    "shards": lambda folder: [folder / f"shard{i}.h5ad" for i in range(3)],
    "shards in memory": lambda folder: [anndata.read_h5ad(folder / f"shard{i}.h5ad") for i in range(3)],
}  # fmt: skip


@pytest.mark.parametrize("size", ["one part", "many parts"])
@pytest.mark.parametrize("source", SOURCES)
def test_counts_of_any_source_are_those_in_memory(folder, source, size):
    expected = distpert.count_histograms(make(), context_key="day")
    opened = SOURCES[source](folder)
    with mock.patch.object(streams, "PART_VALUES", 25 if size == "many parts" else streams.PART_VALUES):
        found = distpert.count_histograms(opened, context_key="day")
        some = expected.drop("A").dataset.isel(gene=[5, 0, 2])
        reordered = distpert.count_histograms(opened, context_key="day", bins=some)
    xr.testing.assert_identical(found.dataset, expected.dataset)
    in_memory = distpert.count_histograms(make(), context_key="day", bins=some)
    xr.testing.assert_identical(reordered.dataset, in_memory.dataset)


@pytest.mark.parametrize("source", SOURCES)
def test_digests_of_any_source_are_those_in_memory(folder, source):
    with mock.patch.multiple(streams, PART_VALUES=25):
        screen = read_screen(SOURCES[source](folder), ScreenKeys())
        assert digest_values(screen.matrix) == digest_values(make().X)


def test_layers_of_files(tmp_path):
    adata = make()
    adata.layers["log"], adata.X = adata.X.copy(), adata.X * 2
    adata.write_h5ad(tmp_path / "screen.h5ad")
    expected = distpert.count_histograms(make()).dataset
    found = distpert.count_histograms(tmp_path / "screen.h5ad", layer="log").dataset
    xr.testing.assert_equal(found, expected)
    with pytest.raises(KeyError, match=r"no layer 'raw' in .*screen.h5ad.layers; there are: log"):
        distpert.count_histograms(tmp_path / "screen.h5ad", layer="raw")


def test_a_fit_of_files(folder):
    vectors = pd.DataFrame(np.random.default_rng(0).normal(size=(3, 4)), index=["A", "B", "C"])
    options = {"progress_bar": False, "optimization": distpert.Optimization(max_epochs=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few cells, and other gene names
        one, other = (
            distpert.fit(source, vectors, **options)
            for source in (make(), [folder / f"shard{i}.h5ad" for i in range(3)])
        )
    np.testing.assert_array_equal(one.predict("C").histogram(), other.predict("C").histogram())


def test_duplicate_entries_on_disk_count_once(tmp_path):
    values = make().X
    doubled = csr_matrix((np.repeat(values.data / 2, 2), np.repeat(values.indices, 2), 2 * values.indptr), values.shape)
    adata = make()
    adata.X = doubled
    adata.write_h5ad(tmp_path / "doubled.h5ad")
    found = distpert.count_histograms(tmp_path / "doubled.h5ad")
    xr.testing.assert_identical(found.dataset, distpert.count_histograms(make()).dataset)


def test_counts_by_workers():
    """With a client, blocks are counted by its workers, and the counts are the same."""
    distributed = pytest.importorskip("distributed")
    expected = [distpert.count_histograms(make(), context_key="day")]
    expected.append(distpert.count_histograms(make(), context_key="day", bins=expected[0]))
    with distributed.Client(processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None):
        adata = in_dask(csr_matrix)
        assert check_matrix(adata.X, "adata.X").is_remote
        found = [distpert.count_histograms(adata, context_key="day")]
        found.append(distpert.count_histograms(adata, context_key="day", bins=expected[0]))
    for one, other in zip(found, expected, strict=True):
        xr.testing.assert_identical(one.dataset, other.dataset)
    assert not check_matrix(adata.X, "adata.X").is_remote


def test_values_that_cannot_be_used_name_the_cells(tmp_path):
    values = make().X.toarray()
    values[50, 4] = -1
    make(values).write_h5ad(tmp_path / "negative.h5ad")
    with (
        mock.patch.multiple(streams, PART_VALUES=50),
        pytest.raises(ValueError, match=r"negative.h5ad.X has 1 negative values in cells \d+ to 5\d,.* gene 'G4'"),
    ):
        distpert.count_histograms(tmp_path / "negative.h5ad")


def test_raw_counts_are_recognized_on_disk(tmp_path):
    make(np.random.default_rng(0).poisson(3, (60, N_GENES)).astype(np.float32)).write_h5ad(tmp_path / "raw.h5ad")
    with (
        mock.patch.multiple(streams, PART_VALUES=50),
        pytest.warns(UserWarning, match=r"values of .*raw.h5ad.X reach \d+ and look like raw counts"),
    ):
        distpert.count_histograms(tmp_path / "raw.h5ad")


def test_sources_that_do_not_go_together(folder):
    fewer = make()[:, :5]
    with pytest.raises(ValueError, match=r"adata\[1\] and adata\[0\] differ in 2 genes \(G5, G6\)"):
        distpert.count_histograms([make(), fewer])
    with pytest.raises(ValueError, match="an empty list"):
        distpert.count_histograms([])
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none.h5ad"):
        distpert.count_histograms(folder / "none.h5ad")
    (folder / "text.h5ad").write_text("no AnnData")
    with pytest.raises(ValueError, match=r"cannot read .*text.h5ad as an h5ad file"):
        distpert.count_histograms(folder / "text.h5ad")
    with pytest.raises(TypeError, match="the path of an h5ad file or zarr store, or a list of these; got int"):
        distpert.count_histograms(3)


def test_sparse_datasets_as_layers(tmp_path):
    """An AnnData of one's own, with a matrix of a file in it."""
    import h5py

    make().write_h5ad(tmp_path / "screen.h5ad")
    with h5py.File(tmp_path / "screen.h5ad") as file:
        adata = anndata.AnnData(obs=make().obs, var=make().var, layers={"log": sparse_dataset(file["X"])})
        found = distpert.count_histograms(adata, layer="log").dataset
    xr.testing.assert_equal(found, distpert.count_histograms(make()).dataset)


def test_parts_hold_about_as_many_values_as_they_should():
    indptr = np.array([0, 3, 3, 3, 10, 11, 30, 31])
    with mock.patch.multiple(streams, PART_VALUES=10):
        assert list(streams.cuts(indptr)) == [(0, 4), (4, 6), (6, 7)]
    assert list(streams.cuts(np.zeros(4, int))) == [(0, 3)]
