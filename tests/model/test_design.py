"""Arrays of the design, against loops."""

import numpy as np
import pytest

from distpert.model.design import on_target_tilts, target_indices


def test_on_target_tilts_by_loop():
    control = np.random.default_rng(0).dirichlet(np.ones(6), size=(2, 3))
    tilts = on_target_tilts(control)
    assert tilts.shape == (2, 3, 2, 6)
    for c in range(2):
        for g in range(3):
            below = 0.0
            for b in range(6):
                up_to = below + control[c, g, b]
                np.testing.assert_allclose(tilts[c, g, 0, b], below + up_to - 1, atol=1e-12)
                np.testing.assert_allclose(tilts[c, g, 1, b], (below + up_to - 1) ** 2, atol=1e-12)
                below = up_to
    # Ranks are centered under the control distribution, and grow along the bins.
    np.testing.assert_allclose((control * tilts[:, :, 0]).sum(axis=-1), 0, atol=1e-12)
    assert (np.diff(tilts[:, :, 0]) > 0).all()
    assert (np.abs(tilts) < 1).all()


@pytest.mark.parametrize(
    ("perturbations", "expected"),
    [
        (["A", "B"], [[0], [1]]),
        (["A", "C+A", "NEW", "A+NEW"], [[0, 3], [2, 0], [3, 3], [0, 3]]),
        (["A+A", "B"], [[0], [1]]),  # a gene named twice is one target
        (["NEW"], [[3]]),
        (["A+B+C"], [[0, 1, 2]]),
    ],
)
def test_target_indices(perturbations, expected):
    ours = target_indices(perturbations, ["A", "B", "C"])
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, expected)
