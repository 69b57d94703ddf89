import lzma
from pathlib import Path

import pandas as pd
import pytest

from lemlight.data.datasets.cbis import TABLES, cases_by_series, count, group_images, read_tables
from lemlight.data.datasets.common import Problems
from lemlight.errors import LemlightError
from tests.layouts.cbis import write_cbis

PUBLISHED = Path(__file__).parent / "cbis_tables"  # CC BY 3.0: see its README


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of the published tables."""
    folder = tmp_path_factory.mktemp("tables")
    for name in TABLES:
        (folder / name).write_bytes(lzma.decompress((PUBLISHED / f"{name}.xz").read_bytes()))
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of the tables of a small download, and its truth."""
    root = tmp_path_factory.mktemp("cbis")
    return root, write_cbis(root).set_index("image_id")


def read(folder):
    problems = Problems("CBIS-DDSM", folder)
    descriptions = read_tables([str(path) for path in sorted(folder.rglob("*.csv"))], folder, problems)
    problems.raise_any(False, descriptions)
    return descriptions


def failure(folder):
    with pytest.raises(LemlightError) as error:
        read(folder)
    return str(error.value)


@pytest.fixture
def tables(drawn, tmp_path):
    for name in TABLES:
        (tmp_path / name).write_bytes((drawn[0] / name).read_bytes())
    return tmp_path


def edit(path, old, new, times=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, times))


def test_the_counts_of_the_published_tables(published):
    assert count(read(published)) == {
        "abnormalities": 3568,
        "image folders": 3103,
        "mammograms": 3032,
        "patients": 1566,
        "patients in train and test": 31,
        "patients in mass and calc": 79,
        "mammograms in mass and calc": 71,
        "mammograms in train and test": 29,
        "folders with both labels": 17,
        "mammograms with several abnormalities": 334,
    }


@pytest.mark.parametrize("patient_disjoint", [True, False])
def test_split_and_labels_of_the_published_tables_against_a_naive_loop(published, patient_disjoint):
    rows = [row for name in TABLES for row in pd.read_csv(published / name).to_dict("records")]
    in_test = {row["patient_id"] for row in rows if "-Test_" in row["image file path"]}
    expected = {}
    for row in rows:
        key = f"{row['patient_id']}_{row['left or right breast']}_{row['image view']}"
        label, split = expected.get(key, (0, "train"))
        test = row["patient_id"] in in_test if patient_disjoint else "-Test_" in row["image file path"]
        expected[key] = (max(label, int(row["pathology"] == "MALIGNANT")), "test" if test else split)
    images = group_images(read(published), patient_disjoint)
    found = zip(images["image_id"], zip(images["label"], images["split"], strict=True), strict=True)
    assert dict(found) == expected
    shared = images.groupby("patient_id")["split"].nunique()
    assert (shared > 1).any() != patient_disjoint


def test_every_published_series_is_of_one_case(published):
    descriptions = read(published)
    cases = cases_by_series(descriptions)
    assert len(cases) == 6775  # as many as The Cancer Imaging Archive has
    assert set(cases.values()) == {*descriptions["folder"], *descriptions["mask_folder"]}


def test_a_mammogram_listed_as_mass_and_as_calc_is_one_image(published):
    image = group_images(read(published)).set_index("image_id").loc["P_01840_RIGHT_MLO"]
    assert set(image["folders"]) == {"Mass-Training_P_01840_RIGHT_MLO", "Calc-Training_P_01840_RIGHT_MLO"}
    assert set(image["mask_folders"]) == {"Mass-Training_P_01840_RIGHT_MLO_1", "Calc-Training_P_01840_RIGHT_MLO_2"}


def test_the_drawn_tables_are_the_truth(drawn):
    folder, truth = drawn
    for disjoint, column in ((True, "split"), (False, "official")):
        images = group_images(read(folder), disjoint).set_index("image_id").loc[truth.index]
        assert list(images["split"]) == list(truth[column])
        assert list(images["label"]) == list(truth["label"])
    assert list(truth["split"]) != list(truth["official"])


def test_missing_tables_are_listed_together(tables):
    for name in TABLES[1:]:
        (tables / name).unlink()
    message = failure(tables)
    assert "tables that are not in" in message
    assert [name in message for name in TABLES] == [False, True, True, True]


def test_copies_may_differ_in_form_but_not_in_content(tables, drawn):
    copy = tables / "csv" / TABLES[1]
    copy.parent.mkdir()
    copy.write_bytes((tables / TABLES[1]).read_text().replace("\n", "\r\n").encode())
    assert len(read(tables)) == len(read(drawn[0]))
    edit(copy, "MALIGNANT", "BENIGN")
    assert f"copies of {TABLES[1]} with different contents" in failure(tables)


def test_everything_wrong_with_the_tables_is_listed_at_once(tables):
    edit(tables / TABLES[0], "pathology", "diagnosis")
    edit(tables / TABLES[1], "BENIGN", "NORMAL")
    edit(tables / TABLES[1], ",RIGHT,MLO,", ",RIGHT,AT,")
    edit(tables / TABLES[2], ",LEFT,", ",LINKS,")
    edit(tables / TABLES[2], "P_00003,", "P3,")
    (tables / TABLES[3]).write_bytes((tables / TABLES[3]).read_bytes()[:-80])
    message = failure(tables)
    for part in (
        f"{TABLES[0]} has no column pathology",
        f"unknown pathology in {TABLES[1]} (1): line ",
        "'NORMAL",
        f"unknown image view in {TABLES[1]} (1)",
        f"unknown left or right breast in {TABLES[2]} (1)",
        f"unknown patient_id in {TABLES[2]} (1)",
        f"{TABLES[3]}, line",
    ):
        assert part in message


def test_a_table_under_the_name_of_another(tables):
    (tables / TABLES[1]).write_bytes((tables / TABLES[0]).read_bytes())
    message = failure(tables)
    assert f"image file path of another image than the row in {TABLES[1]}" in message
    assert f"ROI mask file path of another image than the row in {TABLES[1]}" in message


def test_an_abnormality_twice_in_a_table(tables):
    lines = (tables / TABLES[0]).read_text()
    (tables / TABLES[0]).write_text(lines + lines.split("\n", 1)[1])
    assert f"abnormalities that {TABLES[0]} lists twice" in failure(tables)
