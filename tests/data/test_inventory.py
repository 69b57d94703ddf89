import json

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data.inventory import same_pixels, take_inventory, without_names
from lemlight.data.io import FileHeader, read_file_headers
from lemlight.data.lesions import Lesion
from lemlight.data.store import PrepareSettings, prepare

NONE = pd.DataFrame(columns=["image_id", "reason"])


@pytest.fixture
def dealt(table):
    """Six images: the fifth is a copy of the first in another split, the last one is no image."""
    first, last = table.loc[0, "path"], table.loc[5, "path"]
    cv2.imwrite(table.loc[4, "path"], cv2.imread(first, cv2.IMREAD_UNCHANGED))
    with open(last, "w") as file:
        file.write("Dear colleague, ")
    return table.assign(split=["train", "train", "val", "val", "test", "test"])


@pytest.fixture
def prepared(dealt, tmp_path):
    return prepare(dealt, PrepareSettings(64, 48), tmp_path / "store", workers=1, progress=False)


def headers_of(table):
    return read_file_headers(table["path"].tolist(), progress=False)


def test_a_check_counts_lesions_as_annotated(dealt):
    headers = headers_of(dealt)
    bad = [
        (row.image_id, f"{row.path}: {header.problem}")
        for row, header in zip(dealt.itertuples(), headers, strict=True)
        if header.problem
    ]
    found = take_inventory(dealt, headers, pd.DataFrame(bad, columns=["image_id", "reason"]), scheme="column")
    assert (found.images, found.used) == (6, 5)
    ((reason, count),) = found.left_out.items()
    assert "not an image of a known format" in reason
    assert count == 1
    assert (found.duplicates, found.duplicates_in_splits) == (None, None)
    lesions = found.lesions
    assert (lesions.with_lesions, lesions.without_lesions, lesions.unknown, lesions.rejected) == (2, 0, 3, 0)
    assert lesions.types == {"mass": 2}
    assert found.sizes == {"200 x 160": 5}
    assert found.formats == {"PNG": 5, "unknown": 1}
    assert found.greys == {"16 bits": 5}
    assert [(split.split, split.images) for split in found.leaks.splits] == [("train", 2), ("val", 2), ("test", 1)]


def test_prepared_images_show_rejected_lesions_and_copies(dealt, prepared):
    found = take_inventory(dealt, headers_of(dealt), prepared.left_out, prepared, "column")
    lesions = found.lesions
    assert (lesions.with_lesions, lesions.without_lesions, lesions.unknown, lesions.rejected) == (1, 0, 3, 1)
    assert lesions.types == {"mass": 1}
    assert lesions.notes == {"lesions left out: FILE has shape H x W, its image H x W": 1}
    assert (found.duplicates, found.duplicates_in_splits) == (2, 1)
    assert same_pixels(dealt[:5], prepared) == [("i0", "i4")]
    assert (found.images, found.used, sum(found.left_out.values())) == (6, 5, 1)


def test_known_to_have_no_lesion_is_not_unknown(dealt):
    found = take_inventory(dealt.assign(lesions_known=True), [FileHeader("PNG")] * 6, NONE)
    assert (found.lesions.with_lesions, found.lesions.without_lesions, found.lesions.unknown) == (2, 4, 0)


def test_a_lesion_without_a_type_is_counted_as_unknown(dealt):
    dealt.at[1, "lesions"] = (Lesion("circle", points=((5.0, 5.0),)), Lesion("circle", "mass", points=((9.0, 9.0),)))
    assert take_inventory(dealt, [FileHeader("PNG")] * 6, NONE).lesions.types == {"mass": 2, "unknown": 1}


def test_the_numbers_are_json_and_name_nobody(dealt, prepared):
    dealt = dealt.assign(patient_id=["jane doe"] * 6)
    plain = take_inventory(dealt, headers_of(dealt), prepared.left_out, prepared, "column").to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert plain["leaks"]["patients"] == 1
    for name in ("jane doe", "images/", ".png", *dealt["image_id"]):
        assert name not in text


def test_nothing_usable_is_counted_too(dealt):
    left_out = pd.DataFrame({"image_id": dealt["image_id"], "reason": "flat"})
    found = take_inventory(dealt, [FileHeader("PNG")] * 6, left_out)
    assert (found.used, found.left_out, found.sizes) == (0, {"flat": 6}, {})
    assert sum(split.images for split in found.leaks.splits) == 0


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("/a/jane.dcm: no decoder for RLE", "no decoder for RLE"),
        ("cannot open /a/jane.dcm.", "cannot open FILE."),
        ("jane.dcm and 1-1.png differ", "FILE and FILE differ"),
        (
            "lesions left out: /m/1-1.png: damaged (<BytesIO object at 0x7f3a>)",
            "lesions left out: FILE: damaged (<BytesIO object>)",
        ),
        ("outside the image of 3000 x 2400 px", "outside the image of H x W px"),
        ("1-1.png has shape (3, 4), its image (6, 8)", "FILE has shape H x W, its image H x W"),
        ("notjane.dcm and jane.dcmx stay", "notjane.dcm and jane.dcmx stay"),
    ],
)
def test_names_and_sizes_are_taken_out(text, plain):
    assert without_names(text, ["/a/jane.dcm", "/m/1-1.png"]) == plain


def test_an_image_and_its_mask_of_one_name():
    text = "mask 1-1.dcm rescaled from (120, 90) to (240, 180)"
    assert without_names(text, ["/a/1-1.dcm", "/b/1-1.dcm"]) == "mask FILE rescaled from H x W to H x W"


def test_a_name_of_special_characters():
    assert without_names("/a/x (1)+.png: x (1)+.png twice", ["/a/x (1)+.png"]) == "FILE twice"


def test_counts_fall(dealt):
    headers = [FileHeader("b"), FileHeader("a"), FileHeader("c"), FileHeader("c"), FileHeader("a"), FileHeader("c")]
    found = take_inventory(dealt, headers, NONE)
    assert list(found.formats.items()) == [("c", 3), ("a", 2), ("b", 1)]
    assert np.sum(list(found.formats.values())) == 6
