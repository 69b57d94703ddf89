import json

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.data.preparing.inventory import same_pixels, take_inventory, without_names
from lemlight.data.preparing.lesions import Lesion
from lemlight.data.preparing.store import PrepareSettings, prepare
from lemlight.data.reading.headers import Header, read_headers
from lemlight.data.table import check_table
from lemlight.reporting.inventory_page import HEIGHT, check_images, choose_images, draw_thumbnails

SETTINGS = PrepareSettings(64, 48)
NONE = pd.DataFrame(columns=["image_id", "reason"])


@pytest.fixture
def assigned(table):
    """Six images: the fifth is a copy of the first in another split, the last one is no image."""
    first, last = table.loc[0, "path"], table.loc[5, "path"]
    cv2.imwrite(table.loc[4, "path"], cv2.imread(first, cv2.IMREAD_UNCHANGED))
    with open(last, "w") as file:
        file.write("Dear colleague, ")
    return table.assign(split=["train", "train", "val", "val", "test", "test"])


@pytest.fixture
def prepared(assigned, tmp_path):
    return prepare(assigned, SETTINGS, tmp_path / "store", workers=1)


def headers_of(table):
    return read_headers(table["path"].tolist(), notes=True)


def lesion_counts(found):
    keys = ("with_lesions", "without_lesions", "unknown", "rejected")
    return tuple(found["lesions"][key] for key in keys)


def test_a_check_counts_lesions_as_annotated(assigned):
    headers = headers_of(assigned)
    left_out = check_images(assigned, headers, SETTINGS, workers=1, thumbnails=0).left_out
    found = take_inventory(assigned, headers, left_out, scheme="column")
    assert (found["images"], found["used"]) == (6, 5)
    ((reason, count),) = found["left_out"].items()
    assert "not an image of a known format" in reason
    assert count == 1
    assert (found["duplicates"], found["duplicates_in_splits"]) == (None, None)
    assert lesion_counts(found) == (2, 0, 3, 0)
    assert found["lesions"]["types"] == {"mass": 2}
    assert found["sizes"] == {"200 x 160": 5}
    assert found["formats"] == {"PNG": 5, "unknown": 1}
    assert found["greys"] == {"16 bits": 5}
    splits = [(split["split"], split["images"]) for split in found["leaks"]["splits"]]
    assert splits == [("train", 2), ("val", 2), ("test", 1)]


def test_prepared_images_show_rejected_lesions_and_copies(assigned, prepared):
    found = take_inventory(assigned, headers_of(assigned), prepared.left_out, prepared, "column")
    assert lesion_counts(found) == (1, 0, 3, 1)
    assert found["lesions"]["types"] == {"mass": 1}
    assert found["lesions"]["notes"] == {"lesions left out: FILE has shape H x W, its image H x W": 1}
    assert (found["duplicates"], found["duplicates_in_splits"]) == (2, 1)
    assert same_pixels(assigned[:5], prepared) == [("i0", "i4")]
    assert (found["images"], found["used"], sum(found["left_out"].values())) == (6, 5, 1)


def test_the_numbers_are_json_and_name_nobody(assigned, prepared):
    assigned = assigned.assign(patient_id=["jane doe"] * 6)
    found = take_inventory(assigned, headers_of(assigned), prepared.left_out, prepared, "column")
    text = json.dumps(found, allow_nan=False)
    assert found["leaks"]["patients"] == 1
    for name in ("jane doe", "images/", ".png", *assigned["image_id"]):
        assert name not in text


def test_nothing_usable_is_counted_too(assigned):
    left_out = pd.DataFrame({"image_id": assigned["image_id"], "reason": "flat"})
    found = take_inventory(assigned, [Header("PNG")] * 6, left_out)
    assert (found["used"], found["left_out"], found["sizes"]) == (0, {"flat": 6}, {})
    assert sum(split["images"] for split in found["leaks"]["splits"]) == 0


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
        ("mask 1-1.png rescaled from (120, 90) to (240, 180)", "mask FILE rescaled from H x W to H x W"),
        ("/b/x (1)+.png: x (1)+.png twice", "FILE: FILE twice"),
        ("notjane.dcm and jane.dcmx stay", "notjane.dcm and jane.dcmx stay"),
        ("the same pixels as a_16, 03_b", "the same pixels as a_16, 03_b"),
    ],
)
def test_names_and_sizes_are_taken_out(text, plain):
    assert without_names(text, ["/a/jane.dcm", "/m/1-1.png", "/b/x (1)+.png", "/c/1-1.png"]) == plain


@pytest.mark.parametrize(
    ("labels", "count", "malignant"),
    [([0] * 90 + [1] * 10, 12, 6), ([0] * 9 + [1], 6, 1), ([0] * 5, 3, 0), ([1] * 2, 6, 2), ([], 4, 0), ([0, 1], 0, 0)],
)
def test_both_labels_are_drawn_alike_as_far_as_they_go(labels, count, malignant):
    rows = pd.DataFrame({"label": labels})
    chosen = choose_images(rows, count)
    assert len(chosen) == min(count, len(labels))
    assert chosen["label"].sum() == malignant
    assert chosen.index.is_monotonic_increasing
    assert chosen.index.is_unique
    pd.testing.assert_frame_equal(chosen, choose_images(rows, count))


