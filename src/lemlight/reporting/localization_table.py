"""The localization figures of a run, method by method, as a reader sees them."""

from collections.abc import Mapping
from typing import Any

from lemlight.reporting.names import interval_text, value_text

FIGURE_NAMES = {
    "dsc": "DSC",
    "lesion_recall": "Lesion recall",
    "pixel_recall": "Pixel recall",
    "pointing": "Pointing",
    "pxap": "PxAP",
    "max_box_acc_v2": "MaxBoxAcc V2",
    "froc": "FROC mean",
}
METHOD_NAMES = {
    "importance": "Importance",
    "cam": "CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "gradient": "Gradient",
    "smooth_grad": "SmoothGrad",
}


def has_lesions(summary: Mapping[str, Any]) -> bool:
    """Whether the images of a summary (metrics.json) show any known lesion."""
    return bool(summary.get("localization", {}).get("images_with_lesion"))


def method_rows(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each method its name and, in the order of FIGURE_NAMES, value and interval; "" where there is none."""
    sections = {summary["localization"]["method"]: summary, **summary.get("localization_compared", {})}
    return [
        (
            METHOD_NAMES.get(method, method),
            [_cell(section[name]["mean"] if name == "froc" else section[name]) for name in FIGURE_NAMES],
        )
        for method, section in sections.items()
    ]


def localization_text(summary: Mapping[str, Any]) -> str:
    """Return the figures as a small table for the terminal, one line a method."""
    rows = [(name, [f"{value} [{interval.replace(' to ', ', ')}]" if interval else value for value, interval in cells])
            for name, cells in method_rows(summary)]  # fmt: skip
    width = max(len(cell) for _, cells in rows for cell in cells)
    first = max(len(name) for name, _ in rows)
    part = summary["localization"]
    lines = [
        f"localization: {part['lesions']} lesions on {part['images_with_lesion']} of {part['images']} images whose "
        f"lesions are known; settings: {part['chosen_on']}",
        "",
        "  " + " " * first + "  " + "  ".join(name.ljust(width) for name in FIGURE_NAMES.values()).rstrip(),
    ]
    lines += [f"  {name:<{first}}  " + "  ".join(cell.ljust(width) for cell in cells).rstrip() for name, cells in rows]
    return "\n".join(lines)


def _cell(figure: Mapping[str, Any]) -> tuple[str, str]:
    return value_text(figure), interval_text(figure)
