"""The page of a comparison: a single HTML file that asks nothing of any server."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from lemlight.files import written_aside
from lemlight.metrics.comparison.sentences import METRIC_NAMES
from lemlight.reporting.comparison.examples import Mammogram
from lemlight.reporting.comparison.facts import Confusion, Leaks
from lemlight.reporting.comparison.table import COLUMNS, MethodRow, columns_of
from lemlight.reporting.comparison.table_files import cell_text, interval_text
from lemlight.reporting.localization_table import FIGURE_NAMES
from lemlight.reporting.names import CLASS_NAMES

TEMPLATES = Path(__file__).parents[1] / "templates"
FIGURE_TEXTS = {
    "roc": (
        "ROC curves",
        "True against false positive rate of every method. With several trainings of a method: the mean curve.",
    ),
    "froc": ("FROC curves", "Share of lesions found against false regions per image, for every method."),
    "training": ("Training curves", "Losses and validation AUC over the epochs, one line per training."),
    "reliability": (
        "Reliability",
        "Share of malignant images against predicted probability, a panel per method; on the dotted line a probability "
        "is what it says. Grey: 95 % Wilson intervals, where the method has one training.",
    ),
    "scores": (
        "Score maps",
        "The same mammograms, drawn before any training, under the score map of each method's first training: orange "
        "speaks for malignant, blue for benign, each method on a scale of its own; at most ten methods. Triangles "
        "pointing up are maxima, pointing down minima; green outlines are true lesions.",
    ),
}

LISTED = 5  # differences in one figure, where what is shown is summed up


@dataclass(frozen=True)
class Sentences:
    """What the differences of one metric say: those that are shown, the largest first, and the others."""

    metric: str
    shown: tuple[str, ...]
    others: tuple[str, ...]
    plot: Path | None

    def first(self) -> list[str]:
        """Return the largest of what is shown, and how many more there are: among ten methods there are 45 pairs."""
        more = len(self.shown) - LISTED
        if more <= 1:
            return list(self.shown)
        name = METRIC_NAMES[self.metric]
        return [*self.shown[:LISTED], f"{more} more differences in {name} are shown, none larger: see Differences"]


@dataclass(frozen=True)
class RunLine:
    """One training in the list of all: its state, and why it is not done, without names."""

    number: int
    method: str
    repeat: str
    state: str
    why: str
    auroc: str
    command: str


@dataclass(frozen=True)
class ComparisonPage:
    """Everything that the page says; nothing in it names a patient, an image or a file.

    `notes` warn of what the comparison cannot say, `methods` say what a method is here, `figures` are PNG files by
    the names of FIGURE_TEXTS, `settings` a setting and its value for each of `settings_runs` (run numbers).
    """

    title: str
    question: str
    what: str
    methods: Sequence[str]
    notes: Sequence[str]
    rows: Sequence[MethodRow]
    differences: Sequence[Sentences]
    rules: Mapping[str, str]
    figures: Mapping[str, Path]
    mammograms: Sequence[Mammogram]
    confusion: Sequence[Confusion]
    runs: Sequence[RunLine]
    settings_runs: Sequence[tuple[int, str]]
    settings: Sequence[tuple[str, Sequence[str]]]
    leaks: Sequence[Leaks]
    versions: Mapping[str, Sequence[str]]
    command: str


def write_comparison_page(page: ComparisonPage, path: Path) -> Path:
    """Write the page and return its path; LemlightError if it cannot be written."""
    script = (TEMPLATES / "comparison.js").read_text(encoding="utf-8")
    columns = columns_of(page.rows)
    text = _template().render(
        page=page,
        tables=[
            ("Classification", [name for name in columns if name not in FIGURE_NAMES]),
            ("Localization", [name for name in columns if name in FIGURE_NAMES]),
        ],
        names=COLUMNS,
        metric_names=METRIC_NAMES,
        classes=CLASS_NAMES,
        figure_texts=FIGURE_TEXTS,
        not_done=[run for run in page.runs if run.state != "done"],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


@cache
def _template() -> Template:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"embedded": _embedded, "value": cell_text, "interval": interval_text}
    return environment.get_template("comparison.html.j2")