def test_a_check_shows_what_the_store_would_hold_and_names_what_cannot_be_decoded(assigned, prepared):
    cv2.imwrite(assigned.loc[0, "path"], np.zeros((200, 160), np.uint8))
    with open(assigned.loc[3, "path"], "r+b") as file:
        file.truncate(2000)
    findings = check_images(assigned, headers_of(assigned), SETTINGS, workers=1, thumbnails=9)
    assert findings.store is None
    reasons = dict(findings.left_out.itertuples(index=False))
    assert list(reasons) == ["i0", "i3", "i5"]
    assert "no breast found" in reasons["i0"]
    assert "damaged" in reasons["i3"]
    kept = assigned[~assigned["image_id"].isin(list(reasons))]
    for seen, stored in zip(findings.thumbnails, draw_thumbnails(kept, prepared), strict=True):
        np.testing.assert_array_equal(seen.image, stored.image)
        np.testing.assert_array_equal(seen.lesions, stored.lesions)
        assert seen.caption() == stored.caption()
    assert [seen.lesions is not None for seen in findings.thumbnails] == [True, False, False]


def odd_files(folder, write_dicom, draw):
    """Images that are odd by their headers and tables, one that only its pixels tell, and a good one."""
    odd = {
        "modality": {"Modality": "CR"},
        "raw": {"PresentationIntentType": "FOR PROCESSING"},
        "spot": {"PaddleDescription": "10CM SPOT"},
        "slice": {"ImagePositionPatient": [0, 0, 3]},
        "rescale": {"RescaleSlope": "0", "RescaleIntercept": "0"},
        "window": {"WindowCenter": "2000", "WindowWidth": "0"},
        "function": {"WindowCenter": "2000", "WindowWidth": "4000", "VOILUTFunction": "SQUARE"},
        "good": {},
    }
    rows = [(name, write_dicom(folder / f"{name}.dcm", draw(n) // 16, BitsStored=12, **tags), ())
            for n, (name, tags) in enumerate(odd.items())]  # fmt: skip
    rows.append(("dark", write_dicom(folder / "dark.dcm", draw(9) // 16, BitsStored=16), ()))
    height, width = draw(1).shape
    cv2.imwrite(
        str(folder / "twice.png"), np.pad(np.ones((60, 40), np.uint8), ((60, 2 * height - 120), (40, 2 * width - 80)))
    )
    cv2.imwrite(str(folder / "foreign.png"), np.eye(64, dtype=np.uint8))
    lesions = {
        "twice": Lesion("mask", path=str(folder / "twice.png")),
        "foreign": Lesion("mask", path=str(folder / "foreign.png")),
        "out": Lesion("circle", points=((0.0, height / 2),), radius=30.0),
        "beyond": Lesion("box", points=((2.0 * width, 1.0), (2.0 * width + 9, 9.0))),
        "scaled": Lesion("circle", points=((width, height),), radius=20.0, size=(2 * height, 2 * width)),
    }
    for n, (name, lesion) in enumerate(lesions.items()):
        rows.append((name, write_dicom(folder / f"{name}_image.dcm", draw(20 + n) // 16, BitsStored=12), (lesion,)))
    table = pd.DataFrame(rows, columns=["image_id", "path", "lesions"])
    table["path"] = table["path"].map(str)
    return check_table(table.assign(label=0, patient_id=table["image_id"], split="train"))


def test_a_check_notes_what_preparing_will_as_far_as_headers_and_tables_tell(tmp_path, write_dicom, draw):
    table = odd_files(tmp_path, write_dicom, draw)
    store = prepare(table, SETTINGS, tmp_path / "store", workers=1)
    prepared = set(store.notes.itertuples(index=False, name=None))
    by_pixels = {(name, note) for name, note in prepared if "bits (" in note or "outside the breast" in note}
    assert {name for name, _ in by_pixels} >= {"dark"}
    found = check_images(table, headers_of(table), SETTINGS, workers=1, thumbnails=0)
    assert set(found.notes.itertuples(index=False, name=None)) == prepared - by_pixels
    assert {name for name, _ in prepared} == set(table["image_id"]) - {"good"}
    counted = take_inventory(table, headers_of(table), found.left_out, notes=found.notes)["lesions"]["notes"]
    assert sum(counted.values()) == len(found.notes)
    shown = check_images(table, headers_of(table), SETTINGS, workers=1, thumbnails=len(table))
    assert set(shown.notes.itertuples(index=False, name=None)) >= prepared - by_pixels  # and what decoding told


def test_a_thumbnail_is_small_and_keeps_a_lesion_of_one_pixel(table, tmp_path):
    table.at[0, "lesions"] = (Lesion("points", points=((40.0, 100.0),)),)
    table.loc[0, "lesions_known"] = True
    settings = PrepareSettings(HEIGHT * 4, HEIGHT * 3)
    store = prepare(table[:1], settings, tmp_path / "store", workers=1)
    assert (store.mask(0) > 0).sum() == 1
    (thumbnail,) = draw_thumbnails(table[:1], store)
    assert thumbnail.image.shape == (HEIGHT, HEIGHT * 3 // 4) == thumbnail.lesions.shape
    assert thumbnail.lesions.any()
    assert 0 <= thumbnail.image.min() < 0.01
    assert 0.1 < thumbnail.image.max() <= 1
