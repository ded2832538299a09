"""The groups of a training screen, against loops over its cells."""

import numpy as np
import pytest

import distpert
from distpert.training.controls import PSEUDO_CELLS
from distpert.training.groups import TrainingGroups

CONTEXTS = ("context0", "context1")


@pytest.fixture(scope="module")
def lacking(context_screen):
    """Cells of the screen: GENE3 is absent from context1, and context0 has fewer controls than context1."""
    label, context = (context_screen.adata.obs[key].astype(str).to_numpy() for key in ("perturbation", "context"))
    kept = (label != "GENE3") | (context != "context1")
    kept[np.flatnonzero((label == "control") & (context == "context0"))[120:]] = False
    return context_screen.adata[kept].copy()


@pytest.fixture(scope="module")
def groups(lacking):
    return TrainingGroups(distpert.count_histograms(lacking, context_key="context"))


def cells_of(adata, label, context):
    """Values (cell, gene) of the cells of a group."""
    obs = adata.obs
    return adata.X[((obs["perturbation"] == label) & (obs["context"] == context)).to_numpy()].astype(np.float64)


def counted(groups, values):
    """Numbers of cells in bins (gene, bin): each value is the center of its bin."""
    centers = groups.histograms.centers.to_numpy()
    counts = np.zeros(centers.shape, int)
    for cell in values:
        for gene, value in enumerate(cell):
            counts[gene, np.abs(centers[gene] - value).argmin()] += 1
    return counts


def test_names(groups):
    assert groups.contexts == CONTEXTS
    assert groups.perturbations == tuple(sorted(f"GENE{i}" for i in range(10)))


def test_every_group_has_its_cells(groups, lacking):
    assert len(groups.label) == len(groups.context) == len(groups.n_cells) == len(groups.counts) == 2 * 11 - 1
    for row, label in enumerate(groups.label):
        values = cells_of(lacking, label, groups.contexts[groups.context[row]])
        assert groups.n_cells[row] == len(values) > 0
        np.testing.assert_array_equal(groups.counts[row], counted(groups, values))
        assert groups.is_control[row] == (label == "control")


def test_positions_of_perturbed_groups(groups):
    assert groups.perturbed.tolist() == [row for row, label in enumerate(groups.label) if label != "control"]
    assert len(groups.perturbation) == len(groups.perturbed) == 2 * 10 - 1
    for position, row in zip(groups.perturbation, groups.perturbed, strict=True):
        assert groups.perturbations[position] == groups.label[row]


def test_rows_and_counts_by_name(groups, lacking):
    assert len(groups.rows) == len(groups.label)
    for label in ("control", *groups.perturbations):
        for context in CONTEXTS:
            values = cells_of(lacking, label, context)
            found = groups.counts_of(label, context)
            if len(values):
                row = groups.rows[label, context]
                assert (groups.label[row], groups.contexts[groups.context[row]]) == (label, context)
                np.testing.assert_array_equal(found, counted(groups, values))
            else:
                assert (label, context) == ("GENE3", "context1")
                assert found is None
    assert groups.counts_of("GENE11", "context0") is None
    assert groups.counts_of("GENE1", "context2") is None


def test_numbers_of_cells_by_context(groups, lacking):
    obs = lacking.obs
    for c, context in enumerate(CONTEXTS):
        of_context = obs["perturbation"][obs["context"] == context]
        assert groups.n_control[c] == (of_context == "control").sum()
        assert groups.n_perturbed[c] == (of_context != "control").sum()
    assert groups.n_control.tolist() == [120, 200]
    assert groups.n_perturbed.tolist() == [600, 540]
    assert groups.n_control.dtype == groups.n_perturbed.dtype == np.int64


def test_control_histograms(groups, lacking):
    assert groups.control.shape == groups.smoothed_control.shape == (2, 14, 15)
    for c, context in enumerate(CONTEXTS):
        control = counted(groups, cells_of(lacking, "control", context))
        np.testing.assert_allclose(groups.control[c], control / control[0].sum(), rtol=1e-12)
        everything = counted(groups, lacking.X[(lacking.obs["context"] == context).to_numpy()])
        pooled = (everything + 1 / 15) / (everything[0].sum() + 1)
        expected = (control + PSEUDO_CELLS * pooled) / (control[0].sum() + PSEUDO_CELLS)
        np.testing.assert_allclose(groups.smoothed_control[c], expected, rtol=1e-12)
    assert (groups.smoothed_control > 0).all()


def test_a_part_of_the_histograms_in_any_order(groups):
    """Nothing is taken from the order of the groups in the file."""
    order = np.random.default_rng(0).permutation(len(groups.label))
    other = TrainingGroups(distpert.Histograms(groups.histograms.dataset.isel(group=order)))
    for label, context in groups.rows:
        np.testing.assert_array_equal(other.counts_of(label, context), groups.counts_of(label, context))
    np.testing.assert_array_equal(other.control, groups.control)
    np.testing.assert_allclose(other.smoothed_control, groups.smoothed_control, rtol=1e-12)
    assert other.n_control.tolist() == groups.n_control.tolist()
    part = TrainingGroups(groups.histograms.select(["GENE7", "GENE3"]))
    assert part.perturbations == ("GENE3", "GENE7")
    assert part.label.tolist() == ["control", "control", "GENE3", "GENE7", "GENE7"]
    assert part.perturbation.tolist() == [0, 1, 1]
    assert part.n_perturbed.tolist() == [120, 60]


def test_one_context(small):
    groups = TrainingGroups(distpert.count_histograms(small.adata))
    assert groups.contexts == ("all",)
    assert (groups.context == 0).all()
    assert groups.n_control.tolist() == [50]
    assert groups.n_perturbed.tolist() == [120]
    assert groups.rows["GENE2", "all"] == groups.label.tolist().index("GENE2")


def test_arrays_are_unpacked_once(groups):
    for name in ("counts", "control", "smoothed_control", "label", "rows"):
        assert getattr(groups, name) is getattr(groups, name)
