"""Splits: every image goes to train, val or test; by patient unless the user asks otherwise."""

from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from lemlight.data.leaks import leak_report
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError

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
