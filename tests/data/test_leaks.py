import json

import pandas as pd
import pytest

from lemlight.data.splits import leak_report


@pytest.fixture
def table():
    rows = [
        ("a", "1", "L", 1, "train"),
        ("b", "1", "L", 1, "test"),
        ("c", "2", "L", 0, "train"),
        ("d", "2", "R", 0, "test"),
        ("e", "3", "", 0, "train"),
        ("e", "3", "", 1, "val"),
        ("f", "4", "R", 0, "train"),
        ("g", "4", "R", 0, ""),
    ]
    return pd.DataFrame(rows, columns=["path", "patient_id", "laterality", "label", "split"])


def test_patients_breasts_and_files_on_several_sides_are_found(table):
    report = leak_report(table)
    assert report.leaking_patients == ("1", "2", "3")
    assert report.leaking_breasts == ("1 L",)
    assert report.leaking_files == ("e",)


def test_counts_per_split(table):
    counts = {row.split: (row.images, row.malignant, row.patients, row.share) for row in leak_report(table).splits}
    assert counts == {
        "train": (4, 1, 4, 0.5),
        "val": (1, 1, 1, 0.125),
        "test": (2, 1, 2, 0.25),
        "": (1, 0, 1, 0.125),
    }


def test_text_is_a_table_with_warnings(table):
    report = leak_report(table, "patient")
    lines = report.text().splitlines()
    assert lines[0] == "split by patient"
    assert lines[2].split() == ["train", "4", "50.0%", "1", "4"]
    assert "in more than one split: 3 patients, 1 breasts, 1 files" in lines
    assert "warning: val holds one class only (1 malignant): its AUC is undefined" in lines
    assert "these patients: 1, 2, 3" in lines
    assert "warning: 3 patients are trained and tested on: the figures do not hold for new patients" in lines
    assert "1, 2, 3" not in report.text(names=False)


def test_a_split_by_image_is_named_as_what_it_is(table):
    assert "warning: this split is image-wise" in leak_report(table, "image").text()
    assert "image-wise" not in leak_report(table, "patient").text()


def test_dict_is_plain_json(table):
    plain = leak_report(table, "column").to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["splits"][0] == {"split": "train", "images": 4, "malignant": 1, "patients": 4, "share": 0.5}


def test_a_clean_split_has_no_warning():
    rows = [
        (f"p{i}", f"{i}", "L", i % 2, split) for i, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ]
    report = leak_report(pd.DataFrame(rows, columns=["path", "patient_id", "laterality", "label", "split"]))
    assert report.warnings == report.leaking_patients == report.leaking_breasts == report.leaking_files == ()
