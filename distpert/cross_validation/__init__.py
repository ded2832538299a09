"""Cross-validation over perturbations: splits, scores of held-out perturbations, and comparisons of models."""

from distpert.cross_validation.comparison import compare
from distpert.cross_validation.models import Distpert
from distpert.cross_validation.protocol import cross_validate
from distpert.cross_validation.splits import Splits, split_perturbations

__all__ = ["Distpert", "Splits", "compare", "cross_validate", "split_perturbations"]
