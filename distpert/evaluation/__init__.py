"""Predictions against cells: scores, calibration and predictive checks."""
