"""Rivals of the model, all with the same two calls, ``fit`` and ``predict``.

`BASELINES` has them by name. Names load on first use, as in `distpert` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distpert.baselines.additive import Additive
    from distpert.baselines.constant import ControlHistogram, PooledHistogram, PooledMean
    from distpert.baselines.network import HistogramNetwork, MeanNetwork
    from distpert.baselines.point import PointPrediction
    from distpert.baselines.protocol import Baseline, Predictor
    from distpert.baselines.regression import GaussianProcess, Ridge
    from distpert.baselines.truncated_gaussian import TruncatedGaussian

__all__ = [
    "BASELINES",
    "Additive",
    "Baseline",
    "ControlHistogram",
    "GaussianProcess",
    "HistogramNetwork",
    "MeanNetwork",
    "PointPrediction",
    "PooledHistogram",
    "PooledMean",
    "Predictor",
    "Ridge",
    "TruncatedGaussian",
]

_MODULE = {
    "Additive": "additive",
    "Baseline": "protocol",
    "ControlHistogram": "constant",
    "GaussianProcess": "regression",
    "HistogramNetwork": "network",
    "MeanNetwork": "network",
    "PointPrediction": "point",
    "PooledHistogram": "constant",
    "PooledMean": "constant",
    "Predictor": "protocol",
    "Ridge": "regression",
    "TruncatedGaussian": "truncated_gaussian",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'distpert.baselines' has no attribute {name!r}")
    value = getattr(import_module(f"distpert.baselines.{_MODULE[name]}"), name)
    globals()[name] = value  # so that the next access is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Maker:
    """Make a baseline when called, and import its module no sooner."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self.settings = name, settings

    def __call__(self) -> Baseline:
        baseline: Baseline = __getattr__(self.name)(**self.settings)
        return baseline

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"<makes {self.name}({settings}) when called>"


BASELINES: Mapping[str, Callable[[], Baseline]] = MappingProxyType(
    {
        "control": _Maker("ControlHistogram"),
        "pooled": _Maker("PooledHistogram"),
        "additive": _Maker("Additive"),
        "truncated_gaussian": _Maker("TruncatedGaussian", zero_inflated=False),
        "zero_inflated_gaussian": _Maker("TruncatedGaussian", zero_inflated=True),
        "network": _Maker("HistogramNetwork", loss="wasserstein"),
        "network_cross_entropy": _Maker("HistogramNetwork", loss="cross_entropy"),
        "pooled_mean": _Maker("PooledMean"),
        "ridge": _Maker("Ridge"),
        "gaussian_process": _Maker("GaussianProcess"),
        "network_mean": _Maker("MeanNetwork"),
    }
)
