"""VinDr-Mammo as it comes, drawn small: the layout, its two tables and their traps, and the truth of every image."""

import hashlib

import numpy as np
import pandas as pd

from tests.layouts.drawing import SHAPES, draw_breast, save_mammogram, save_table

RELEASE = "physionet.org/files/vindr-mammo/1.0.0"
IMAGE = ["study_id", "series_id", "laterality", "view_position", "image_id", "height", "width"]
BREAST = ["breast_birads", "breast_density", "split"]
BREASTS = [*IMAGE, *BREAST]
FINDINGS = ["image_id", *(name for name in IMAGE if name != "image_id"), *BREAST[:2], "finding_categories"]
FINDINGS += ["finding_birads", "xmin", "ymin", "xmax", "ymax", "split"]
KINDS = (
    (["Mass"], "mass"),
    (["Suspicious Calcification", "Mass"], "mass"),
    (["Suspicious Calcification"], "calcification"),
    (["Focal Asymmetry"], "asymmetry"),
    (["Architectural Distortion"], "distortion"),
    (["Skin Thickening", "Nipple Retraction"], "other"),
)


def write_vindr(root, patients=12, seed=0):
    """Write four images of each patient, every second one with a malignant left breast, and return the truth.

    The truth has a row per image: image_id, study_id, label, birads (a number), split, laterality, view, lesions_known,
    types and masks, a (H, W) bool for each lesion. Of the first patient, image 1 has a finding without a box, image 2 a
    box far outside, image 3 one a little over the edge, and its files end in .dcm; the other breasts of BI-RADS 3 and
    more have a box, those of 4 and 5 a second one. The patients 0, 1, 6, 7, ... are the test split.
    """
    rng = np.random.default_rng(seed)
    release = root / RELEASE
    release.mkdir(parents=True)
    for name in ("LICENSE.txt", "SHA256SUMS.txt", "metadata.csv"):
        (release / name).write_text("SOP Instance UID,Series Instance UID\n")
    breasts, findings, truth = [], [], []
    for number in range(4 * patients):
        row = _describe(number)
        pixels, boxes, masks, types = _draw(rng, row, number)
        suffix = ".dcm" if row["patient"] == 0 else ".dicom"
        path = release / "images" / row["study_id"] / f"{row['image_id']}{suffix}"
        inverted = row["patient"] % 3 == 1
        photometric = "MONOCHROME1" if inverted else "MONOCHROME2"
        stored = 1 - pixels if inverted else pixels
        save_mammogram(path, stored, row["study_id"], PhotometricInterpretation=photometric)
        known = number not in (1, 2)
        truth.append(row | {"lesions_known": known, "types": types if known else [], "masks": masks if known else []})
        breasts.append(row)
        findings += [row | box for box in boxes]
    save_table(release / "breast-level_annotations.csv", BREASTS, breasts)
    save_table(release / "finding_annotations.csv", FINDINGS, findings)
    return pd.DataFrame(truth).replace({"split": {"training": "train"}})


def _describe(number):
    """What the tables say of an image, and the truth about it."""
    patient, side, view = number // 4, "LR"[number // 2 % 2], ("CC", "MLO")[number % 2]
    malignant = patient % 2 == 1 and side == "L"
    birads = (4, 5)[patient // 2 % 2] if malignant else (3 if patient == 0 else 1 + number // 2 % 3)
    height, width = SHAPES[patient % 2]
    return {
        "patient": patient,
        "study_id": hashlib.md5(f"study {patient}".encode()).hexdigest(),
        "series_id": hashlib.md5(f"series {patient}".encode()).hexdigest(),
        "image_id": hashlib.md5(f"image {number}".encode()).hexdigest(),
        "laterality": side,
        "view": view,
        "view_position": view,
        "height": height,
        "width": width,
        "birads": birads,
        "breast_birads": f"BI-RADS {birads}",
        "breast_density": f"DENSITY {'ABCD'[patient % 4]}",
        "split": "test" if patient % 6 < 2 else "training",
        "label": int(malignant),
    }


def _draw(rng, row, number):
    """The pixels, the rows of findings, and the lesions of an image."""
    shape = row["height"], row["width"]
    pixels = draw_breast(rng, shape, row["laterality"])
    if row["birads"] < 3:
        return pixels, [_finding(["No Finding"], None)], [], []
    categories, kind = KINDS[number % len(KINDS)]
    box, mask = _box(rng, shape, row["laterality"], over_the_edge=number == 3)
    pixels[mask] += 0.6 if row["label"] else 0.15
    if number == 1:
        box = None
    if number == 2:
        box = (5000.25, 5000.5, 5100.0, 5100.0)
    rows, masks, types = [_finding(categories, box, row["birads"])], [mask], [kind]
    if row["label"]:
        second, mask = _box(rng, shape, row["laterality"], top=30)
        pixels[mask] += 0.3
        rows.append(_finding(["Suspicious Calcification"], second, row["birads"]))
        masks.append(mask)
        types.append("calcification")
    return pixels.clip(0, 1), rows, masks, types


def _box(rng, shape, side, over_the_edge=False, top=None):
    """Corners a little off the outer pixel centres, as a continuous annotation has them, and the pixels."""
    height, width = shape
    top = int(rng.integers(height // 3, height // 2)) if top is None else top
    left = 0 if over_the_edge else int(rng.integers(8, width // 4))
    right, bottom = left + 18, top + 24
    if side == "R":
        left, right = width - 1 - right, width - 1 - left
    mask = np.zeros(shape, dtype=bool)
    mask[top : bottom + 1, left : right + 1] = True
    over = 1.5 if over_the_edge else 0.0  # px, within 1 % of the side
    beyond_left, beyond_right = (over, 0.0) if side == "L" else (0.0, over)
    return (left + 0.31 - beyond_left, top - 0.42, right - 0.27 + beyond_right, bottom + 0.4001), mask


def _finding(categories, box, birads=None):
    corners = [""] * 4 if box is None else [f"{corner:g}" for corner in box]
    text = "" if birads is None else f"BI-RADS {birads}"
    found = {"finding_categories": str(categories), "finding_birads": text}
    return found | dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
