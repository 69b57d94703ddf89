import numpy as np
import pandas as pd
import pytest

from lemlight.data.groups import age_band, exams, group_columns, public_groups
from lemlight.data.table import check_table
from tests.layouts.drawing import save_mammogram


class Store:
    """Four images: a lesion of 314 px of 1 square mm, none, two types, and nothing known."""

    def __init__(self, area=1.0):
        self.area = area

    def index_of(self, image_id):
        return int(image_id)

    def mask(self, place):
        mask = np.zeros((40, 40), np.uint8)
        if place == 0:
            mask.ravel()[:314] = 1  # a disc of 20 mm
        if place == 2:
            mask[0, :3], mask[5, :2] = 1, 2
        return None if place == 3 else mask

    def lesion_types(self, place):
        return {0: ["mass"], 2: ["mass", "calcification"]}.get(place, [])

    def pixel_mm2(self, place):
        return self.area


@pytest.fixture
def table(tmp_path):
    headers = [{"Manufacturer": " ACME  Inc ", "PatientAge": "048Y"}, {"PatientAge": "070Y"}, {"Manufacturer": "Other"}]
    for number, tags in enumerate(headers):
        save_mammogram(tmp_path / f"{number}.dcm", np.full((60, 40), 9, np.uint16), f"P{number}", **tags)
    (tmp_path / "3.png").write_bytes(b"no image")
    paths = [*(tmp_path / f"{number}.dcm" for number in range(3)), tmp_path / "3.png"]
    rows = {"image_id": list("0123"), "path": paths, "label": 0, "patient_id": list("abcd"), "view": "CC"}
    return check_table(pd.DataFrame(rows).assign(density=["2.0", "2", "", None]))


def test_what_the_table_the_lesions_and_the_headers_say(table):
    names = ["view", "laterality", "lesion_type", "lesion_size", "density", "vendor", "age_band", "site"]
    found = group_columns(table, Store(), names)
    assert list(found) == names
    assert found["density"].tolist() == ["2", "2", "", ""]
    assert found["lesion_type"].tolist() == ["mass", "no lesion", "several types", ""]
    assert found["lesion_size"].tolist() == ["10 to 20 mm", "no lesion", "up to 10 mm", ""]
    assert found["vendor"].tolist() == ["ACME Inc", "", "Other", ""]
    assert found["age_band"].tolist() == ["40 to 49", "70 and older", "", ""]
    assert set(found["site"]) == set(found["laterality"]) == {""}


def test_the_table_comes_before_the_headers_and_without_a_spacing_there_is_no_size(table):
    given = table.assign(vendor=["A", "", "B", ""], age=["39", "69", "", ""])
    found = group_columns(given, Store(area=None), ["lesion_size", "vendor", "age_band"])
    assert found["vendor"].tolist() == ["A", "", "B", ""]
    assert found["age_band"].tolist() == ["below 40", "60 to 69", "", ""]
    assert found["lesion_size"].tolist() == ["", "no lesion", "", ""]


def test_an_exam_is_what_the_table_says_or_the_date_of_the_study(table, tmp_path):
    pixels = np.full((60, 40), 9, np.uint16)
    for number, date in enumerate(["20200131", "20210131"]):
        save_mammogram(tmp_path / f"{number}.dcm", pixels, f"P{number}", StudyDate=date)
    assert exams(table).tolist()[:2] == ["20200131", "20210131"]
    assert exams(table)[3] == ""  # no DICOM
    assert exams(table.assign(exam=["", "7", "", ""])).tolist() == ["", "7", "", ""]


@pytest.mark.parametrize(
    ("age", "band"),
    [("055Y", "50 to 59"), ("8", "below 40"), ("100", "70 and older"), ("006M", ""), ("", ""), ("old", "")],
)
def test_ages_in_years(age, band):
    assert age_band(age) == band


def test_only_known_words_are_named_and_others_are_numbered_in_their_order():
    given = {
        "vendor": ["HOLOGIC, Inc.", "Doe Clinic", "", "Hologic of Doe", "GE MEDICAL SYSTEMS"],
        "site": ["St. Mary", "", "All Saints", "St. Mary", "St. Mary"],
        "density": ["B", "2", "", "BI-RADS c", "dense, says Doe"],
        "view": ["CC", "MLO", "", "DOE", "ML"],
        "lesion_type": ["mass", "", "", "", ""],
    }
    shown, names = public_groups(pd.DataFrame(given))
    assert shown["vendor"].tolist() == ["HOLOGIC, Inc.", "no. 1", "", "no. 2", "GE MEDICAL SYSTEMS"]
    assert shown["site"].tolist() == ["no. 2", "", "no. 1", "no. 2", "no. 2"]
    assert shown["density"].tolist() == ["B", "2", "", "BI-RADS c", "no. 1"]
    assert shown["view"].tolist() == ["CC", "MLO", "", "no. 1", "ML"]
    assert shown["lesion_type"].tolist() == given["lesion_type"]
    assert ("site", "no. 1", "All Saints") in set(names.itertuples(index=False, name=None))
