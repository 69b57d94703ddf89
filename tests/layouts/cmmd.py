"""CMMD as the download tool leaves it, drawn small: folders, headers and table, and the truth of every image."""

import uuid

import numpy as np
import pandas as pd
from pydicom.dataset import Dataset

from tests.layouts.drawing import SHAPES, draw_image, save_mammogram

MANIFEST = "manifest-1616439774456"
TABLE = "CMMD_clinicaldata_revision.csv"
HEADER = "ID1,LeftRight,Age,number,abnormality,classification,subtype"
CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}


def write_cmmd(root, patients=12, seed=0, layout="tool"):
    """Write the images of the patients, every second one with a malignant breast, and return the truth.

    The layout is that of the download tool, or of the Imaging Data Commons, "idc".

    The truth has a row per image: image_id, patient_id, label, laterality, view and listed, whether the table names the
    breast (label 0 where it does not). Patients of the first part (D1, even numbers) have the two images of one benign
    breast, those of the second part (D2) four images and one malignant breast. The first patient has a row for each
    breast, the left benign and the right malignant, and two images of one view; the views stand in codes, words or
    ViewPosition; the table has stray blanks, empty lines, and two rows for one breast.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    lines, truth = [HEADER], []
    for patient in range(patients):
        breasts, views = _breasts(patient)
        name = f"D{1 + patient % 2}-{patient + 1:04d}"
        study = root / MANIFEST / "CMMD" / name / "07-18-2010-NA-NA-79377" / "1.000000-NA-70244"
        names = [f"1-{number + 1}.dcm" for number in range(len(views))]
        if layout == "idc":  # names that say nothing, not in the order of the images
            study = root / "cmmd" / name / f"1.3.6.1.4.1.{patient}" / f"MG_1.3.6.1.4.1.{patient}.1"
            names = [f"{uuid.uuid5(uuid.NAMESPACE_OID, f'{name} {number}')}.dcm" for number in range(len(views))]
        for number, (side, view) in enumerate(views):
            malignant = breasts.get(side) == "Malignant"
            save_image(
                study / names[number],
                draw_image(rng, SHAPES[patient % 2], side, malignant),
                name,
                side,
                view,
                number,
            )
            further = views[:number].count((side, view))
            image = f"{name}_{side}_{view}" + (f"_{further + 1}" if further else "")
            row = {"image_id": image, "patient_id": name, "laterality": side, "view": view, "listed": side in breasts}
            truth.append(row | {"label": int(malignant)})
        for side, kind in breasts.items():
            subtype = "Luminal B" if patient % 2 else ""
            lines.append(f"{name} ,{side},{40 + patient},{len(views)},mass ,{kind},{subtype}")
    lines.insert(3, lines[2].replace("mass ", "calcification"))
    (root / TABLE).write_text("\r\n".join([*lines, "", ",,,,,,", ""]))
    if layout == "tool":
        (root / MANIFEST / "metadata.csv").write_text("Series UID,Collection,Subject ID\n1.2.3,CMMD,D1-0001\n")
        (root / MANIFEST / "LICENSE").write_text("CC BY 4.0")
    return pd.DataFrame(truth)


def save_image(path, pixels, patient, side, view, number):
    """Write pixels (H, W) in [0, 1] with a header that says the view in one of three ways."""
    tags = {"ImageLaterality": side, "InstanceNumber": number + 1}
    if number % 3 == 2:
        tags["ViewPosition"] = view
    else:
        value, words = CODES[view]
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = (value, "SCT") if number % 3 == 0 else ("A-1", "99LOCAL")
        code.CodeMeaning = "view" if number % 3 == 0 else words
        tags["ViewCodeSequence"] = [code]
    save_mammogram(path, pixels, patient, **tags)


def _breasts(patient):
    """The rows of the table by side, and the images."""
    four = [(side, view) for side in "RL" for view in ("CC", "MLO")]
    if patient == 0:
        return {"L": "Benign", "R": "Malignant"}, [*four, ("L", "CC")]
    side = "LR"[patient // 2 % 2]
    if patient % 2:
        return {side: "Malignant"}, four
    return {side: "Benign"}, [(side, "CC"), (side, "MLO")]
