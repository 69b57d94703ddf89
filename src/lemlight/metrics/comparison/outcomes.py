"""What one trained network said of N images, and its figures for many weightings of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lemlight.errors import LemlightError
from lemlight.metrics.classification import METRICS, weighted_auroc, weighted_metrics


@dataclass(frozen=True)
class Outcomes:
    """The images in an order that all methods share."""

    truth: NDArray[np.bool_]
    """(N,) malignant."""
    probability: NDArray[np.float64]
    """(N,) of malignancy."""
    called: NDArray[np.bool_]
    """(N,) called malignant, at whatever threshold the method has."""
    dsc: NDArray[np.float64] | None = None
    """(N,) Dice of the location map, NaN where it is not defined; None where nothing was localized."""


Metric = Callable[[Outcomes, NDArray[np.float64]], NDArray[np.float64]]
"""A figure (R,) of outcomes for every row of weights (R, N); NaN where the weighted images do not define it."""


def weighted_figures(outcomes: Outcomes, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return for every row of weights (R, N), counts of the N images, each figure (R,); NaN is undefined.

    The figures are those of `classification.METRICS`, and `dsc`, the mean Dice, where there is one.
    """
    # A call is a probability of 0 or 1: so the figures of the calls come from the lines that metrics.json comes from.
    figures = weighted_metrics(outcomes.truth, outcomes.called.astype(np.float64), weights, 0.5)
    figures["auroc"] = weighted_auroc(outcomes.truth, outcomes.probability, weights)
    figures["brier"] = _mean((outcomes.probability - outcomes.truth) ** 2, np.ones(outcomes.truth.size), weights)
    if outcomes.dsc is not None:
        figures["dsc"] = _mean(np.nan_to_num(outcomes.dsc), (~np.isnan(outcomes.dsc)).astype(np.float64), weights)
    return figures


def named_metric(name: str) -> Metric:
    """Return the metric of that name: one of `classification.METRICS`, or dsc.

    Raises:
        LemlightError: there is none of that name.
    """
    if name not in (*METRICS, "dsc"):
        raise LemlightError(f"no metric is called {name!r}: take one of {', '.join((*METRICS, 'dsc'))}")

    def metric(outcomes: Outcomes, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        figures: Mapping[str, NDArray[np.float64]] = weighted_figures(outcomes, weights)
        if name not in figures:
            raise LemlightError("there is no Dice to compare: these outcomes have no dsc")
        return figures[name]

    return metric


def _mean(
    values: NDArray[np.float64], counted: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted mean (R,) of the values (N,) that are counted (N,), NaN where none of them has weight."""
    part, whole = weights @ (values * counted), weights @ counted
    mean = np.full(part.shape, np.nan)
    np.divide(part, whole, out=mean, where=whole > 0)
    return mean
