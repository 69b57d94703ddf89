"""The RSNA challenge as it comes, drawn small: layout, transfer syntaxes and traps, and the truth of every image."""

import csv

import cv2
import imagecodecs
import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    generate_uid,
)

from tests.layouts.inbreast import draw_breast

COLUMNS = "site_id,patient_id,image_id,laterality,view,age,cancer,biopsy,invasive,BIRADS,implant,density,machine_id,"
COLUMNS = (COLUMNS + "difficult_negative_case").split(",")
SHAPES = ((256, 200), (240, 180))
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
            shown = _draw(rng, SHAPES[patient % 2], side, cancer)
            ids = {"patient_id": str(10006 + 5 * patient), "image_id": str(462822612 + 7919 * len(truth))}
            truth.append(ids | {"laterality": side, "view": view, "label": int(cancer), "shown": shown})
            if png:
                (root / "train_images").mkdir(parents=True, exist_ok=True)
                name = f"{ids['patient_id']}_{ids['image_id']}.png"
                cv2.imwrite(str(root / "train_images" / name), np.rint(shown * 65535).astype(np.uint16))
            else:
                save_dicom(root / "train_images" / ids["patient_id"] / f"{ids['image_id']}.dcm", shown, patient)
    _save_table(root / "train.csv", truth)
    (root / "test.csv").write_text("site_id,patient_id,image_id,laterality,view\n2,10008,736471439,L,MLO\n")
    save_dicom(root / "test_images/10008/736471439.dcm", np.zeros((64, 48)), 2)
    return pd.DataFrame(truth)


def save_dicom(path, shown, patient):
    """Write what a viewer is to show, (H, W) in [0, 1], as the device of this patient does."""
    inverted, sigmoid = patient % 3 == 1, patient % 5 == 1
    values = 1 - shown if inverted else shown
    stored = values * FULL
    dataset = Dataset()
    if sigmoid:
        centre, width = 2047, 1024
        clipped = np.clip(values, 0.001, 0.999)
        stored = centre + width / 4 * np.log(clipped / (1 - clipped))
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, "SIGMOID"
    pixels = np.rint(stored.clip(0, FULL)).astype("<u2")
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.Modality = generate_uid(), "MG"
    dataset.PatientID, dataset.InstanceNumber = path.parent.name, int(path.stem)
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    syntax = SYNTAXES[patient % len(SYNTAXES)]
    dataset.PixelData = _encode(pixels, syntax)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    dataset["PixelData"].is_undefined_length = syntax.is_encapsulated
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _encode(pixels, syntax):
    if syntax == JPEG2000Lossless:
        options = {"level": 0, "codecformat": "j2k", "reversible": True, "bitspersample": BITS}
        return encapsulate([imagecodecs.jpeg2k_encode(pixels, **options)])
    if syntax == JPEGLosslessSV1:
        return encapsulate([imagecodecs.ljpeg_encode(pixels, bitspersample=BITS)])
    return pixels.tobytes()


def _draw(rng, shape, side, cancer):
    pixels = draw_breast(rng, shape, side)
    if cancer:
        top, left = int(rng.integers(shape[0] // 3, shape[0] // 2)), int(rng.integers(8, shape[1] // 4))
        left = left if side == "L" else shape[1] - left - 18
        pixels[top : top + 24, left : left + 18] += 0.5
    return pixels.clip(0, 1)


def _save_table(path, truth):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(truth):
            rest = {"site_id": 1 + number % 2, "age": "" if number % 7 == 3 else 61.0, "implant": 0, "machine_id": 29}
            rest |= {"BIRADS": "" if number % 2 else 1.0, "density": "", "difficult_negative_case": number % 5 == 0}
            cancer = row["label"]
            writer.writerow(row | rest | {"cancer": cancer, "biopsy": cancer, "invasive": cancer})
