"""Histograms of the cells of a screen: reading, counting, moments and statistics."""
