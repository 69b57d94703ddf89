"""The RSNA challenge as it comes, drawn small: layout, transfer syntaxes and traps, and the truth of every image."""

import cv2
import numpy as np
import pandas as pd
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from tests.layouts.drawing import SHAPES, draw_image, save_stored, save_table

COLUMNS = "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
COLUMNS = (COLUMNS + "difficult_negative_case").split(",")
SYNTAXES = (JPEG2000Lossless, JPEGLosslessSV1, ExplicitVRLittleEndian)
BITS = 12
FULL = 2**BITS - 1


def write_rsna(root, patients=12, seed=0, png=False):
    """Write four images of each patient, every second one with cancer in the left breast, and return the truth.

    The truth has a row per image: image_id, patient_id, label, laterality, view and shown, the pixels (H, W) in [0, 1]
    that a viewer shows. Patients differ in transfer syntax, MONOCHROME1 and SIGMOID; the first one has a fifth image of
    the view AT, the second one two of the view CC. With `png`, flat copies `<patient>_<image>.png` instead of DICOM.
    """
    rng = np.random.default_rng(seed)
    truth = []
    for patient in range(patients):
        views = [(side, view) for side in "LR" for view in ("CC", "MLO")]
        views += [[("L", "AT")], [("R", "CC")], []][min(patient, 2)]
        for side, view in views:
            cancer = patient % 2 == 1 and side == "L"
            shown = draw_image(rng, SHAPES[patient % 2], side, cancer)
            ids = {"patient_id": str(10006 + 5 * patient), "image_id": str(462822612 + 7919 * len(truth))}
            truth.append(ids | {"laterality": side, "view": view, "label": int(cancer), "shown": shown})
            if png:
                (root / "train_images").mkdir(parents=True, exist_ok=True)
                name = f"{ids['patient_id']}_{ids['image_id']}.png"
                cv2.imwrite(str(root / "train_images" / name), np.rint(shown * 65535).astype(np.uint16))
            else:
                save_dicom(root / "train_images" / ids["patient_id"] / f"{ids['image_id']}.dcm", shown, patient)
    save_table(root / "train.csv", COLUMNS, [_row(number, row) for number, row in enumerate(truth)])
    (root / "test.csv").write_text("site_id,patient_id,image_id,laterality,view\n2,10008,736471439,L,MLO\n")
    save_dicom(root / "test_images/10008/736471439.dcm", np.zeros((64, 48)), 2)
    return pd.DataFrame(truth)


def save_dicom(path, shown, patient):
    """Write what a viewer is to show, (H, W) in [0, 1], as the device of this patient does."""
    inverted, sigmoid = patient % 3 == 1, patient % 5 == 1
    values = 1 - shown if inverted else shown
    stored = values * FULL
    tags = {"PhotometricInterpretation": "MONOCHROME1" if inverted else "MONOCHROME2", "BitsStored": BITS}
    if sigmoid:
        centre, width = 2047, 1024
        clipped = np.clip(values, 0.001, 0.999)
        stored = centre + width / 4 * np.log(clipped / (1 - clipped))
        tags |= {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": "SIGMOID"}
    tags |= {"PatientID": path.parent.name, "InstanceNumber": int(path.stem), "RescaleIntercept": 0, "RescaleSlope": 1}
    save_stored(path, np.rint(stored.clip(0, FULL)).astype("<u2"), SYNTAXES[patient % len(SYNTAXES)], **tags)


def _row(number, row):
    rest = {"site_id": 1 + number % 2, "age": "" if number % 7 == 3 else 61.0, "implant": 0, "machine_id": 29}
    rest |= {"BIRADS": "" if number % 2 else 1.0, "density": "", "difficult_negative_case": number % 5 == 0}
    return row | rest | {column: row["label"] for column in ("cancer", "biopsy", "invasive")}
