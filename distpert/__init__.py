"""Predict how a perturbation changes the distribution of every gene's expression across single cells.

Names load on first use: ``import distpert`` itself imports nothing but the standard library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distpert import baselines, datasets, plots, scores, statistics
    from distpert.arviz_bridge import LeaveOneOut, loo, to_arviz
    from distpert.calibration_table import width_at_coverage
    from distpert.comparison import compare
    from distpert.conformal import ConformalPrediction, conformalise
    from distpert.cross_validation import cross_validate
    from distpert.embedding_files import read_embeddings
    from distpert.embeddings import Embeddings
    from distpert.fitted import Fit
    from distpert.fitting import fit
    from distpert.histograms import Histograms, load_histograms
    from distpert.inference import Optimisation
    from distpert.model import Priors
    from distpert.prediction import Prediction
    from distpert.predictive_checks import predictive_check
    from distpert.prior_prediction import PriorPrediction
    from distpert.reliability import calibration, combine_calibrations, without_latent_uncertainty
    from distpert.scoring import score
    from distpert.screen_counts import count_histograms
    from distpert.simulation import Simulation, simulate
    from distpert.splits import Splits, split_perturbations
    from distpert.storage import load
    from distpert.text_embeddings import embed_text

    __version__: str

__all__ = [
    "ConformalPrediction",
    "Embeddings",
    "Fit",
    "Histograms",
    "LeaveOneOut",
    "Optimisation",
    "Prediction",
    "PriorPrediction",
    "Priors",
    "Simulation",
    "Splits",
    "__version__",
    "baselines",
    "calibration",
    "combine_calibrations",
    "compare",
    "conformalise",
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

# No public function may have the name of a module of this package: importing the module would replace it.
_MODULE = {
    "Embeddings": "distpert.embeddings",
    "Fit": "distpert.fitted",
    "Histograms": "distpert.histograms",
    "Prediction": "distpert.prediction",
    "PriorPrediction": "distpert.prior_prediction",
    "predictive_check": "distpert.predictive_checks",
    "count_histograms": "distpert.screen_counts",
    "fit": "distpert.fitting",
    "load": "distpert.storage",
    "load_histograms": "distpert.histograms",
    "read_embeddings": "distpert.embedding_files",
    "embed_text": "distpert.text_embeddings",
    "Optimisation": "distpert.inference",
    "Priors": "distpert.model",
    "Simulation": "distpert.simulation",
    "simulate": "distpert.simulation",
    "score": "distpert.scoring",
    "Splits": "distpert.splits",
    "split_perturbations": "distpert.splits",
    "cross_validate": "distpert.cross_validation",
    "compare": "distpert.comparison",
    "to_arviz": "distpert.arviz_bridge",
    "loo": "distpert.arviz_bridge",
    "LeaveOneOut": "distpert.arviz_bridge",
    "calibration": "distpert.reliability",
    "combine_calibrations": "distpert.reliability",
    "without_latent_uncertainty": "distpert.reliability",
    "conformalise": "distpert.conformal",
    "ConformalPrediction": "distpert.conformal",
    "width_at_coverage": "distpert.calibration_table",
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
    globals()[name] = value  # so that the next access is an ordinary one
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
