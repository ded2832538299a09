"""Predictions of any method: moments, histograms, intervals, synthetic cells."""
