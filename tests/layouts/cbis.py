"""CBIS-DDSM in its four layouts, drawn small: tables, files and their traps, and the truth of every image."""

import hashlib
import uuid

import cv2
import numpy as np
import pandas as pd
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from tests.layouts.drawing import draw_breast, save_stored, save_table

SHAPES = ((240, 180), (256, 200))
FULL, MASK, CROP = "full mammogram images", "ROI mask images", "cropped images"
COLUMNS = "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,{one},{two},assessment,"
COLUMNS += "pathology,subtlety,image file path,cropped image file path,ROI mask file path"
PLACES = {"folders": "", "idc": "", "uids": "manifest-1584632", "jpeg": "csv"}  # of the tables
RESCALED, OTHER_ASPECT, SEVERAL, TWO_KINDS, BOTH_SIDES, TWO_SPLITS = 4, 5, 1, 0, 3, 2  # patients


def write_cbis(root, layout="folders", patients=12, seed=0):
    """Write the CC and MLO image of a breast of each patient, every second one malignant, and return the truth.

    The layout is folders, uids, idc (of the Imaging Data Commons) or jpeg. The truth has a row per image: image_id,
    patient_id, label, split (a patient of both sides in test), official (as published), laterality, view,
    lesions_known, types and masks, a (H, W) bool for each lesion. Of the CC images that of patient 0 is listed as mass
    and as calc, that of 1 has two masses and both labels, that of 3 is in mass-train and in calc-test, that of 4 has a
    mask of half its size, that of 5 one of another aspect; the MLO image of patient 2 is in calc-test. Masks and crops,
    in one folder or two, are mixed up by name and by description.
    """
    rng = np.random.default_rng(seed)
    writer = Writer(root, layout)
    truth = []
    for patient in range(patients):
        side, name = ("LEFT", "RIGHT")[patient // 3 % 2], f"P_{patient + 1:05d}"
        shape = SHAPES[patient % 2]
        for view in ("CC", "MLO"):
            boxes, entries = _entries(rng, patient, view, shape, side)
            pixels = draw_breast(rng, shape, side[0])
            for box, entry in zip(boxes, entries, strict=True):
                pixels[box] += 0.6 if entry["label"] else 0.15
            writer.write_image(name, side, view, pixels.clip(0, 1), boxes, entries)
            official = {entry["split"] for entry in entries}
            known = (patient, view) != (OTHER_ASPECT, "CC")
            image = {"image_id": f"{name}_{side}_{view}", "patient_id": name, "laterality": side[0], "view": view}
            image |= {"label": max(entry["label"] for entry in entries), "lesions_known": known}
            image |= {"official": "test" if "test" in official else "train"}
            image |= {"types": [{"mass": "mass", "calc": "calcification"}[entry["kind"]] for entry in entries * known]}
            truth.append(image | {"masks": boxes if known else []})
    writer.write_tables()
    table = pd.DataFrame(truth)
    return table.assign(split=table.groupby("patient_id")["official"].transform("min"))


def save_dicom(path, stored, case, description, uids=(None, None), **tags):
    """Write stored values (H, W), uint8 or uint16, with the header of the archive: PatientID is the case."""
    study, series = (uid or generate_uid() for uid in uids)
    known = {"PatientID": case, "PatientName": case, "StudyInstanceUID": study, "SeriesInstanceUID": series}
    known |= {"SOPClassUID": SecondaryCaptureImageStorage, "SeriesDescription": description}
    save_stored(path, stored, **known | tags)


class Writer:
    """The files of a layout, and the rows of its tables."""

    def __init__(self, root, layout):
        self.root, self.layout = root, layout
        self.rows = {(kind, split): [] for kind in ("mass", "calc") for split in ("train", "test")}
        self.info = []
        self.count = 0

    def write_image(self, patient, side, view, pixels, boxes, entries):
        """Write a mammogram once for each kind and split that lists it, and mask and crop of each abnormality."""
        image_paths = {}
        for box, entry in zip(boxes, entries, strict=True):
            self.count += 1
            part = {"train": "Training", "test": "Test"}[entry["split"]]
            case = f"{entry['kind'].capitalize()}-{part}_{patient}_{side}_{view}"
            if case not in image_paths:
                image_paths[case] = self._save(case, [(pixels, FULL)])[0]
            crop, mask = self._write_marks(f"{case}_{entry['number']}", pixels, box, entry)
            pathology = "MALIGNANT" if entry["label"] else ("BENIGN", "BENIGN_WITHOUT_CALLBACK")[self.count % 2]
            row = [patient, 3, side, view, entry["number"], entry["kind"], "X", "N/A", 4, pathology, 4]
            self.rows[entry["kind"], entry["split"]].append([*row, image_paths[case], crop, f"{mask}\n"])

    def _write_marks(self, case, pixels, box, entry):
        """Write mask and crop in one folder or two, in either order, and return what the tables say of them."""
        rows, columns = np.nonzero(box)
        around = pixels[max(rows.min() - 5, 0) : rows.max() + 6, max(columns.min() - 5, 0) : columns.max() + 6]
        mask = cv2.resize(np.uint8(box) * 255, entry["mask_shape"][::-1], interpolation=cv2.INTER_NEAREST)
        crop = np.uint8(around * 255) if self.count % 2 else around
        if self.count % 2:  # in two folders, with each other's description or their own
            exchanged = self.count % 4 == 1
            (crop_path,) = self._save(case, [(crop, MASK if exchanged else CROP)])
            (mask_path,) = self._save(case, [(mask, CROP if exchanged else MASK)])
            return crop_path, mask_path
        files = [(crop, MASK), (mask, MASK)]  # in one folder, which has one description
        first, second = self._save(case, files if self.count % 3 else files[::-1])
        return (first, second) if entry["kind"] == "mass" else (second, first)

    def _save(self, case, files):
        """Save the files (pixels, description) of one series; return what the tables call them, in order."""
        study, series = (_uid(f"{case} {name}") for name in ("study", f"series {len(self.info)}"))
        for number, (pixels, description) in enumerate(files, start=1):
            stored = pixels if pixels.dtype == np.uint8 else np.rint(pixels * 65535).astype("<u2")
            place = f"CBIS-DDSM/jpeg/{series}/{number}-{len(self.info) % 90 + 10:03d}.jpg"
            self.info.append((place, case, description, series, *pixels.shape))
            folder = f"CBIS-DDSM/{case}/08-07-2016-DDSM-NA-84313/1.000000-{description}-{series[-5:]}"
            if self.layout == "jpeg":
                path = self.root / place.removeprefix("CBIS-DDSM/")
                path.parent.mkdir(parents=True, exist_ok=True)
                eight = stored if stored.dtype == np.uint8 else np.uint8(stored // 257)
                cv2.imwrite(str(path), eight, [cv2.IMWRITE_JPEG_QUALITY, 95])
                continue
            if self.layout == "uids":
                folder = f"{PLACES['uids']}/CBIS-DDSM/{study}/{series}"
            name, patient = f"1-{number}.dcm", case
            if self.layout == "idc":
                if self.count % 5 == 0:  # as 396 series there have it: only the tables tell the case, by the series
                    patient, description = f"{case.split('_', 1)[1]}.dcm", ""
                folder = f"cbis_ddsm/{patient}/{study}/MG_{series}"
                name = f"{uuid.uuid5(uuid.NAMESPACE_OID, f'{series} {number}')}.dcm"
            save_dicom(self.root / folder / name, stored, patient, description, (study, series))
        return [f"{case}/{study}/{series}/{number:06d}.dcm" for number in range(len(files))]

    def write_tables(self):
        """Write the four tables, and what the layout has beside them."""
        place = self.root / PLACES[self.layout]
        place.mkdir(parents=True, exist_ok=True)
        for (kind, split), rows in self.rows.items():
            words = ("breast_density", "mass shape", "mass margins")
            if kind == "calc":
                words = ("breast density", "calc type", "calc distribution")
            names = COLUMNS.format(density=words[0], one=words[1], two=words[2]).split(",")
            save_table(place / f"{kind}_case_description_{split}_set.csv", names, rows)
        if self.layout == "uids":
            rows = [(series, "CBIS-DDSM", case, description) for _, case, description, series, *_ in self.info]
            names = ["Series UID", "Collection", "Subject ID", "Series Description"]
            save_table(place / "metadata.csv", names, rows)
        if self.layout == "jpeg":
            names = ["file_path", "image_path", "PatientID", "SeriesDescription", "SeriesInstanceUID"]
            names += ["Rows", "Columns"]
            rows = [(row[0].replace("jpeg", "dicom"), row[0], *row[1:]) for row in self.info]
            rows[2::7] = [(*row[:3], "", *row[4:]) for row in rows[2::7]]
            save_table(place / "dicom_info.csv", names, rows)


def _entries(rng, patient, view, shape, side):
    """The boxes of an image's abnormalities, and what the tables say of each, masses first."""
    malignant, kind = patient % 2, ("mass", "calc")[patient // 2 % 2]
    split = "test" if patient % 6 in (4, 5) else "train"
    entry = {"kind": kind, "split": split, "label": malignant, "number": 1, "mask_shape": shape}
    entries = [entry]
    if patient == TWO_SPLITS and view == "MLO":
        entries = [entry | {"kind": "calc", "split": "test"}]
    if view == "CC":
        extra = {
            TWO_KINDS: [entry, entry | {"kind": "calc"}],
            SEVERAL: [entry, entry | {"label": 0, "number": 2}],
            BOTH_SIDES: [entry | {"kind": "mass"}, entry | {"kind": "calc", "split": "test"}],
            RESCALED: [entry | {"mask_shape": (shape[0] // 2, shape[1] // 2)}],
            OTHER_ASPECT: [entry | {"mask_shape": (shape[0] - 40, shape[1])}],
        }
        entries = extra.get(patient, entries)
    boxes = []
    for number in range(len(entries)):
        top, left = 2 * int(rng.integers(shape[0] // 6, shape[0] // 4)), 2 * int(rng.integers(4, shape[1] // 8))
        top, left = top - 40 * number, left if side == "LEFT" else shape[1] - 20 - left
        box = np.zeros(shape, dtype=bool)
        box[top : top + 24, left : left + 20] = True
        boxes.append(box)
    return boxes, entries


def _uid(text):
    number = int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16)
    return f"1.3.6.1.4.1.9590.100.1.2.{number}"
