"""What the tests of this room share: a writer of DICOM files in every transfer syntax, and a table of PNG files."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.data.preparing.lesions import Lesion
from lemlight.limits import Limits, held, hold
from tests.layouts.drawing import write_dicom as _write_dicom


@pytest.fixture
def write_dicom():
    return _write_dicom


def draw_mammogram(number, height=200, width=160):
    """A half ellipse of texture against the left border, as 16 bits."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:height, :width]
    breast = ((y - height / 2) / (0.4 * height)) ** 2 + (x / (0.7 * width)) ** 2 < 1
    texture = cv2.GaussianBlur(rng.random((height, width)), (0, 0), 3)
    return np.where(breast, 20000 + 60000 * (texture - 0.3), 0).clip(0, 65535).astype(np.uint16)


@pytest.fixture
def draw():
    """The function that draws a mammogram from a number."""
    return draw_mammogram


@pytest.fixture
def table(tmp_path):
    """Six mammograms; the second has a lesion, the third one a mask that cannot be its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = []
    for number in range(6):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), draw_mammogram(number))
        rows.append({"image_id": f"i{number}", "path": str(path), "lesions": (), "lesions_known": False})
    for number, shape in ((1, (200, 160)), (2, (200, 100))):
        mask = np.zeros(shape, np.uint8)
        mask[90:110, 20:50] = 255
        cv2.imwrite(str(folder / f"mask{number}.png"), mask)
        rows[number]["lesions"] = (Lesion("mask", "mass", path=str(folder / f"mask{number}.png")),)
        rows[number]["lesions_known"] = True
    return pd.DataFrame(rows).assign(label=[0, 1] * 3, patient_id=list("abcdef"), split="", laterality="", view="")


@pytest.fixture
def geometry_of():
    """The function that gives the way from an image's original to its prepared pixels, as the store recorded it."""

    def read(store, i):
        records = [json.loads(line) for line in (store.folder / "done.jsonl").read_text().splitlines() if line]
        return BreastGeometry.from_dict(
            next(record["geometry"] for record in records if record["image_id"] == store.image_ids[i])
        )

    return read


@pytest.fixture
def download(written, tmp_path):
    """A copy to spoil of the download that a test file has `written`: its root, and the truth."""
    root = tmp_path / "copy"
    shutil.copytree(written[0], root)
    return root


@pytest.fixture
def truth(written):
    """What is known of the download that a test file has `written`, by image."""
    return written[1].set_index("image_id")


@pytest.fixture
def limited():
    """Set limits for a test."""
    before = held()
    yield lambda **values: hold(Limits(**values))
    hold(before)
