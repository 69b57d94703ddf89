"""The page of one run: a single HTML file that asks nothing of any server."""

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
from lemlight.reporting.localization_table import FIGURE_NAMES, has_lesions, method_rows
from lemlight.reporting.names import how_text, metric_rows

# name of a figure -> its heading, and what it shows for those who do not see it; other names are their own heading
FIGURE_TEXTS = {
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
        "three around the median and the three worst by DSC.",
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
        localization_figures=list(FIGURE_NAMES.values()),
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
    heading, description = FIGURE_TEXTS.get(name, (name, name))
    return EmbeddedFigure(heading, description, base64.b64encode(path.read_bytes()).decode("ascii"))


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("run.html.j2")
