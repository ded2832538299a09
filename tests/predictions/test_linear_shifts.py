"""Shifts that are nearly linear in the response, against histograms that are computed one by one."""

import numpy as np
import pytest
from scipy.special import softmax

from distpert.model.basis import shift_basis
from distpert.predictions import linear_shifts
from distpert.predictions.linear_shifts import LinearShifts

N_CONTEXTS, N_GENES, N_BINS, N_FACTORS = 2, 6, 5, 3


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    control = rng.normal(0, 0.5, (N_CONTEXTS, N_GENES, N_BINS))
    basis = shift_basis(softmax(control, axis=-1).mean(axis=0), 0.8)
    return {
        "control": control,
        "common": rng.normal(0, 0.1, control.shape),
        "loading": rng.normal(0, 0.4, (N_FACTORS, N_GENES, N_BINS)),
        "loading_scale": rng.uniform(0, 0.1, (N_FACTORS, N_GENES, N_BINS - 1)),
        "basis": basis,
        "centers": np.sort(rng.uniform(0, 4, (N_GENES, N_BINS)), axis=-1),
        "at": rng.normal(0, 0.2, N_FACTORS),
    }


def exact(arrays, response, loading=None):
    """Shifts (label, context, gene) in units of the control's standard deviation."""
    loading = arrays["loading"] if loading is None else loading
    x = arrays["centers"]
    base = softmax(arrays["control"], axis=-1)
    mean = (base * x).sum(-1)
    spread = np.sqrt((base * (x - mean[..., None]) ** 2).sum(-1))
    logits = arrays["control"] + arrays["common"] + np.einsum("lk,kgb->lgb", response, loading)[:, None]
    return ((softmax(logits, axis=-1) * x).sum(-1) - mean) / spread


def none(n_labels):
    return np.full((n_labels, 1), N_GENES)


@pytest.mark.parametrize("block", [1, 2**23])
def test_exact_shifts(arrays, block, monkeypatch):
    monkeypatch.setattr(linear_shifts, "BLOCK_VALUES", block)
    response = np.random.default_rng(1).normal(size=(4, N_FACTORS))
    np.testing.assert_allclose(LinearShifts.of(**arrays).shifts(response), exact(arrays, response), atol=1e-5)


def test_slope_is_the_derivative(arrays):
    shifts, step = LinearShifts.of(**arrays), 1e-5
    for k in range(N_FACTORS):
        ends = [exact(arrays, (arrays["at"] + sign * step * np.eye(N_FACTORS)[k])[None])[0] for sign in (1, -1)]
        np.testing.assert_allclose(shifts.slope[..., k], (ends[0] - ends[1]) / (2 * step), atol=1e-6)
    np.testing.assert_allclose(
        shifts.start + shifts.slope @ arrays["at"], exact(arrays, arrays["at"][None])[0], atol=1e-9
    )


def test_noise_is_that_of_loadings(arrays):
    """Variances of the slope, by drawing loadings. The lever of a gene hardly changes with them."""
    shifts, rng = LinearShifts.of(**{**arrays, "at": np.zeros(N_FACTORS)}), np.random.default_rng(2)
    drawn = [
        LinearShifts.of(**{**arrays, "at": np.zeros(N_FACTORS), "loading": arrays["loading"] + along}).slope
        for along in np.einsum(
            "gbj,dkgj->dkgb",
            arrays["basis"],
            arrays["loading_scale"] * rng.normal(size=(4000, *arrays["loading_scale"].shape)),
        )
    ]
    np.testing.assert_allclose(np.var(drawn, axis=0), shifts.noise, rtol=0.15)


def test_sizes_of_certain_responses_are_exact(arrays):
    """Draws that do not differ, and loadings that are known: the correction makes the sizes exact."""
    known = {**arrays, "loading_scale": np.zeros_like(arrays["loading_scale"])}
    response = np.random.default_rng(3).normal(0, 2, (1, 5, N_FACTORS))
    shift = exact(arrays, response[0])
    found = LinearShifts.of(**known).sizes(np.repeat(response, 3, axis=0), none(5))
    np.testing.assert_allclose(found, np.tile(np.sqrt((shift**2).mean(axis=(1, 2))), (3, 1)), rtol=1e-5)


def test_sizes_of_uncertain_responses(arrays):
    """With small shifts, draws of sizes are those of exact histograms with drawn loadings, on average."""
    rng = np.random.default_rng(4)
    small = {**arrays, "common": 0 * arrays["common"], "at": np.zeros(N_FACTORS)}
    response = rng.normal(0.2, 0.1, (3000, 1, N_FACTORS))
    along = arrays["loading_scale"] * rng.normal(size=(3000, *arrays["loading_scale"].shape))
    loading = arrays["loading"] + np.einsum("gbj,dkgj->dkgb", arrays["basis"], along)
    shift = np.stack([exact(small, one, of_draw)[0] for one, of_draw in zip(response, loading, strict=True)])
    squares = (shift**2).mean(axis=(1, 2))
    found = LinearShifts.of(**small).sizes(response, none(1))[:, 0]
    assert (found**2).mean() == pytest.approx(squares.mean(), rel=0.1)
    assert np.corrcoef(found**2, squares)[0, 1] > 0.8


def test_perturbed_genes_do_not_count(arrays):
    known = {**arrays, "loading_scale": np.zeros_like(arrays["loading_scale"])}
    response = np.random.default_rng(5).normal(size=(1, 3, N_FACTORS))
    own = np.array([[0, 4], [2, N_GENES], [N_GENES, N_GENES]])
    shift = exact(arrays, response[0])
    for row, genes in enumerate(own):
        shift[row][:, genes[genes < N_GENES]] = np.nan
    expected = np.sqrt(np.nanmean(shift**2, axis=(1, 2)))
    np.testing.assert_allclose(LinearShifts.of(**known).sizes(response, own)[0], expected, rtol=1e-5)


def test_similarities(arrays):
    known = {**arrays, "loading_scale": np.zeros_like(arrays["loading_scale"])}
    shifts, rng = LinearShifts.of(**known), np.random.default_rng(6)
    target = rng.normal(size=(N_CONTEXTS, N_GENES))
    target[:, 3] = np.nan
    response = rng.normal(size=(1, 4, N_FACTORS))
    shift, counted = exact(arrays, response[0]), np.isfinite(target)
    inner = (shift * np.nan_to_num(target)).sum(axis=(1, 2))
    expected = inner / np.sqrt((shift**2 * counted).sum(axis=(1, 2)) * np.nansum(target**2))
    np.testing.assert_allclose(shifts.similarities(response, target)[0], expected, atol=1e-5)
    own = shifts.shifts(response[0, :1])[0]
    assert shifts.similarities(response[:, :1], own)[0, 0] == pytest.approx(1, abs=1e-5)


def test_constant_genes_never_shift(arrays):
    constant = arrays["centers"].copy()
    constant[2] = 1.5
    shifts = LinearShifts.of(**{**arrays, "centers": constant})
    assert (shifts.unit[:, 2] == 0).all()
    response = np.random.default_rng(7).normal(size=(3, N_FACTORS))
    assert (shifts.shifts(response)[:, :, 2] == 0).all()
    assert np.isfinite(shifts.sizes(response[None], none(3))).all()
