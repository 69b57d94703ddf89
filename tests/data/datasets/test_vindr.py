import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.vindr import BREASTS, FINDINGS, Finding, lesions_of, read_categories, vindr
from lemlight.data.preparing.lesions import Lesion
from lemlight.errors import ImageError
from tests.layouts.drawing import failure_of, save_mammogram, spoil, written_by
from tests.layouts.vindr import RELEASE, write_vindr

failure = partial(failure_of, vindr)
NONE = ("", "", "", "")
written = written_by(write_vindr)


def edit(root, name, old, new, count=1):
    spoil(root / RELEASE / name, old, new, count)


def image_of(root, image):
    return next((root / RELEASE / "images").glob(f"*/{image}.*"))


@pytest.mark.parametrize("malignant_from", [2, 3, 4, 5])
def test_the_label_follows_the_chosen_category(written, truth, malignant_from):
    table = vindr(written[0], malignant_from=malignant_from)
    assert list(table["label"]) == list((truth["birads"] >= malignant_from).astype(int))


@pytest.mark.parametrize("leave_out", [[3], [1, 2]])
def test_categories_can_be_left_out(written, truth, leave_out):
    kept = ~truth["birads"].isin([int(category) for category in leave_out])
    assert list(vindr(written[0], leave_out=leave_out)["image_id"]) == list(truth.index[kept])
    assert kept.sum() < len(truth)


def test_a_box_that_is_cut_and_one_wholly_outside_are_named(written, truth, caplog):
    vindr(written[0])
    assert f"images with a box that is cut at the edge (1): {truth.index[3]}" in caplog.text
    assert f"{truth.index[2]} (a box outside the image)" in caplog.text
    assert f"{truth.index[1]} (a finding without a box)" in caplog.text


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
    save_mammogram(download / "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", np.zeros((8, 8)))
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


def test_without_the_findings_nothing_is_known_of_lesions(download):
    (download / RELEASE / FINDINGS).unlink()
    assert f"the findings are missing (1): {FINDINGS}" in failure(download)
    assert not vindr(download, allow_missing=True)["lesions_known"].any()


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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("['Mass']", ("Mass",)),
        ('["Skin Retraction", "Mass"]', ("Skin Retraction", "Mass")),
        ("Mass", None),
        ("'Mass'", ("Mass",)),
        ("[]", None),
        ("[1]", None),
        ("['Elephant']", None),
        ("__import__('os').system('true')", None),
        ("", None),
        ("[" * 5000, None),
    ],
)
def test_categories_are_read_and_never_executed(text, names):
    assert read_categories(text) == names


def finding(box=("10", "20", "30.5", "40"), names=("Mass",)):
    return Finding(names, box)


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ([], "no row"),
        ([finding(NONE)], "without a box"),
        ([finding(("10", "", "30", "40"))], "without a box"),
        ([finding(), finding(NONE)], "without a box"),
        ([finding(("10", "20", "ten", "40"))], "no numbers"),
        ([finding(("10", "20", "nan", "40"))], "without extent"),
        ([finding(("10", "20", "inf", "40"))], "without extent"),
        ([finding(("10", "20", "10", "40"))], "without extent"),
        ([finding(("30", "20", "10", "40"))], "without extent"),
        ([finding(("-19", "20", "0", "40"))], "outside"),
        ([finding(("200", "20", "220", "40"))], "outside"),
        ([finding(("10", "-19", "30", "0"))], "outside"),
        ([finding(("10", "100", "30", "120"))], "outside"),
        ([finding(), finding(("500", "500", "600", "600"))], "outside"),
        ([finding(names=("No Finding",))], "beside"),
        ([finding(NONE, ("No Finding",)), finding()], "beside"),
        ([finding(NONE, ("No Finding", "Mass"))], "beside"),
    ],
)
def test_lesions_that_are_not_known(findings, message):
    with pytest.raises(ImageError, match=message):
        lesions_of(findings, (100, 200))


def test_lesions_that_are_known():
    shape = (100, 200)
    box = Lesion("box", "mass", points=((10.0, 20.0), (30.5, 40.0)), size=shape)
    assert lesions_of([finding(NONE, ("No Finding",))] * 2, shape) == ((), False)
    assert lesions_of([finding(), finding(("-2", "-1", "202", "101"), ("Skin Thickening",)), finding()], shape)[0] == (
        box,
        Lesion("box", "other", points=((0.0, 0.0), (199.0, 99.0)), size=shape),
    )
    (lesion,), _ = lesions_of([finding(names=("Nipple Retraction", "Suspicious Calcification"))], shape)
    assert lesion.type == "calcification"


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        (("-50", "20", "30", "40"), ((0, 20), (30, 40))),
        (("10", "-0.5", "30", "40"), ((10, 0), (30, 40))),
        (("150", "20", "900", "40"), ((150, 20), (199, 40))),
        (("10", "20", "30", "100.5"), ((10, 20), (30, 99))),
        (("-9", "-9", "900", "900"), ((0, 0), (199, 99))),
        (("199.5", "99.5", "210", "110"), ((199, 99), (199, 99))),
        (("-10", "-10", "0.5", "0.5"), ((0, 0), (0.5, 0.5))),
    ],
)
def test_a_box_that_overlaps_the_image_is_cut_at_its_edge(box, corners):
    (lesion,), cut = lesions_of([finding(box)], (100, 200))
    assert cut
    assert lesion.points == corners
    drawn, note = lesion.draw((100, 200))
    assert drawn.any()
    assert note == ""
