"""The leak report: what stands in which split, and what stands in more than one."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from lemlight.data.table import SPLITS, first_ten
from lemlight.errors import LemlightError


@dataclass(frozen=True)
class SplitCounts:
    """One split in numbers; `share` is its share of all images in [0, 1]."""

    split: str
    images: int
    malignant: int
    patients: int
    share: float


@dataclass(frozen=True)
class LeakReport:
    """Counts per split, and the patients, breasts (patient, side) and files that more than one split holds."""

    scheme: str
    splits: tuple[SplitCounts, ...]
    leaking_patients: tuple[str, ...]
    leaking_breasts: tuple[str, ...]
    leaking_files: tuple[str, ...]
    warnings: tuple[str, ...]

    def text(self, names: bool = True) -> str:
        """Draw the report as a short table with its warnings below; without `names` no patient is named in it."""
        lines = [f"split by {self.scheme}"] if self.scheme else []
        lines.append(f"{'split':<8}{'images':>8}{'share':>8}{'malignant':>11}{'patients':>10}")
        lines += [
            f"{row.split or '(none)':<8}{row.images:>8}{row.share:>8.1%}{row.malignant:>11}{row.patients:>10}"
            for row in self.splits
        ]
        lines.append(
            f"in more than one split: {len(self.leaking_patients)} patients, "
            f"{len(self.leaking_breasts)} breasts, {len(self.leaking_files)} files"
        )
        if names and self.leaking_patients:
            lines.append(f"these patients: {first_ten(self.leaking_patients)}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def to_dict(self) -> dict[str, object]:
        """Give the report as plain lists, numbers and strings for JSON."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _in_several_splits(table: pd.DataFrame, key: "pd.Series[str]") -> tuple[str, ...]:
    splits = table[table["split"] != ""].groupby(key)["split"].nunique()
    return tuple(sorted(splits.index[splits > 1].astype(str)))


def _warnings(scheme: str, counts: list[SplitCounts], patients: tuple[str, ...], files: tuple[str, ...]) -> list[str]:
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


def leak_report(table: pd.DataFrame, scheme: str = "") -> LeakReport:
    """Count an image table split by split, and find what leaks; `scheme` is named in the report."""
    counts = []
    for split in dict.fromkeys((*SPLITS, *sorted(table["split"].unique()))):
        rows = table[table["split"] == split]
        if len(rows) or split in SPLITS:
            share = len(rows) / max(1, len(table))
            counts.append(SplitCounts(split, len(rows), int(rows["label"].sum()), rows["patient_id"].nunique(), share))
    sided = table[table["laterality"] != ""]
    patients = _in_several_splits(table, table["patient_id"])
    breasts = _in_several_splits(sided, sided["patient_id"] + " " + sided["laterality"])
    files = _in_several_splits(table, table["path"])
    warnings = tuple(_warnings(scheme, counts, patients, files))
    return LeakReport(scheme, tuple(counts), patients, breasts, files, warnings)


Scheme = Literal["patient", "kfold", "image", "column"]


def split_table(
    table: pd.DataFrame,
    scheme: Scheme,
    *,
    seed: int,
    test_share: float = 0.2,
    val_share: float = 0.15,
    folds: int = 5,
    fold: int = 0,
    allow_leaks: bool = False,
) -> pd.DataFrame:
    """Return the table with `split` filled, rows in their order; the result depends on the seed, not on that order.

    Schemes: `patient` stratifies patients by whether any of their images is malignant; `kfold` does so in folds,
    number `fold` is the test split; `image` deals images, so that views of one breast can stand on both sides;
    `column` keeps the table's own split. Where there is no val split yet (`kfold`, `column`), it is carved out of
    train by patient. Shares are shares of all patients (of all images for `image`).

    Raises:
        LemlightError: too few patients, one class only in train, an incomplete column, or a patient in two splits.
    """
    _check_classes(table["label"], "the data set")
    if scheme == "column":
        result = _by_column(table, seed, val_share, allow_leaks)
    elif scheme == "image":
        labels = table.set_index("image_id")["label"].sort_index()
        result = table.assign(split=table["image_id"].map(_deal(labels, seed, test_share, val_share, "images")))
    else:
        labels = _patient_labels(table)
        if scheme == "patient":
            parts = _deal(labels, seed, test_share, val_share, "patients")
        elif scheme == "kfold":
            test = _fold(labels, seed, folds, fold)
            rest = labels.drop(test)
            parts = pd.Series("train", index=labels.index)
            parts[test] = "test"
            parts[_carve(rest, val_share * len(labels), seed, "val", "patients")] = "val"
        else:
            raise LemlightError(f"there is no split scheme {scheme!r}: choose patient, kfold, image or column")
        result = table.assign(split=table["patient_id"].map(parts))
    _check_classes(result.loc[result["split"] == "train", "label"], "the train split")
    return result


def _check_classes(labels: "pd.Series[int]", where: str) -> None:
    malignant, images = int(labels.sum()), len(labels)
    if malignant in (0, images):
        raise LemlightError(
            f"one class only in {where}: {malignant} malignant and {images - malignant} benign images; "
            "training needs both: check the labels, or use another split (dataset.split.scheme, dataset.split.seed)"
        )


def _patient_labels(table: pd.DataFrame) -> "pd.Series[int]":
    """Label of each patient, sorted by patient: 1 if any image is malignant."""
    return table.groupby("patient_id")["label"].max().sort_index()


def _carve(labels: "pd.Series[int]", wanted: float, seed: int, split: str, what: str) -> pd.Index:
    """Take about `wanted` stratified entries out of `labels`; LemlightError where they do not suffice."""
    count = max(2, round(wanted))  # one of each class
    try:
        _, taken = train_test_split(labels.index.to_numpy(), test_size=count, random_state=seed, stratify=labels)
    except ValueError as error:
        malignant = int(labels.sum())
        raise LemlightError(
            f"too few {what} for a {split} split of {count} with both classes on either side: there are {malignant} "
            f"malignant and {len(labels) - malignant} benign {what} to take it from; add {what}, or change "
            f"dataset.split.{split}_share"
        ) from error
    chosen: pd.Index = pd.Index(taken)
    return chosen


def _deal(labels: "pd.Series[int]", seed: int, test_share: float, val_share: float, what: str) -> "pd.Series[str]":
    parts = pd.Series("train", index=labels.index)
    test = _carve(labels, test_share * len(labels), seed, "test", what)
    parts[test] = "test"
    parts[_carve(labels.drop(test), val_share * len(labels), seed, "val", what)] = "val"
    return parts


def _fold(labels: "pd.Series[int]", seed: int, folds: int, fold: int) -> pd.Index:
    counts = np.bincount(labels, minlength=2)
    if counts.min() < folds or not 0 <= fold < folds:
        raise LemlightError(
            f"fold {fold} of {folds} cannot be made: there are {counts[1]} malignant and {counts[0]} benign patients, "
            "every fold needs one of each, and folds count from 0; change dataset.split.folds or dataset.split.fold"
        )
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    _, test = list(splitter.split(labels.index, labels))[fold]
    chosen: pd.Index = labels.index[test]
    return chosen


def _by_column(table: pd.DataFrame, seed: int, val_share: float, allow_leaks: bool) -> pd.DataFrame:
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
    train = table[table["split"] == "train"]
    val = _carve(_patient_labels(train), val_share * table["patient_id"].nunique(), seed, "val", "patients")
    in_val = (table["split"] == "train") & table["patient_id"].isin(val)
    return table.assign(split=table["split"].mask(in_val, "val"))
