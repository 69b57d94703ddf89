import shutil

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.vindr import vindr
from lemlight.errors import LemlightError
from tests.layouts.inbreast import save_dicom
from tests.layouts.vindr import RELEASE, write_vindr

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("vindr")
    return root, write_vindr(root)


def failure(root, **options):
    with pytest.raises(LemlightError) as error:
        vindr(root, **options)
    return str(error.value)


def edit(root, name, old, new, count=1):
    path = root / RELEASE / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def image_of(root, image):
    return next((root / RELEASE / "images").glob(f"*/{image}.*"))


def test_everything_wrong_is_listed_at_once(download, truth):
    images = list(truth.index)
    edit(download, BREASTS, ",BI-RADS 4,", ",BI-RADS 6,")
    edit(download, BREASTS, ",training\n", ",validation\n")
    edit(download, BREASTS, f"L,CC,{images[8]},256,", f"X,CC,{images[8]},0,")
    edit(download, FINDINGS, "['Focal Asymmetry']", "['Elephant']")
    image_of(download, images[20]).unlink()
    extra = image_of(download, images[21])
    shutil.copyfile(extra, extra.with_suffix(".dcm"))
    unlisted = extra.with_name("0" * 32 + ".dicom")
    shutil.copyfile(extra, unlisted)
    save_dicom(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
    message = failure(download)
    for part in (
        "unknown BI-RADS (1): line 6 ('BI-RADS 6')",
        "unknown split (1)",
        "'validation'",
        "unknown laterality (1): line 10 ('X')",
        "impossible height (1): line 10 ('0')",
        "unknown finding categories",
        "Elephant",
        f"images of the table without a file (1): {truth.loc[images[20], 'study_id']}/{images[20]}",
        f"{images[21]}.dcm and",
        "images without a row in the table (1)",
        "0" * 32,
        "images whose names are not VinDr-Mammo's (1): AllDICOMs/20586908",
        "dataset.allow_missing=true",
    ):
        assert part in message


def test_what_is_missing_is_left_out_on_demand(download, truth, caplog):
    missing = truth.index[20]
    image_of(download, missing).unlink()
    assert missing in failure(download)
    assert set(truth.index) - set(vindr(download, allow_missing=True)["image_id"]) == {missing}
    assert missing in caplog.text


def test_without_the_findings_nothing_is_known_of_lesions(download):
    (download / RELEASE / FINDINGS).unlink()
    assert f"the findings are missing (1): {FINDINGS}" in failure(download)
    assert not vindr(download, allow_missing=True)["lesions_known"].any()


def test_no_table_of_images(download):
    (download / RELEASE / BREASTS).unlink()
    message = failure(download, allow_missing=True)
    assert f"there is no {BREASTS} below" in message
    assert "without a row" not in message


@pytest.mark.parametrize(("name", "old", "new"), [(BREASTS, "breast_birads", "birads"), (FINDINGS, "xmin", "left")])
def test_another_version_of_a_table(download, truth, name, old, new):
    edit(download, name, old, new)
    image_of(download, truth.index[9]).rename(download / "1-1.dcm")
    message = failure(download)
    assert f"no column {old}" in message
    assert new in message
    assert "1-1.dcm" in message  # the rest is still looked at


def test_a_table_cut_short(download):
    path = download / RELEASE / BREASTS
    path.write_bytes(path.read_bytes()[:-25])
    assert "not 10 cells in line 49" in failure(download)


def test_tables_of_two_versions(download):
    (download / BREASTS).write_text("study_id\n")
    assert "2 times with different contents" in failure(download)


@pytest.mark.parametrize(("birads", "what"), [("BI-RADS 1", " with different labels (1)"), ("", " (1)")])
def test_an_image_twice_in_the_table(download, truth, birads, what):
    path = download / RELEASE / BREASTS
    row = next(line for line in path.read_text().splitlines() if truth.index[5] in line)
    path.write_text(path.read_text() + (row.replace("BI-RADS 4", birads) if birads else row) + "\n")
    assert f"images that the table lists twice{what}: {truth.index[5]}" in failure(download)


def test_a_file_in_the_folder_of_another_study(download, truth):
    path = image_of(download, truth.index[9])
    path.rename(image_of(download, truth.index[0]).parent / path.name)
    message = failure(download)
    assert "without a file (1)" in message
    assert "without a row in the table (1)" in message


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("breast_birads", "BI-RADS 2"),
        ("split", "training"),
        ("laterality", "R"),
        ("height", "255"),
        ("study_id", "0" * 32),
    ],
)
def test_tables_that_contradict_each_other(download, truth, caplog, column, other):
    path = download / RELEASE / FINDINGS
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    image = truth.index[28]
    table.loc[table["image_id"] == image, column] = other
    table.to_csv(path, index=False)
    assert f"findings of images whose {column} is another in {BREASTS} (1): {image}" in failure(download)
    kept = vindr(download, allow_missing=True).set_index("image_id")
    assert list(kept["label"]) == list(truth["label"])
    assert list(kept["split"]) == list(truth["split"])
    assert not kept.loc[image, "lesions_known"]
    assert image in caplog.text


def test_a_study_in_both_parts_of_the_split(download, truth):
    edit(download, BREASTS, ",test\n", ",training\n")
    assert f"studies in training and in test (1): {truth['study_id'].iloc[0]}" in failure(download, allow_missing=True)


def test_files_of_another_data_set_among_them(download):
    save_dicom(download / "train_images" / "10006" / "462822612.dcm", np.zeros((8, 8)))
    message = failure(download, allow_missing=True)
    assert "names are not VinDr-Mammo's (1): train_images/10006/462822612.dcm" in message


def test_an_image_without_a_row_of_findings_is_unknown(download, truth):
    path = download / RELEASE / FINDINGS
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(truth.index[40])))
    table = vindr(download).set_index("image_id")
    assert truth.loc[truth.index[40], "lesions_known"]
    assert (table.loc[truth.index[40], "lesions"], table.loc[truth.index[40], "lesions_known"]) == ((), False)


def test_findings_of_an_image_that_is_not_listed(download):
    path = download / RELEASE / FINDINGS
    path.write_text(path.read_text() + path.read_text().splitlines()[1].replace("57be", "ffff", 1) + "\n")
    assert "without a row in the table of images (1): ffff" in failure(download)


def test_no_folder_and_an_empty_one(tmp_path):
    assert "there is no folder" in failure(tmp_path / "absent")
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert "is empty" in failure(tmp_path)
