"""Prior scales, which check themselves."""

import json
import re
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest

from distpert import Priors


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loading", 0.0, "loading must be a finite number above 0, not 0.0"),
        ("common", "2", "common must be a finite number above 0, not '2'"),
        ("common", True, "common must be a finite number above 0, not True"),
        ("level", 0, "level must be a finite number above 0, not 0"),
        ("direction", -0.5, "direction must be a finite number above 0, not -0.5"),
        ("context", np.inf, "context must be a finite number above 0, not inf"),
        ("loading_smoothness", 1.0, "loading_smoothness must be a finite number of at least 0 and below 1, not 1.0"),
        ("loading_smoothness", -0.1, "loading_smoothness must be a finite number of at least 0 and below 1, not -0.1"),
        ("loading_smoothness", "x", "loading_smoothness must be a finite number of at least 0 and below 1, not 'x'"),
        ("loading_smoothness", (0.1, 0.2), "loading_smoothness must be a finite number .* not (0.1, 0.2)"),
        ("loading_smoothness", 1 - 1e-9, "loading_smoothness must be below 1 in single precision, not 0.999999999"),
        ("share", (1.0, np.nan), "each number of share must be a finite number above 0, not nan"),
        ("share", (0, 1), "each number of share must be a finite number above 0, not 0"),
        ("share", (1.0, 1.0, 1.0), "share must be two numbers, not (1.0, 1.0, 1.0)"),
        ("share", "ab", "share must be two numbers, not 'ab'"),
        ("share", ((1, 1), (1, 1)), "each number of share must be a finite number above 0, not (1, 1)"),
        ("log_concentration", 8.0, "log_concentration must be two numbers, not 8.0"),
        ("log_concentration", np.array(8.0), "log_concentration must be two numbers, not array(8.)"),
        ("log_concentration", (6.0, -1.0), "standard deviation of log_concentration must be .* above 0, not -1.0"),
        ("log_concentration", (np.nan, 1.0), "mean of log_concentration must be a finite number, not nan"),
    ],
)
def test_scales_that_make_no_sense(name, value, message):
    pattern = f"^{re.escape(message)}$".replace(re.escape(".*"), ".*")
    with pytest.raises(ValueError, match=pattern):
        Priors(**{name: value})
    with pytest.raises(ValueError, match=pattern):
        replace(Priors(), **{name: value})


def test_names_of_scales_are_checked():
    with pytest.raises(TypeError, match="'loadings'"):
        Priors(loadings=0.3)


def test_priors_are_hashable_and_do_not_change():
    assert hash(Priors(share=[2, 3])) == hash(Priors(share=(2.0, 3.0)))
    assert Priors(loading=0.2) != Priors()
    assert "loading_smoothness=0.8" in repr(Priors())
    with pytest.raises(FrozenInstanceError):
        Priors().loading = 0.3


def test_numbers_of_any_type_become_plain():
    """As a file of a fit holds them."""
    half = np.float32(0.5)
    given = Priors(common=half, loading_smoothness=half, share=np.array([2, 3]), log_concentration=[half, 1])
    assert given == Priors(common=0.5, loading_smoothness=0.5, share=(2.0, 3.0), log_concentration=(0.5, 1.0))
    assert Priors(**json.loads(json.dumps(asdict(given)))) == given
