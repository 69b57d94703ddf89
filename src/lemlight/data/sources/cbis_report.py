"""What is odd about a CBIS-DDSM download, counted, with the rule that was followed, in one message."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from lemlight.data.sources.cbis_files import Cases
from lemlight.data.sources.cbis_tables import count
from lemlight.data.table import first_ten

PUBLISHED = 3568  # abnormalities
LAYOUTS = {
    "folder": "folders named after cases",
    "header": "the headers of UID folders",
    "dicom_info.csv": "dicom_info.csv",
    "series": "the series of the tables",
}


@dataclass
class Oddities:
    """Names of images and abnormalities (`..._1`) by what was odd about their files."""

    called_crop: list[str] = field(default_factory=list)
    other_place: list[str] = field(default_factory=list)
    rescaled: list[str] = field(default_factory=list)
    aspect: list[str] = field(default_factory=list)
    mask_missing: list[str] = field(default_factory=list)
    no_mask: list[str] = field(default_factory=list)
    several_files: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def summary(descriptions: pd.DataFrame, cases: Cases, odd: Oddities, images: int, patient_disjoint: bool) -> str:
    """Say how many images there are, how their files were found, and each oddity with its number and rule."""
    counts = count(descriptions)
    found = ", ".join(f"{number} by {LAYOUTS[kind]}" for kind, number in sorted(cases.found_by.items()))
    lines = [
        f"CBIS-DDSM: {images} of {counts['mammograms']} mammograms ({counts['patients']} patients, "
        f"{counts['abnormalities']} abnormalities); files sorted: {found}",
        *_of_tables(counts, patient_disjoint),
        *_of_files(cases, odd),
    ]
    return "\n  - ".join(lines)


def _of_tables(counts: dict[str, int], patient_disjoint: bool) -> list[str]:
    train_test = "all their images go to test" if patient_disjoint else "they stand on both sides, as published"
    rules = (
        ("patients in train and test", f"patients are in train and test: {train_test}"),
        ("patients in mass and calc", "patients are in mass and calc: one patient each"),
        ("mammograms in mass and calc", "mammograms are listed as mass and as calc: one image each"),
        ("mammograms in train and test", "mammograms are listed in train and test: they go to test"),
        ("folders with both labels", "folders hold benign and malignant abnormalities: the image is malignant"),
        ("mammograms with several abnormalities", "mammograms have several abnormalities: a lesion for each"),
    )
    lines = [f"{counts[name]} {rule}" for name, rule in rules if counts[name]]
    if counts["abnormalities"] != PUBLISHED:
        lines.append(f"the tables are not the published ones, which hold {PUBLISHED} abnormalities")
    return lines


def _of_files(cases: Cases, odd: Oddities) -> list[str]:
    lines = [
        *_named("masks are called crops by their description: told apart by shape and pixels", odd.called_crop),
        *_named("masks stand where the table has the crop: told apart by shape and pixels", odd.other_place),
        *_named("masks have another size, but the aspect of their mammogram: rescaled", odd.rescaled),
        *_named("masks have another aspect than their mammogram: left out", odd.aspect),
        *_named("abnormalities have files, but no mask among them", odd.no_mask),
        *_named("mammograms have several files: the largest is taken", odd.several_files),
        *_named("mammograms lack a usable mask of any of their abnormalities: lesions unknown", odd.unknown),
    ]
    if cases.doubles:
        lines.append(f"{cases.doubles} files are there twice: one of each is taken")
    if cases.copies:
        lines.append(f"{cases.copies} JPEG and PNG copies beside the DICOM files are not used")
    if cases.pictures:
        lines.append(f"{cases.pictures} pictures of no case are not used")
    return lines


def _named(what: str, names: Iterable[str]) -> list[str]:
    items = list(Counter(names))
    return [f"{len(items)} {what}: {first_ten(items)}"] if items else []
