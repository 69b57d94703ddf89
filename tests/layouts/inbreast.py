"""INbreast as it comes, drawn small: the layout, its spellings and its traps, and the truth of every image."""

import hashlib
import plistlib

import numpy as np
import pandas as pd

from tests.layouts.drawing import SHAPES, draw_breast, save_mammogram

RELEASE = "INbreast Release 1.0"
COLUMNS = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
MALIGNANT, BENIGN = ("4a", "4b", "4c", "5", "6"), ("1", "2", "3")
NAMES = ("Mass", "Espiculated Region", "Cluster", "Assymetry", "Distortion", "Calcifications", "Unnamed", "Nodule")
TYPES = ("mass", "mass", "calcification", "asymmetry", "distortion", "calcification", "", "other")


def write_inbreast(root, patients=12, seed=0):
    """Write four images of each patient, every second one with a malignant left breast, and return the truth.

    The truth has a row per image: image_id, label, birads, patient (a number), laterality, view, lesions_known, types
    and masks, a (H, W) bool for each lesion. Of the first patient the two breasts have different hashes, joined by the
    PatientID in the header; image 2 has a lesion that lies far outside, of image 3 one vertex lies over the edge.
    """
    rng = np.random.default_rng(seed)
    release = root / RELEASE
    for folder in ("AllDICOMs", "AllXML", "AllROI", "PectoralMuscle/Pectoral Muscle XML"):
        (release / folder).mkdir(parents=True, exist_ok=True)
    (release / ".DS_Store").write_bytes(b"\0")
    rows = [COLUMNS]
    truth = []
    for number in range(4 * patients):
        patient, side, view = number // 4, "LR"[number // 2 % 2], ("CC", "MLO")[number % 2]
        malignant = patient % 2 == 1 and side == "L"
        birads = MALIGNANT[patient // 2 % 5] if malignant else BENIGN[(number // 2) % 3]
        image = str(20586908 + 26 * number)
        truth.append({"image_id": image, "patient": patient, "laterality": side, "view": view, "birads": birads})
        truth[-1] |= {"label": int(malignant), **_write_image(release, rng, truth[-1], number)}
        rows.append(f"removed;removed;{side};{view};201001;{image};{' ' if number == 5 else number % 4 + 1};{birads}")
    (release / "INbreast.csv").write_text("\n".join(rows) + "\n\n")
    return pd.DataFrame(truth)


def save_regions(path, regions):
    """Write an OsiriX property list of (name, [(x, y), ...]) regions."""
    rois = [
        {"Name": name, "NumberOfPoints": len(points), "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points]}
        for name, points in regions
    ]
    with path.open("wb") as file:
        plistlib.dump({"Images": [{"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": rois}]}, file)


def _write_image(release, rng, row, number):
    """Write one image and its annotations; return what is true of its lesions."""
    shape = SHAPES[row["patient"] % 2]
    pixels = draw_breast(rng, shape, row["laterality"])
    malignant = row["birads"] in MALIGNANT
    regions, masks, types = [], [], []
    if row["birads"] != "1":
        kind = number % len(NAMES)
        regions, masks = _outline(rng, shape, row["laterality"], NAMES[kind], over_the_edge=number == 3)
        types = [TYPES[kind]]
        pixels[masks[0]] += 0.6 if malignant else 0.15
    if malignant:
        x, y = _column(20.0, shape, row["laterality"]), 100.0
        regions += [("Calcification", [(x, y)]), ("Point 1", [(x, y + 6), (x, y + 16)])]
        masks += [_pixels(shape, [(x, y)]), _pixels(shape, [(x, y + 6), (x, y + 16)])]
        types += ["calcification", ""]
    if number == 2:
        regions.append(("Mass", [(5000.0, 5000.0), (5010.0, 5000.0), (5010.0, 5010.0)]))
    known = number != 2
    if regions:
        muscle = ("Pectoral Muscle", [(0.0, 0.0), (60.0, 0.0), (0.0, 60.0)])
        save_regions(release / "AllXML" / f"{row['image_id']}.xml", [muscle, *regions])
    save_regions(release / "PectoralMuscle/Pectoral Muscle XML" / f"{row['image_id']}_muscle.xml", [])
    seed = f"{row['patient']}{row['laterality']}" if row["patient"] == 0 else str(row["patient"])
    file_hash = hashlib.sha256(seed.encode()).hexdigest()[:16]
    view = {"CC": "CC", "MLO": "ML"}[row["view"]]
    name = f"{row['image_id']}_{file_hash}_MG_{row['laterality']}_{view}_ANON.dcm"
    save_mammogram(release / "AllDICOMs" / name, pixels.clip(0, 1), "C-0001" if row["patient"] == 0 else "removed")
    return {"lesions_known": known, "types": types if known else [], "masks": masks if known else []}


def _outline(rng, shape, side, name, over_the_edge):
    """A rectangle, its vertices a little beyond the outer pixel centres: no convention decides about a pixel."""
    height, width = shape
    top, left = int(rng.integers(height // 3, height // 2)), int(rng.integers(8, width // 4))
    bottom, right = top + 24, left + 18
    if side == "R":
        left, right = width - 1 - right, width - 1 - left
    if over_the_edge:
        left = 0
        vertices = [(-1.4, top - 0.4), (right + 0.4, top - 0.4), (right + 0.4, bottom + 0.4), (-1.4, bottom + 0.4)]
    else:
        ends = (left - 0.4, right + 0.4)
        vertices = [(ends[0], top - 0.4), (ends[1], top - 0.4), (ends[1], bottom + 0.4), (ends[0], bottom + 0.4)]
    mask = np.zeros(shape, dtype=bool)
    mask[top : bottom + 1, left : right + 1] = True
    return [(name, vertices)], [mask]


def _column(x, shape, side):
    return x if side == "L" else shape[1] - 1 - x


def _pixels(shape, points):
    mask = np.zeros(shape, dtype=bool)
    for x, y in points:
        mask[int(y), int(x)] = True
    return mask


def dicom_of(root, image):
    return next((root / RELEASE / "AllDICOMs").glob(f"{image}_*.dcm"))


def table_of(root):
    return root / RELEASE / "INbreast.csv"
