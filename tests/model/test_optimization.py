"""Settings of the optimization, which check themselves."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from distpert import Optimization


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_epochs", 0, "at least 1, not 0"),
        ("max_epochs", 2.5, "a whole number of at least 1, not 2.5"),
        ("max_epochs", True, "a whole number of at least 1, not True"),
        ("min_steps", -1, "at least 0, not -1"),
        ("batch_size", 0, "at least 1, not 0"),
        ("patience", 0, "at least 1, not 0"),
        ("step_size", -0.5, "a finite number above 0, not -0.5"),
        ("step_size", 0, "a finite number above 0, not 0"),
        ("step_size", float("nan"), "a finite number above 0, not nan"),
        ("step_size", float("inf"), "a finite number above 0, not inf"),
        ("step_size", "0.1", "a finite number above 0, not '0.1'"),
        ("tolerance", -0.1, "a finite number of at least 0, not -0.1"),
        ("tolerance", True, "a finite number of at least 0, not True"),
    ],
)
def test_settings_that_make_no_sense(name, value, message):
    with pytest.raises(ValueError, match=f"^{name} must be {message}$"):
        Optimization(**{name: value})
    with pytest.raises(ValueError, match=f"^{name} must be {message}$"):
        replace(Optimization(), **{name: value})


def test_settings_explain_themselves_and_are_hashable():
    assert "batch_size=64" in repr(Optimization())
    assert hash(Optimization()) == hash(Optimization())
    assert Optimization(batch_size=3) != Optimization()


def test_numbers_of_any_type_become_plain():
    given = Optimization(max_epochs=np.int32(7), min_steps=np.uint8(0), batch_size=np.int64(3), patience=np.int16(2))
    assert given == Optimization(max_epochs=7, min_steps=0, batch_size=3, patience=2)
    assert all(type(getattr(given, name)) is int for name in ("max_epochs", "min_steps", "batch_size", "patience"))
    given = Optimization(step_size=np.float32(0.5), tolerance=0)
    assert type(given.step_size) is type(given.tolerance) is float


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Optimization().max_epochs = 3
