"""EMBED as it is downloaded, drawn small: cohorts, exams and sides, its two tables and their traps, and the truth."""

import numpy as np
import pandas as pd

from tests.layouts.drawing import SHAPES, draw_breast, save_mammogram, save_table

TABLES = "EMBED/tables"
METADATA = ["empi_anon", "acc_anon", "anon_dicom_path", "ImageLateralityFinal", "ViewPosition", "FinalImageType"]
METADATA += ["spot_mag", "num_roi", "ROI_coords"]
CLINICAL = ["empi_anon", "acc_anon", "numfind", "desc", "side", "asses", "bside", "path_severity"]


def write_embed(root, patients=12, seed=0):
    """Write an exam of four views of each patient, every second one with a cancer in the left breast; the truth.

    The truth has a row per image that has a label: image_id, patient_id, label, laterality, view, lesions_known, types,
    masks. The right breast is negative by a row of its own, of patient 2 by one without a side, of patient 4 by one of
    both sides, whose pathology (benign) is of the left breast alone. Patient 6 has a second exam, called back without a
    pathology, whose images have no label; patient 1 a spot view and a C-view of the left breast. The left breasts of
    patients 0 and 8 are negative, those of other even ones were biopsied and benign.
    """
    rng = np.random.default_rng(seed)
    (root / TABLES).mkdir(parents=True)
    images, findings, truth = [], [], []
    for patient in range(patients):
        name, exam = f"{10000007 + patient}", f"{5550000 + patient}"
        findings += _findings(name, exam, patient)
        for side in "LR":
            for view in ("CC", "MLO"):
                malignant = patient % 2 == 1 and side == "L"
                row, box, mask = _write_image(root, rng, name, exam, side, view, malignant, patient)
                images.append(row)
                negative = side == "R" or patient % 8 == 0
                known = bool(box) or negative
                image = {"image_id": _stem(row), "patient_id": name, "label": int(malignant), "laterality": side}
                masks = [mask] if box else []
                truth.append(
                    image | {"view": view, "lesions_known": known, "types": ["other"] * len(masks), "masks": masks}
                )
        if patient == 1:
            images.append(_write_image(root, rng, name, exam, "L", "CC", True, patient, spot=1)[0])
            images.append(_write_image(root, rng, name, exam, "L", "CC", True, patient, kind="C-view")[0])
        if patient == 6:
            images.append(_write_image(root, rng, name, f"{exam}9", "L", "CC", False, patient)[0])
            findings.append([name, f"{exam}9", 1, "screen", "L", "A", "", ""])
    save_table(root / TABLES / "EMBED_OpenData_metadata.csv", METADATA, images)
    save_table(root / TABLES / "EMBED_OpenData_clinical.csv", CLINICAL, findings)
    (root / TABLES / "AWS_Open_Data_Clinical_Legend.csv").write_text("Header in export,Meaning\n")
    return pd.DataFrame(truth)


def _findings(name, exam, patient):
    """The rows of an exam: a negative right breast, and what is said of the left one."""
    left = [name, exam, 1, "Diagnostic", "L"]
    negative = [[name, exam, 2, "Diagnostic", {2: "", 4: "B"}.get(patient, "R"), "N", "", ""]]
    if patient == 4:
        return [[name, exam, 1, "Diagnostic", "B", "B", "L", "4.0"]]
    if patient % 2:
        return [[*left, "M", "L", f"{patient // 2 % 2}.0"], [*left[:2], 3, *left[3:], "P", "", ""], *negative]
    if patient % 8 == 0:
        return [[*left, "B", "", ""], *negative]
    return [[*left, "S", "L", "4.0"], *negative]


def _write_image(root, rng, name, exam, side, view, malignant, patient, spot=0, kind="2D"):
    """Write one file; its row of the metadata, its box and the pixels of that."""
    shape = SHAPES[patient % 2]
    pixels, mask = draw_breast(rng, shape, side), np.zeros(shape, dtype=bool)
    boxed = side == "L" and patient % 8 != 0 and not (patient == 3 and view == "MLO")
    top, left = int(rng.integers(shape[0] // 3, shape[0] // 2)), int(rng.integers(8, shape[1] // 4))
    if boxed:
        mask[top : top + 25, left : left + 19] = True
        pixels[mask] += 0.5 if malignant else 0.1
    uid = f"1.2.845.113682.{name}.{exam}.{len(list(root.rglob('*.dcm')))}"
    place = f"cohort_{1 + patient % 2}/{name}/1.2.840.{exam}/{uid}.dcm"
    save_mammogram(root / "EMBED/images" / place, pixels.clip(0, 1), name)
    coords = f"(({top}, {left}, {top + 24}, {left + 18}),)" if boxed else "()"
    box = (top, left) if boxed else None
    path = f"/mnt/NAS2/mammo/anon_dicom/{place}"
    return [name, exam, path, side, view, kind, spot, int(boxed), coords], box, mask


def _stem(row):
    return row[2].split("/")[-1].removesuffix(".dcm")
