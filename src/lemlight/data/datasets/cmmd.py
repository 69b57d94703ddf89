"""What the headers of CMMD's images say, as its table names breasts only: patient, side and view."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pydicom
from pydicom.dataset import Dataset
from tqdm import tqdm

from lemlight.arguments import checked
from lemlight.data.datasets.common import (
    IMAGES,
    Problems,
    below,
    ending,
    list_files,
    note_values,
    one_table,
    read_rows,
    read_text,
    to_rows,
)
from lemlight.data.dicom import laterality, quiet, view
from lemlight.data.table import check_table, first_ten
from lemlight.errors import ImageError, LemlightError

PATIENT = re.compile(r"D[12]-\d{4}")
TAGS = [
    "SOPInstanceUID",
    "PatientID",
    "ViewPosition",
    "ViewCodeSequence",
    "ImageLaterality",
    "Laterality",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
]
VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}  # SNOMED CT and SRT, CID 4014
THREADS = 16  # reading waits for the disk
BAR_AFTER = 1  # s


@dataclass(frozen=True)
class Header:
    """Identity of the image, its patient, side (L, R) and view (CC, MLO, ...); "" where the header does not say."""

    instance: str
    patient: str
    side: str
    view: str


def patient_of(path: str) -> str:
    """Give the patient whose folder a file lies in, "" where that is not named after one."""
    return next((part for part in path.split("/")[:-1] if PATIENT.fullmatch(part)), "")


def read_headers(paths: Sequence[str]) -> dict[str, Header | ImageError]:
    """Read the header of every file, or the reason why that cannot be used; a bar is drawn where it takes its time."""
    with quiet(), ThreadPoolExecutor(THREADS) as pool:
        read = tqdm(pool.map(_read, paths), "reading headers", len(paths), unit="image", delay=BAR_AFTER)
        return dict(zip(paths, read, strict=True))


def _read(path: str) -> Header | ImageError:
    try:
        header = pydicom.dcmread(path, specific_tags=TAGS, stop_before_pixels=True)
        pixels = int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel) * int(header.BitsAllocated) // 8
        if not header.file_meta.TransferSyntaxUID.is_compressed and os.stat(path).st_size < pixels:
            return ImageError("cut short")
        patient = str(header.get("PatientID") or "").strip().upper()
        return Header(str(header.get("SOPInstanceUID") or ""), patient, laterality(header), _view(header))
    except MemoryError:
        raise
    except OSError as error:
        return ImageError(f"cannot be read ({error.strerror})")
    except Exception:  # pydicom raises whatever broken tags make Python raise; its text may hold values
        return ImageError("no DICOM image")


def _view(header: Dataset) -> str:
    """Find the view by its code, as the words for it are the vendor's; else as in any other mammogram."""
    codes = [str(code.get("CodeValue") or "").strip() for code in header.get("ViewCodeSequence") or ()]
    return next((VIEW_CODES[code] for code in codes if code in VIEW_CODES), "") or view(header)


TABLE = "CMMD_clinicaldata_revision"
NEEDED = ("ID1", "LeftRight", "classification")
LABELS = {"benign": 0, "malignant": 1}
COUNT = "number"  # images of the patient [reading]

logger = logging.getLogger(__name__)


@checked
def cmmd(root: str | Path, normal_images: bool = False, allow_missing: bool = False) -> pd.DataFrame:
    """Build the image table of CMMD below `root`; `normal_images` takes in the breasts that the table does not name.

    Raises:
        LemlightError: all that is wrong with the download; what is missing or broken only without `allow_missing`.
    """
    root = Path(root)
    problems = Problems("CMMD", root)
    paths = list_files(root, "CMMD")
    images = _images([path for path in paths if ending(path) in IMAGES], root, problems)
    try:
        rows = _read_cmmd(paths, root)
    except LemlightError as error:
        problems.wrong("the table", [error])
        labels = {}
    else:
        labels = _labels(rows, problems)
        breasts = set(zip(images["patient"], images["side"], strict=True))
        patients = set(rows["ID1"])
        problems.incomplete("breasts of the table without an image", sorted(map(" ".join, set(labels) - breasts)))
        problems.incomplete("patients without a row in the table", sorted(set(images["patient"]) - patients))
        images = images[images["patient"].isin(patients)]
        _compare_counts(images, rows)
    problems.raise_any(allow_missing)
    of_breast = [labels.get(breast) for breast in zip(images["patient"], images["side"], strict=True)]
    images = images.assign(label=pd.array(of_breast, dtype="Int64"))
    normal = int(images["label"].isna().sum())
    logger.info("CMMD: %d images of breasts without a row are %s", normal, "normal" if normal_images else "left out")
    images = images.assign(label=images["label"].fillna(0)) if normal_images else images[images["label"].notna()]
    if images.empty:
        raise LemlightError(f"no image of CMMD is left of {root}: check dataset.root")
    return _build(images)


