"""The W&B runs of trainings, read from their run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lemlight.errors import LemlightError
from lemlight.reporting.comparison.methods import NO_METHOD, flat_settings
from lemlight.reporting.comparison.runs import TrainingRun, find_runs
from lemlight.training.flat_figures import flat_figures


@dataclass(frozen=True)
class LoggedRun:
    """A finished training that was logged to W&B.

    `run_id` and `project` find it there; `settings` are the public ones that change a network, as text by key with
    dots; `figures` those of metrics.json by column (`test/auroc`), `pictures` the names of its PNG files; `offline`
    are the folders that `wandb sync` takes, empty where the run was online.
    """

    run_id: str
    project: str
    split: str
    settings: Mapping[str, str]
    figures: Mapping[str, float]
    pictures: tuple[str, ...]
    offline: tuple[Path, ...]


def logged_runs(folders: Sequence[Path]) -> list[LoggedRun]:
    """Read the W&B runs of the finished trainings in `folders`; what was not logged to W&B is passed over.

    Raises:
        LemlightError: none was logged to W&B, they are in several projects, or a folder holds no training.
    """
    trainings = [run for folder in folders for run in find_runs(folder) if run.state == "done"]
    found = [run for run in map(_logged, trainings) if run is not None]
    if not found:
        raise LemlightError(
            f"none of the {len(trainings)} finished trainings was logged to W&B: train with logger=wandb (no account "
            "is needed), or leave out to=wandb"
        )
    projects = sorted({run.project for run in found})
    if len(projects) > 1:
        raise LemlightError(
            f"the trainings are in several W&B projects ({', '.join(projects)}) and a dashboard shows one: "
            "set runs=DIR to a folder with the trainings of one"
        )
    return found


def _logged(run: TrainingRun) -> LoggedRun | None:
    wandb = (run.config.get("logger") or {}).get("wandb")
    places = [run.folder, Path(str(run.config.get("output") or run.folder))]  # the second: the user's own output=
    folder = next((place for place in places if (place / "logs" / "wandb_run_id").is_file()), None)
    if not wandb or folder is None:
        return None
    summary = {"split": "test", **run.summary}
    return LoggedRun(
        run_id=(folder / "logs" / "wandb_run_id").read_text(encoding="utf-8").strip(),
        project=str(wandb["project"]),
        split=str(summary["split"]),
        settings={key: value for key, value in flat_settings(run.config).items() if not _within(key, NO_METHOD)},
        figures=flat_figures(summary),
        pictures=tuple(sorted(path.stem for path in (folder / "figures").glob("*.png"))),
        offline=tuple(sorted(path for path in (folder / "wandb").glob("offline-run-*") if path.is_dir())),
    )


def _within(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)
