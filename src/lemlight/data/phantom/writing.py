"""The phantom's folder on disk: written once, by several processes, aside and then renamed as a whole."""

import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from lemlight.data.phantom.dicom_file import write_dicom
from lemlight.data.phantom.patient import NORMAL, SIDES, VIEWS
from lemlight.data.phantom.render import render
from lemlight.data.phantom.settings import PhantomSettings
from lemlight.data.processes import locked, map_in_processes
from lemlight.data.sources.folder import NO_LESION
from lemlight.errors import LemlightError

TABLE_COLUMNS = ["image_id", "path", "label", "patient", "laterality", "view", "mask", "lesion_type"]


def write_phantom(root: Path, settings: PhantomSettings, workers: int | None = None, progress: bool = True) -> Path:
    """Write the phantom of these settings under `root`, unless it is there, and return its folder.

    workers: processes, None for one per core. The result does not depend on it. The folder holds `images.csv` (read
    by `dataset=folder`), `findings.csv` (what was drawn), `phantom.json` (the settings), `images/` and `masks/`.
    Safe with several processes at once and after a kill at any moment. LemlightError when the disk refuses.
    """
    folder = root / settings.folder_name()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{folder.name}.lock", f"writing {folder}"):
            if not folder.exists():
                _write_aside(folder, settings, workers or len(os.sched_getaffinity(0)), progress)
    except OSError as error:
        raise LemlightError(
            f"cannot write the phantom to {folder}: {error.strerror or error}; "
            "free some space there or choose another dataset.root"
        ) from error
    return folder


def _write_aside(folder: Path, settings: PhantomSettings, workers: int, progress: bool) -> None:
    """Write into a hidden folder beside and rename it; only one process at a time is here, by the lock."""
    prefix = f".{folder.name}.writing-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        aside.chmod(0o755)
        rows = _write_patients(aside, settings, workers, progress)
        table = pd.DataFrame(rows)
        table[TABLE_COLUMNS].to_csv(aside / "images.csv", index=False)
        table.drop(columns=["path", "mask", "lesion_type"]).to_csv(aside / "findings.csv", index=False)
        (aside / "phantom.json").write_text(json.dumps(settings.stamp(), indent=2, sort_keys=True) + "\n")
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write_patients(folder: Path, settings: PhantomSettings, workers: int, progress: bool) -> list[dict[str, object]]:
    """Write all images and return a row for each, in the order of the patients."""
    work = map_in_processes(
        partial(write_patient, folder, settings), range(settings.patients), min(workers, settings.patients)
    )
    bar = tqdm(work, "writing the phantom", settings.patients, disable=not progress, unit="patient")
    return sorted((row for rows in bar for row in rows), key=lambda row: str(row["image_id"]))


def write_patient(folder: Path, settings: PhantomSettings, number: int) -> list[dict[str, object]]:
    """Write the four images of patient `number` and the masks of their lesions; a row for each image."""
    return [_write_image(folder, settings, number, side, view) for side in SIDES for view in VIEWS]


def _write_image(folder: Path, settings: PhantomSettings, number: int, side: str, view: str) -> dict[str, object]:
    rendering = render(settings, number, side, view)
    patient, lesion = rendering.patient, rendering.lesion
    image = Path("images", patient.patient_id, f"{side}_{view}.dcm")
    mask = Path("masks", patient.patient_id, f"{side}_{view}.png")
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    write_dicom(folder / image, rendering, settings, number, side, view)
    if lesion is not None:
        (folder / mask).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rendering.mask.astype(np.uint8) * np.uint8(255)).save(folder / mask)
    return {
        "image_id": f"{patient.patient_id}_{side}_{view}",
        "path": image.as_posix(),
        "label": int(side == patient.malignant_side),
        "patient": patient.patient_id,
        "laterality": side,
        "view": view,
        "mask": NO_LESION if lesion is None else mask.as_posix(),
        "lesion_type": "" if lesion is None else _type(lesion.finding),
        "finding": NORMAL if lesion is None else lesion.finding,
        "lesion_share": round(float(rendering.mask.sum() / rendering.breast.sum()), 6),
        "density": round(patient.density, 4),
    }


def _type(finding: str) -> str:
    return "calcification" if "calcification" in finding else "mass"
