"""Figures: curves, overlays, sheets of images; drawn without pyplot, so that nothing is kept between jobs."""