def _images(paths: list[str], root: Path, problems: Problems) -> pd.DataFrame:
    """Read patient, side and view of every image; note what is broken, twice there, or of another data set."""
    rows, broken, strange, moved, sideless = [], [], [], [], []
    twice: dict[str, list[str]] = defaultdict(list)
    for path, header in read_headers(paths).items():
        name = below(path, root)
        if isinstance(header, ImageError):
            broken.append(f"{name}: {header}")
            continue
        said = header.patient if PATIENT.fullmatch(header.patient) else ""
        patient = patient_of(name) or said
        twice[header.instance or name].append(name)
        if not patient:
            strange.append(name)
        elif said not in ("", patient):
            moved.append(name)
        elif not header.side:
            sideless.append(name)
        else:
            rows.append((path, patient, header.side, header.view))
    problems.incomplete("broken images", broken)
    problems.incomplete("images whose headers do not name the side", sideless)
    problems.wrong("images that belong to no patient of CMMD", strange)
    problems.wrong("images in the folder of another patient than their headers name", moved)
    problems.wrong("images that are there twice", [" and ".join(same) for same in twice.values() if len(same) > 1])
    viewless = [below(path, root) for path, _, _, view in rows if not view]
    if viewless:
        logger.warning("CMMD: the headers of %d images do not name the view: %s", len(viewless), first_ten(viewless))
    return pd.DataFrame(rows, columns=["path", "patient", "side", "view"], dtype=str)


def _read_cmmd(paths: Iterable[str], root: Path) -> pd.DataFrame:
    """Read the clinical table; one that was saved as CSV goes before the spreadsheet."""
    tables = [path for path in paths if _is_table(path)]
    texts = [path for path in tables if ending(path) == ".csv"]
    if tables and not texts:
        rows = to_rows(_cells(tables[0]), Path(tables[0]), NEEDED)
    else:
        rows = read_rows(one_table(texts, f"{TABLE}.csv", root), NEEDED)
    return rows.assign(
        ID1=rows["ID1"].str.upper(),
        LeftRight=rows["LeftRight"].str.upper(),
        classification=rows["classification"].str.lower(),
    )


def _is_table(path: str) -> bool:
    """Whether it is the clinical table by its name, or a CSV under another one that has a column ID1."""
    name = os.path.basename(path).lower()
    if "clinical" in name:
        return ending(path) in (".csv", ".xlsx", ".xls") and not name.startswith("~$")
    if ending(path) != ".csv":
        return False
    header = read_text(Path(path)).lstrip().split("\n", 1)[0]
    return "ID1" in [cell.strip(' "') for cell in re.split("[,;\t]", header.strip())]


def _cells(path: str) -> list[tuple[int, list[str]]]:
    """Read the first sheet of a spreadsheet, which needs a package that lemlight does not install."""
    try:
        sheet = pd.read_excel(path, header=None, dtype=str, keep_default_na=False)
    except MemoryError:
        raise
    except Exception as error:  # openpyxl is missing, or chokes on the file's styles in whatever way
        reason = "the package openpyxl is missing" if isinstance(error, ImportError) else type(error).__name__
        raise LemlightError(
            f"{path} is a spreadsheet that cannot be read here ({reason}): save it as CSV under the name "
            f"{TABLE}.csv beside it"
        ) from error
    return [(line, [cell.strip() for cell in cells]) for line, cells in enumerate(sheet.to_numpy().tolist(), start=1)]


def _labels(rows: pd.DataFrame, problems: Problems) -> dict[tuple[str, str], int]:
    """Give the label of every breast (ID1, side); a row for each of its abnormalities does no harm."""
    bad = {
        "ID1": ~rows["ID1"].str.fullmatch(PATIENT.pattern),
        "LeftRight": ~rows["LeftRight"].isin(["L", "R"]),
        "classification": ~rows["classification"].isin(list(LABELS)),
    }
    for column, where in bad.items():
        note_values(rows, where, column, f"unknown {column}", problems)
    rows = rows[~pd.DataFrame(bad).any(axis=1)]
    classes = rows.groupby(["ID1", "LeftRight"])["classification"].nunique()
    both = [" ".join(breast) for breast in classes.index[classes > 1]]
    problems.wrong("breasts that the table calls benign and malignant", both)
    breasts = zip(rows["ID1"], rows["LeftRight"], strict=True)
    return dict(zip(breasts, rows["classification"].map(LABELS), strict=True))


def _compare_counts(images: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Warn of patients with fewer images on the disk than the table says."""
    if COUNT in rows.columns:
        said = pd.to_numeric(rows[COUNT], errors="coerce").groupby(rows["ID1"]).max()
        there = images.groupby("patient").size().reindex(said.index, fill_value=0)
        fewer = list(said.index[(there > 0) & (there < said)])
        if fewer:
            logger.warning("CMMD: %d patients have fewer images than the table says: %s", len(fewer), first_ten(fewer))


def _build(images: pd.DataFrame) -> pd.DataFrame:
    images = images.sort_values(["patient", "side", "view", "path"])
    names = (images["patient"] + "_" + images["side"] + "_" + images["view"]).str.rstrip("_")
    further = names.groupby(names).cumcount()
    table = pd.DataFrame(
        {
            "image_id": names + further.map(lambda number: f"_{number + 1}" if number else ""),
            "path": images["path"],
            "label": images["label"].astype(int),
            "patient_id": images["patient"],
            "split": "",
            "laterality": images["side"],
            "view": images["view"],
            "lesions": pd.Series([()] * len(images), index=images.index, dtype=object),
            "lesions_known": False,
        }
    )
    return check_table(table, "CMMD")
