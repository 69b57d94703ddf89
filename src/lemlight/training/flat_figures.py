"""The figures of metrics.json as flat columns, so that a dashboard can sort, filter and plot every one of them."""

from collections.abc import Mapping
from typing import Any

BOUNDS = ("low", "high")
COUNTS = ("images", "patients")


def flat_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the defined figures of a summary (metrics.json) by name, with the bounds of their intervals.

    `test/auroc`, `test/auroc_low`, `test/auroc_high`; the mean of the FROC curve as `test/froc`; a further localization
    method as `test/cam/dsc`; the best settings for the very images as `test/dsc_oracle`; `test/images`.
    """
    split = summary["split"]
    figures = _figures(summary, f"{split}/")
    for method, section in (summary.get("localization_compared") or {}).items():
        figures |= _figures(section, f"{split}/{method}/")
    oracle = ((summary.get("localization") or {}).get("oracle") or {}).get("dsc")
    if oracle is not None:
        figures[f"{split}/dsc_oracle"] = float(oracle)
    return figures | {f"{split}/{name}": summary[name] for name in COUNTS if name in summary}


def values_only(figures: Mapping[str, float]) -> dict[str, float]:
    """Leave out the bounds of intervals."""
    return {name: value for name, value in figures.items() if not name.endswith(tuple(f"_{part}" for part in BOUNDS))}


def _figures(section: Mapping[str, Any], prefix: str) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, part in section.items():
        figure = part.get("mean", part) if name == "froc" else part
        if not isinstance(figure, Mapping) or figure.get("value") is None:
            continue
        flat[f"{prefix}{name}"] = float(figure["value"])
        flat |= {f"{prefix}{name}_{part}": float(figure[part]) for part in BOUNDS if figure.get(part) is not None}
    return flat
