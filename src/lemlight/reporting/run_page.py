"""The figures of a run on the terminal."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lemlight.errors import LemlightError
from lemlight.files import written_aside
from lemlight.metrics import LOCALIZATION_NAMES
from lemlight.plots.style import heading, how_text, interval_text, metric_rows, value_text


def metrics_text(summary: Mapping[str, Any]) -> str:
    """Return the figures of a summary (metrics.json) as a small table; what is undefined stands with its reason."""
    rows = metric_rows(summary)
    width = max(len(name) for name, *_ in rows)
    lines = [how_text(summary), ""]
    for name, value, interval, reason in rows:
        shown = f"[{interval.replace(' to ', ', ')}]" if interval else f"({reason})"
        lines.append(f"  {name:<{width}}  {value:>9}  {shown}")
    return "\n".join(lines)


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
    """Return for each method its name, and value and interval ("" where there is none) of all LOCALIZATION_NAMES."""
    sections = {summary["localization"]["method"]: summary, **summary.get("localization_compared", {})}
    return [
        (
            METHOD_NAMES.get(method, method),
            [_cell(section[name]["mean"] if name == "froc" else section[name]) for name in LOCALIZATION_NAMES],
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
        "  " + " " * first + "  " + "  ".join(name.ljust(width) for name in map(heading, LOCALIZATION_NAMES)).rstrip(),
    ]
    lines += [f"  {name:<{first}}  " + "  ".join(cell.ljust(width) for cell in cells).rstrip() for name, cells in rows]
    return "\n".join(lines)


def _cell(figure: Mapping[str, Any]) -> tuple[str, str]:
    return value_text(figure), interval_text(figure)


# name of a figure -> its heading, and what it shows for those who do not see it; other names are their own heading
PLOT_TEXTS = {
    "sheet": (
        "Images, score maps and extrema",
        "Images of the split, each beside its score map: maxima are triangles pointing up, minima triangles pointing "
        "down, true lesions are outlined; one colour scale holds for all.",
    ),
    "roc": ("ROC curve", "True against false positive rate with the pointwise 95 % band over patients."),
    "reliability": (
        "Reliability",
        "Share of malignant images against predicted probability in bins of equal width, with 95 % Wilson intervals "
        "(sample size: the patients of the bin) and the number of images per bin.",
    ),
    "overlays": (
        "Where the network looks",
        "Each image beside itself under its location map: regions outlined, true lesions dashed; the three best, "
        "three around the median and the three worst by Dice.",
    ),
    "froc": (
        "FROC curve",
        "Share of lesions found against false regions per image, as the score from which a region counts falls.",
    ),
    "curves": ("Training", "Losses, figures on the validation split and lambda over the training."),
}


@dataclass(frozen=True)
class EmbeddedFigure:
    """A figure as the page shows it: heading, description, and the PNG as base64."""

    heading: str
    description: str
    png: str


def write_run_page(
    folder: Path,
    title: str,
    summary: Mapping[str, Any],
    figures: Mapping[str, Path],
    config: Mapping[str, Any],
    leak_text: str,
    versions: Mapping[str, str],
    command: str,
) -> Path:
    """Write report.html into the run folder and return its path.

    Args:
        folder: the run folder; it exists.
        title: of the page.
        summary: what metrics.json holds.
        figures: PNG files by name, shown in this order; `sheet`, `roc`, `reliability`, `curves` have their own texts.
        config: the composed configuration, plain values.
        leak_text: how the data were split, and the leak report.
        versions: of the packages; command: repeats the run.

    Raises:
        LemlightError: a figure is missing, or the page cannot be written.
    """
    target = folder / "report.html"
    if missing := [f"{name} ({path})" for name, path in figures.items() if not path.is_file()]:
        raise LemlightError(f"cannot write {target}: no such figure: {', '.join(missing)}")
    page = _template().render(
        title=title,
        how=how_text(summary),
        rows=metric_rows(summary),
        localization=method_rows(summary) if has_lesions(summary) else [],
        localization_figures=[heading(name) for name in LOCALIZATION_NAMES],
        localization_rules=summary.get("localization", {}).get("rules", {}),
        figures=[_embed(name, path) for name, path in figures.items()],
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        leak_text=leak_text,
        versions=versions,
        command=command,
    )
    with written_aside(target) as aside:
        aside.write_text(page, encoding="utf-8")
    return target


def _embed(name: str, path: Path) -> EmbeddedFigure:
    heading, description = PLOT_TEXTS.get(name, (name, name))
    return EmbeddedFigure(heading, description, base64.b64encode(path.read_bytes()).decode("ascii"))


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("run.html.j2")
