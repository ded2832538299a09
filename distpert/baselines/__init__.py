"""Baselines to compare the model with. All are used in the same way, through ``fit`` and ``predict``.

`BASELINES` lists them by name. Names load on first use, as in `distpert` itself.
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
    from distpert.baselines.networks.dirichlet_network import DirichletNetwork
    from distpert.baselines.networks.histogram_network import HistogramNetwork, MeanNetwork
    from distpert.baselines.networks.truncated_gaussian import TruncatedGaussian
    from distpert.baselines.predictor import LabelPredictor
    from distpert.baselines.protocol import Baseline, Predictor
    from distpert.baselines.regression import GaussianProcess, Ridge
    from distpert.baselines.shares import TrainingShares, check_training
    from distpert.predictions.point import MeanPrediction, PointPrediction
    from distpert.predictions.requested import requested_contexts, requested_labels

__all__ = [
    "BASELINES",
    "Additive",
    "Baseline",
    "ControlHistogram",
    "DirichletNetwork",
    "GaussianProcess",
    "HistogramNetwork",
    "LabelPredictor",
    "MeanNetwork",
    "MeanPrediction",
    "PointPrediction",
    "PooledHistogram",
    "PooledMean",
    "Predictor",
    "Ridge",
    "TrainingShares",
    "TruncatedGaussian",
    "check_training",
    "requested_contexts",
    "requested_labels",
]

_MODULE = {
    "Additive": "distpert.baselines.additive",
    "Baseline": "distpert.baselines.protocol",
    "ControlHistogram": "distpert.baselines.constant",
    "DirichletNetwork": "distpert.baselines.networks.dirichlet_network",
    "GaussianProcess": "distpert.baselines.regression",
    "HistogramNetwork": "distpert.baselines.networks.histogram_network",
    "LabelPredictor": "distpert.baselines.predictor",
    "MeanNetwork": "distpert.baselines.networks.histogram_network",
    "MeanPrediction": "distpert.predictions.point",
    "PointPrediction": "distpert.predictions.point",
    "PooledHistogram": "distpert.baselines.constant",
    "PooledMean": "distpert.baselines.constant",
    "Predictor": "distpert.baselines.protocol",
    "Ridge": "distpert.baselines.regression",
    "TrainingShares": "distpert.baselines.shares",
    "TruncatedGaussian": "distpert.baselines.networks.truncated_gaussian",
    "check_training": "distpert.baselines.shares",
    "requested_contexts": "distpert.predictions.requested",
    "requested_labels": "distpert.predictions.requested",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'distpert.baselines' has no attribute {name!r}")
    value = getattr(import_module(_MODULE[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Maker:
    """Make a baseline when called. Its module is imported only then."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self.settings = name, settings

    def __call__(self) -> Baseline:
        baseline: Baseline = __getattr__(self.name)(**self.settings)
        return baseline

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"<makes {self.name}({settings}) when called>"


#: All baselines by name. Call an entry to make the baseline with its default settings:
#: ``BASELINES["pooled"]().fit(histograms, embeddings)``. `distpert.cross_validate` takes the names.
BASELINES: Mapping[str, Callable[[], Baseline]] = MappingProxyType(
    {
        "control": _Maker("ControlHistogram"),
        "pooled": _Maker("PooledHistogram"),
        "additive": _Maker("Additive"),
        "truncated_gaussian": _Maker("TruncatedGaussian", zero_inflated=False),
        "zero_inflated_gaussian": _Maker("TruncatedGaussian", zero_inflated=True),
        "neural": _Maker("DirichletNetwork"),
        "network": _Maker("HistogramNetwork", loss="wasserstein"),
        "network_cross_entropy": _Maker("HistogramNetwork", loss="cross_entropy"),
        "pooled_mean": _Maker("PooledMean"),
        "ridge": _Maker("Ridge"),
        "gaussian_process": _Maker("GaussianProcess"),
        "network_mean": _Maker("MeanNetwork"),
    }
)
