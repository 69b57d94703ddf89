"""Which image is trained, validated and tested on: the split, and a report of what stands on both sides of it."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.model_selection import StratifiedKFold, train_test_split

from lemlight.arguments import InnerFraction, NotNegativeCount, checked
from lemlight.data.table import SPLITS, first_ten, one_spelling
from lemlight.errors import LemlightError


@dataclass(frozen=True)
class SplitCounts:
    """One split in numbers; `fraction` is that of all images."""

    split: str
    images: int
    malignant: int
    patients: int
    fraction: float


@dataclass(frozen=True)
class LeakReport:
    """Counts per split, and the patients, breasts (patient, side) and files that more than one split holds."""

    scheme: str
    splits: tuple[SplitCounts, ...]
    leaking_patients: tuple[str, ...]
    leaking_breasts: tuple[str, ...]
    leaking_files: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self, names: bool = True, width: int | None = None) -> str:
        """Draw the report as a short table with its warnings below, in lines of at most `width` (from 47 on).

        Without `names` no patient is named in it.
        """
        lines = [f"split by {self.scheme}"] if self.scheme else []
        lines.append(f"{'split':<8}{'images':>8}{'fraction':>10}{'malignant':>11}{'patients':>10}")
        lines += [
            f"{row.split or '(none)':<8}{row.images:>8}{row.fraction:>10.1%}{row.malignant:>11}{row.patients:>10}"
            for row in self.splits
        ]
        lines.append(
            f"in more than one split: {len(self.leaking_patients)} patients, "
            f"{len(self.leaking_breasts)} breasts, {len(self.leaking_files)} files"
        )
        if names and self.leaking_patients:
            lines.append(f"these patients: {first_ten(self.leaking_patients)}")
        lines += [f"warning: {warning}" for warning in self.warnings]
        if width:
            wrap = partial(textwrap.wrap, width=width, subsequent_indent="  ", break_on_hyphens=False)
            lines = [part for line in lines for part in wrap(line)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain lists, numbers and strings for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def leak_report(table: pd.DataFrame, scheme: str = "") -> LeakReport:
    """Count an image table split by split, and find what leaks; `scheme` is named in the report.

    Patients are compared in the normal form of their IDs, see `one_spelling`.
    """
    table = table.assign(patient_id=one_spelling(table["patient_id"]))
    counts = []
    for split in dict.fromkeys((*SPLITS, *sorted(table["split"].unique()))):
        rows = table[table["split"] == split]
        fraction = len(rows) / max(1, len(table))
        counts.append(SplitCounts(split, len(rows), int(rows["label"].sum()), rows["patient_id"].nunique(), fraction))
    sided = table[table["laterality"] != ""]
    patients = _in_several_splits(table, table["patient_id"])
    breasts = _in_several_splits(sided, sided["patient_id"] + " " + sided["laterality"])
    files = _in_several_splits(table, table["path"])
    warnings = tuple(leak_warnings(scheme, counts, patients, files))
    return LeakReport(scheme, tuple(counts), patients, breasts, files, warnings)


def _in_several_splits(table: pd.DataFrame, key: "pd.Series[str]") -> tuple[str, ...]:
    splits = table[table["split"] != ""].groupby(key)["split"].nunique()
    return tuple(sorted(splits.index[splits > 1].astype(str)))


def leak_warnings(
    scheme: str, counts: Sequence[SplitCounts], patients: Sequence[Any], files: Sequence[Any]
) -> list[str]:
    """What makes the figures of a split doubtful, in sentences of ours."""
    warnings = []
    if scheme == "image":
        warnings.append(
            "this split is image-wise: views of one breast can stand on both sides, which flatters "
            "every figure; dataset.split.scheme=patient keeps patients apart"
        )
    if patients:
        warnings.append(f"{len(patients)} patients are trained and tested on: the figures do not hold for new patients")
    if files:
        warnings.append(f"{len(files)} files in more than one split: the same image is trained and tested on")
    for row in counts:
        if row.images and row.malignant in (0, row.images):
            only = "malignant" if row.malignant else "benign"
            warnings.append(f"{row.split or '(none)'} holds one class only ({row.images} {only}): its AUC is undefined")
    return warnings


Scheme = Literal["patient", "kfold", "image", "column"]


def check_split(test_fraction: float, val_fraction: float, folds: int, fold: int, **others: object) -> None:
    """Refuse settings of a split that contradict one another, with LemlightError; the others stand each for itself."""
    if test_fraction + val_fraction >= 1:
        raise LemlightError(
            f"dataset.split: test_fraction={test_fraction} and val_fraction={val_fraction} leave nothing to train on: "
            "together they must stay below 1"
        )
    if fold >= folds:
        raise LemlightError(f"dataset.split.fold={fold}: folds count from 0, so it must be below folds={folds}")


@checked
def split_table(
    table: pd.DataFrame,
    scheme: Scheme,
    *,
    seed: NotNegativeCount,
    test_fraction: InnerFraction = 0.2,
    val_fraction: InnerFraction = 0.15,
    folds: Annotated[int, Field(ge=2)] = 5,
    fold: NotNegativeCount = 0,
    allow_leaks: bool = False,
) -> pd.DataFrame:
    """Return the table with `split` filled, rows in their order; the result depends on the seed, not on that order.

    Schemes: `patient` stratifies patients by whether any of their images is malignant; `kfold` does so in folds,
    number `fold` is the test split; `image` assigns images, so that views of one breast can stand on both sides;
    `column` keeps the table's own split. Where there is no val split yet (`kfold`, `column`), it is taken from train
    by patient. `test_fraction` and `val_fraction` are fractions of all patients (of all images for `image`).

    Raises:
        LemlightError: too few patients, one class only in train, an incomplete column, or a patient in two splits.
    """
    check_split(test_fraction, val_fraction, folds, fold)
    _check_classes(table["label"], "the data set")
    patients = one_spelling(table["patient_id"])
    key, what = (table["image_id"], "images") if scheme == "image" else (patients, "patients")
    labels = table.groupby(key)["label"].max().sort_index()  # of a patient: 1 if any image is malignant
    if scheme == "column":
        result = _by_column(table, patients, seed, val_fraction, allow_leaks)
    else:
        if scheme == "kfold":
            test = _fold(labels, seed, folds, fold)
        else:
            test = _draw(labels, test_fraction * len(labels), seed, "test", what)
        val = _draw(labels.drop(test), val_fraction * len(labels), seed, "val", what)
        split = pd.Series("train", index=labels.index)
        split[test], split[val] = "test", "val"
        result = table.assign(split=key.map(split))
    _check_classes(result.loc[result["split"] == "train", "label"], "the train split")
    return result


def _check_classes(labels: "pd.Series[int]", where: str) -> None:
    malignant, images = int(labels.sum()), len(labels)
    if malignant in (0, images):
        raise LemlightError(
            f"one class only in {where}: {malignant} malignant and {images - malignant} benign images; "
            "training needs both: check the labels, or use another split (dataset.split.scheme, dataset.split.seed)"
        )


def _draw(labels: "pd.Series[int]", wanted: float, seed: int, split: str, what: str) -> pd.Index:
    """Draw about `wanted` stratified entries of `labels`; LemlightError where they do not suffice."""
    count = max(2, round(wanted))  # one of each class
    try:
        _, drawn = train_test_split(labels.index.to_numpy(), test_size=count, random_state=seed, stratify=labels)
    except ValueError as error:
        malignant = int(labels.sum())
        raise LemlightError(
            f"too few {what} for a {split} split of {count} with both classes on either side: there are {malignant} "
            f"malignant and {len(labels) - malignant} benign {what} to take it from; add {what}, or change "
            f"dataset.split.{split}_fraction"
        ) from error
    chosen: pd.Index = pd.Index(drawn)
    return chosen


def _fold(labels: "pd.Series[int]", seed: int, folds: int, fold: int) -> pd.Index:
    counts = np.bincount(labels, minlength=2)
    if counts.min() < folds:
        raise LemlightError(
            f"fold {fold} of {folds} cannot be made: there are {counts[1]} malignant and {counts[0]} benign patients, "
            "and every fold needs one of each; change dataset.split.folds"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    _, test = list(splitter.split(labels.index, labels))[fold]
    chosen: pd.Index = labels.index[test]
    return chosen


def _by_column(
    table: pd.DataFrame, patients: "pd.Series[str]", seed: int, val_fraction: float, allow_leaks: bool
) -> pd.DataFrame:
    unknown = table.loc[table["split"] == "", "image_id"]
    if len(unknown):
        raise LemlightError(
            f"{len(unknown)} of {len(table)} images have no split of their own: {first_ten(unknown)}; "
            "fill the split column with train, val or test, or set dataset.split.scheme=patient"
        )
    absent = [split for split in ("train", "test") if split not in set(table["split"])]
    if absent:
        raise LemlightError(
            f"no image in {' and '.join(absent)}: fix the split column, or set dataset.split.scheme=patient"
        )
    leaking = leak_report(table).leaking_patients
    if leaking and not allow_leaks:
        raise LemlightError(
            f"{len(leaking)} patients stand in more than one split: {first_ten(leaking)}; set "
            "dataset.split.scheme=patient for a split without leaks, or dataset.split.allow_leaks=true to keep this one"
        )
    if (table["split"] == "val").any():
        return table.copy()
    labels = table[table["split"] == "train"].groupby(patients)["label"].max().sort_index()
    val = _draw(labels, val_fraction * patients.nunique(), seed, "val", "patients")
    in_val = (table["split"] == "train") & patients.isin(val)
    return table.assign(split=table["split"].mask(in_val, "val"))
