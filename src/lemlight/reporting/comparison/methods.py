"""Which methods stand behind some runs, what they are called, and how they compare."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lemlight.errors import LemlightError
from lemlight.metrics import Level
from lemlight.metrics.comparison import LOCATED, Comparison, compare_methods
from lemlight.metrics.levels import LEVELS, level_sections, level_table, why_not
from lemlight.reporting.comparison.runs import TrainingRun
from lemlight.settings import public_config
from lemlight.sweeps.names import WITHOUT_EFFECT
from lemlight.sweeps.state import flat, within
from lemlight.text import short_numbers

# groups of the config that name a method by the file chosen in them, the most telling first
GROUPS = ("pooling", "backbone", "loss", "dataset", "augmentation", "optimizer", "scheduler")
REPEATS = ("seed", "dataset.split.fold")
# settings that change no network: of the machine, of what is shown, of how lesions are drawn and measured
NO_METHOD = (
    *WITHOUT_EFFECT, "bootstrap", "resume", "label_names", "localization", "trainer.accelerator", "primary_level",
    "level_rule", "prevalence", "subgroups",
)  # fmt: skip
CLASS = ".class"
ABSENT = "(none)"
UNKNOWN = "unknown settings"

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Methods:
    """The methods of some runs: what differs between the runs apart from seed, fold and what changes no network.

    `names` is the method of every run, in their order; `keys` are the settings that tell the methods apart; `besides`
    are further settings that change with them, so that a difference may come from these.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    besides: tuple[str, ...]


def find_methods(configs: Sequence[Mapping[str, Any]]) -> Methods:
    """Name the method of every run's config: by the chosen files where these differ, else by the differing values."""
    settings = [method_settings(config) for config in configs]
    varying = [key for key in differing_keys(settings) if key not in REPEATS and not _is_seed(key, settings)]
    varying.sort(key=lambda key: GROUPS.index(key) if key in GROUPS else len(GROUPS))
    keys: list[str] = []
    for key in varying:
        if len({_values(own, [*keys, key]) for own in settings}) > len({_values(own, keys) for own in settings}):
            keys.append(key)
    names = tuple(_name(own, settings, keys) for own in settings)
    short = tuple(map(short_numbers, names))
    implied = set(varying).intersection(GROUPS)  # another pooling has other settings
    besides = tuple(key for key in varying if key not in keys and (key in GROUPS or not within(key, implied)))
    return Methods(short if len(set(short)) == len(set(names)) else names, tuple(keys), besides)


def method_settings(config: Mapping[str, Any], without: Sequence[str] = NO_METHOD) -> dict[str, str]:
    """Return the public settings by key with dots, each group's chosen file first; those in `without` are left out.

    Of a `_target_` only the name of the class is told, under the key `pooling.class`.
    """
    public = flat_settings(config)
    chosen = {group: public.get(f"choices.{group}", "null") for group in GROUPS}
    settings = {group: name for group, name in chosen.items() if name != "null"}
    for key, value in public.items():
        if key.endswith("._target_"):
            settings[key.removesuffix("._target_") + CLASS] = value.rpartition(".")[2]
        elif not within(key, (*without, "choices")):
            settings[key] = value
    return settings


def flat_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the public settings of a config (no path) as text, by key with dots."""
    values = flat(public_config(config))
    return {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in values.items()}


def differing_keys(settings: Sequence[Settings]) -> list[str]:
    """List the keys in which settings differ, in their order in the configuration."""
    keys = dict.fromkeys(key for own in settings for key in own)
    return [key for key in keys if len({own.get(key, ABSENT) for own in settings}) > 1]


def _is_seed(key: str, settings: Sequence[Settings]) -> bool:
    """Whether a setting is the run's seed again in all runs, as a callback has it."""
    return key.endswith(".seed") and all(own.get(key) == own.get("seed") for own in settings)


