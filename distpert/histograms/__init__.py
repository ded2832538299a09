"""From the cells of a screen to counted histograms, their moments and statistics."""
