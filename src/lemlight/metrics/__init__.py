"""Figures of merit with intervals over patients: numpy and pandas only, no network, no Lightning."""
