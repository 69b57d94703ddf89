"""What a dashboard is to show of some trainings: figures, settings and pictures that they have."""

from collections.abc import Sequence
from dataclasses import dataclass

from lemlight.reporting.comparison.methods import differing_keys
from lemlight.reporting.dashboard.logged_runs import LoggedRun

FIGURES = ("auroc", "dsc", "acc", "sensitivity", "specificity", "f1")
PICTURES = ("overlays", "sheet", "roc", "froc", "curves", "reliability")
# open in the paper: shown as axes also where the trainings agree in them, if they have them
OPEN_SETTINGS = (
    "pooling.name",
    "backbone.name",
    "dataset.name",
    "seed",
    "dataset.split.fold",
    "loss.beta",
    "pooling.aggregate",
    "pooling.threshold",
    "pooling.penalty_factor",
    "pooling.norm",
    "callbacks.lambda_ramp.end_at",
)
MOST_AXES = 12  # more cannot be read


@dataclass(frozen=True)
class Contents:
    """What to show.

    `run_ids` of W&B; `figures` are the columns of the tested network, without its split: `auroc`; `settings` keys with
    dots that become axes; `poolings` the names that are compared.
    """

    project: str
    run_ids: tuple[str, ...]
    split: str
    figures: tuple[str, ...]
    settings: tuple[str, ...]
    pictures: tuple[str, ...]
    poolings: tuple[str, ...]

    def column(self, figure: str) -> str:
        """Give the column of a figure."""
        return f"{self.split}/{figure}"


def contents_of(runs: Sequence[LoggedRun]) -> Contents:
    """Choose what to show of trainings of one project: nothing that none of them has."""
    split = runs[0].split
    figures = {name for run in runs for name in run.figures}
    pictures = {name for run in runs for name in run.pictures}
    settings = [run.settings for run in runs]
    keys = {key for own in settings for key in own}
    open_settings = [key for key in OPEN_SETTINGS if key in keys]
    axes = dict.fromkeys([*OPEN_SETTINGS[:1], *differing_keys(settings), *open_settings])
    return Contents(
        project=runs[0].project,
        run_ids=tuple(sorted({run.run_id for run in runs})),
        split=split,
        figures=tuple(name for name in FIGURES if f"{split}/{name}" in figures),
        settings=tuple(axes)[:MOST_AXES],
        pictures=tuple(name for name in PICTURES if name in pictures),
        poolings=tuple(dict.fromkeys(own["pooling.name"] for own in settings if "pooling.name" in own)),
    )