def _values(own: Settings, keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(own.get(key, ABSENT) for key in keys)


def _name(own: Settings, settings: Sequence[Settings], keys: Sequence[str]) -> str:
    """Name a method by the values of the keys, each only where it still tells methods apart."""
    parts = [] if set(keys).intersection(GROUPS) else [own.get("pooling", "trained network")]
    for place, key in enumerate(keys):
        alike = [other for other in settings if _values(other, keys[:place]) == _values(own, keys[:place])]
        if len({other.get(key, ABSENT) for other in alike}) > 1:
            value = own.get(key, ABSENT)
            parts.append(value if key in GROUPS else f"{key}={value}")
    return ", ".join(parts)


@dataclass(frozen=True)
class ComparedRuns:
    """All runs, the method and the repeat of each by number, and what comparing the finished ones gave.

    `groups` are the finished runs by method; `repeat` is what repeats a method: seed, or fold where the runs are folds
    of one split. `levels` are the comparisons at every level that all of them define, none where they cannot be
    compared, which `notes` then explain; they name no image and no patient. `undefined` says why the other levels are
    not there. `primary` is the level that the runs recorded before they looked at the test split.
    """

    runs: Sequence[TrainingRun]
    methods: Methods
    method_of: Mapping[int, str]
    repeat: str
    levels: Mapping[Level, Comparison]
    notes: Sequence[str]
    primary: Level = "image"
    undefined: Mapping[Level, str] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison | None:
        """The comparison of images."""
        return self.levels.get("image")

    @property
    def done(self) -> list[TrainingRun]:
        """The finished runs."""
        return [run for run in self.runs if run.state == "done"]

    @property
    def groups(self) -> dict[str, list[TrainingRun]]:
        """The finished runs by method."""
        groups: dict[str, list[TrainingRun]] = {}
        for run in self.done:
            groups.setdefault(self.method_of[run.number], []).append(run)
        return groups

    def repeat_of(self, run: TrainingRun) -> str:
        """Seed or fold of a run, in words."""
        return f"{self.repeat} {_repeat(run, self.repeat)}" if run.config else UNKNOWN


def compare_runs(runs: Sequence[TrainingRun], resamples: int) -> ComparedRuns:
    """Find the methods of the runs and compare the finished ones; what cannot be compared is said, never raised."""
    known = [run for run in runs if run.config]
    methods = find_methods([run.config for run in known])
    method_of = {run.number: UNKNOWN for run in runs}
    method_of |= {run.number: name for run, name in zip(known, methods.names, strict=True)}
    done = [run for run in runs if run.state == "done"]
    repeat = "fold" if len({run.fold for run in done or known}) > 1 else "seed"
    numbers: dict[tuple[str, str], list[str]] = {}
    for run in done:
        numbers.setdefault((method_of[run.number], _repeat(run, repeat)), []).append(str(run.number))
    notes = [
        f"Runs {' and '.join(same)} are both {method} with {repeat} {name}: leave one of them in the folder."
        for (method, name), same in numbers.items()
        if len(same) > 1
    ]
    if repeat == "fold" and len({run.seed for run in done}) > 1:
        notes.append("Both seed and fold differ between the runs: compare one seed, or one fold, at a time.")
    if not done:
        notes.append("No run is finished: there is nothing to compare.")
    levels: dict[Level, Comparison] = {}
    undefined = _undefined(done)
    primary, note = _primary(done, undefined)
    if not notes:
        for level in (level for level in LEVELS if level not in undefined):
            comparison, said = _compare(done, method_of, repeat, resamples, level)
            notes += said
            if comparison is None:
                break
            levels[level] = comparison
    return ComparedRuns(runs, methods, method_of, repeat, levels, [*notes, *note], primary, undefined)


def _undefined(runs: Sequence[TrainingRun]) -> dict[Level, str]:
    """Say why a level above the image is not compared: the first run that does not define it."""
    found: dict[Level, str] = {}
    for level in LEVELS[1:]:
        for run in runs:
            reason = why_not(run.predictions, level)
            if reason or level not in level_sections(run.summary):
                found[level] = f"run {run.number}: {reason or 'its metrics.json has no figures of it'}"
                break
    return found


def _primary(runs: Sequence[TrainingRun], undefined: Mapping[Level, str]) -> tuple[Level, list[str]]:
    """Return the primary level that all runs recorded, else the image, and what there is to say about that."""
    recorded: list[Level] = list(dict.fromkeys(run.summary.get("primary_level", "image") for run in runs))
    if len(recorded) > 1:
        names = " and ".join(recorded)
        return "image", [f"The runs recorded different primary levels ({names}): images are compared first."]
    level: Level = recorded[0] if recorded else "image"
    if level in undefined:
        return "image", [f"The primary level is {level}, which is not defined: {undefined[level]}."]
    return level, []


def _compare(
    runs: Sequence[TrainingRun], method_of: Mapping[int, str], repeat: str, resamples: int, level: Level
) -> tuple[Comparison | None, list[str]]:
    lacking = [str(run.number) for run in runs if run.located is None or level != "image"]
    notes = []
    if lacking and level == "image":
        notes = [f"Dice is not compared: run {', '.join(lacking)} left none (no known lesion)."]
    sections = [level_sections(run.summary)[level] for run in runs]
    thresholds_known = all(section["threshold"] is not None for section in sections)
    frames = []
    for run, section in zip(runs, sections, strict=True):
        table = level_table(run.predictions, level, section.get("rule", "mean_logit"))
        rows = table[["image_id", "patient_id", "label", "probability"]].assign(method=method_of[run.number])
        rows[repeat] = _repeat(run, repeat)
        if thresholds_known:
            rows["prediction"] = (rows["probability"] > section["threshold"]).astype(int)
        if run.located is not None and not lacking:
            rows = rows.join(run.located[list(LOCATED)], on="image_id")
        frames.append(rows)
    frame = pd.concat(frames, ignore_index=True)
    for table in [frame] if lacking else [frame, frame.drop(columns=list(LOCATED))]:
        try:
            return compare_methods(table, resamples=resamples), notes
        except LemlightError as error:
            by = "" if level == "image" else f"By {level}: "
            notes = [f"Dice is not compared: {error}" if "dsc" in table else f"{by}{error}"]
    return None, notes


def _repeat(run: TrainingRun, repeat: str) -> str:
    return run.fold if repeat == "fold" else run.seed
