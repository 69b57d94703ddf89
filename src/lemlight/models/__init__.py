"""Backbones, scorer, poolings and losses in plain torch: tensors in, tensors out, no files but weights."""
