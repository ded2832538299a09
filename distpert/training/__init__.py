"""The training counts that every method learns from, unpacked and checked."""
