"""Predict how a perturbation changes the distribution of every gene's expression across single cells.

Names load on first use. ``import distpert`` itself imports only the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distpert import baselines, datasets, plots, scores, statistics
    from distpert.cross_validation.comparison import compare
    from distpert.cross_validation.protocol import cross_validate
    from distpert.cross_validation.splits import Splits, split_perturbations
    from distpert.datasets.simulation import Simulation, simulate
    from distpert.embeddings.files import read_embeddings
    from distpert.embeddings.text import embed_text
    from distpert.embeddings.vectors import Embeddings
    from distpert.evaluation.arviz_bridge import LeaveOneOut, loo, to_arviz
    from distpert.evaluation.calibration_table import width_at_coverage
    from distpert.evaluation.predictive_checks import predictive_check
    from distpert.evaluation.reliability import calibration, combine_calibrations, without_latent_uncertainty
    from distpert.evaluation.scoring import score
    from distpert.fitting.fitted import Fit, load
    from distpert.fitting.fitting import fit
    from distpert.histograms.counting import count_histograms
    from distpert.histograms.histograms import Histograms, load_histograms
    from distpert.histograms.keys import ScreenKeys
    from distpert.model.optimization import Optimization
    from distpert.model.priors import Priors
    from distpert.model.sampling import NumpyroModel, Sampling
    from distpert.posterior.posterior import Posterior
    from distpert.predictions.base import BasePrediction
    from distpert.predictions.conformal import ConformalPrediction, conformalize
    from distpert.predictions.histogram_prediction import HistogramPrediction
    from distpert.predictions.moment_prediction import MomentPrediction
    from distpert.predictions.prediction import Prediction
    from distpert.predictions.prior import PriorPrediction

    __version__: str

__all__ = [
    "BasePrediction",
    "ConformalPrediction",
    "Embeddings",
    "Fit",
    "HistogramPrediction",
    "Histograms",
    "LeaveOneOut",
    "MomentPrediction",
    "NumpyroModel",
    "Optimization",
    "Posterior",
    "Prediction",
    "PriorPrediction",
    "Priors",
    "Ranking",
    "Sampling",
    "ScreenKeys",
    "Simulation",
    "Splits",
    "__version__",
    "baselines",
    "calibration",
    "combine_calibrations",
    "compare",
    "conformalize",
    "count_histograms",
    "cross_validate",
    "datasets",
    "embed_text",
    "fit",
    "load",
    "load_histograms",
    "loo",
    "plots",
    "predictive_check",
    "read_embeddings",
    "score",
    "scores",
    "simulate",
    "split_perturbations",
    "statistics",
    "to_arviz",
    "width_at_coverage",
    "without_latent_uncertainty",
]

_SUBMODULES = ("baselines", "datasets", "plots", "scores", "statistics")

# No public function may have the name of a module of this package, because an import of the module would replace it.
_MODULE = {
    "BasePrediction": "distpert.predictions.base",
    "Embeddings": "distpert.embeddings.vectors",
    "HistogramPrediction": "distpert.predictions.histogram_prediction",
    "MomentPrediction": "distpert.predictions.moment_prediction",
    "Posterior": "distpert.posterior.posterior",
    "ScreenKeys": "distpert.histograms.keys",
    "Fit": "distpert.fitting.fitted",
    "Histograms": "distpert.histograms.histograms",
    "Prediction": "distpert.predictions.prediction",
    "PriorPrediction": "distpert.predictions.prior",
    "Ranking": "distpert.predictions.ranking",
    "predictive_check": "distpert.evaluation.predictive_checks",
    "count_histograms": "distpert.histograms.counting",
    "fit": "distpert.fitting.fitting",
    "load": "distpert.fitting.fitted",
    "load_histograms": "distpert.histograms.histograms",
    "read_embeddings": "distpert.embeddings.files",
    "embed_text": "distpert.embeddings.text",
    "Optimization": "distpert.model.optimization",
    "NumpyroModel": "distpert.model.sampling",
    "Sampling": "distpert.model.sampling",
    "Priors": "distpert.model.priors",
    "Simulation": "distpert.datasets.simulation",
    "simulate": "distpert.datasets.simulation",
    "score": "distpert.evaluation.scoring",
    "Splits": "distpert.cross_validation.splits",
    "split_perturbations": "distpert.cross_validation.splits",
    "cross_validate": "distpert.cross_validation.protocol",
    "compare": "distpert.cross_validation.comparison",
    "to_arviz": "distpert.evaluation.arviz_bridge",
    "loo": "distpert.evaluation.arviz_bridge",
    "LeaveOneOut": "distpert.evaluation.arviz_bridge",
    "calibration": "distpert.evaluation.reliability",
    "combine_calibrations": "distpert.evaluation.reliability",
    "without_latent_uncertainty": "distpert.evaluation.reliability",
    "conformalize": "distpert.predictions.conformal",
    "ConformalPrediction": "distpert.predictions.conformal",
    "width_at_coverage": "distpert.evaluation.calibration_table",
}


def __getattr__(name: str) -> object:
    value: object
    if name == "__version__":
        from importlib.metadata import version

        value = version("distpert")
    elif name in _SUBMODULES:
        value = import_module(f"distpert.{name}")
    elif name in _MODULE:
        value = getattr(import_module(_MODULE[name]), name)
    else:
        raise AttributeError(f"module 'distpert' has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
