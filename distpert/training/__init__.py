"""What every method learns from: the training counts, unpacked and checked."""
