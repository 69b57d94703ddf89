"""Synthetic mammograms: the embedded data set, so that everything runs without a download."""
