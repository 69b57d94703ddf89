import cv2
import numpy as np
import pytest

from lemlight.data.inventory import HEIGHT, choose_images, read_pictures, stored_picture
from lemlight.data.lesions import Lesion
from lemlight.data.store import PrepareSettings, prepare

SETTINGS = PrepareSettings(128, 96)


def test_both_labels_are_drawn_alike():
    labels = [0] * 90 + [1] * 10
    chosen = choose_images(labels, 12)
    assert [labels[i] for i in chosen].count(1) == 6
    assert chosen == sorted(set(chosen))
    assert chosen == choose_images(labels, 12)
    assert chosen != choose_images(labels, 12, seed=1)


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [([0] * 9 + [1], 6, 1), ([0] * 5, 3, 0), ([1] * 2, 6, 2), ([], 4, 0), ([0, 1], 0, 0)],
)
def test_a_rare_label_is_drawn_as_far_as_it_goes(labels, count, expected):
    chosen = choose_images(labels, count)
    assert len(chosen) == min(count, len(labels))
    assert sum(labels[i] for i in chosen) == expected


def test_pictures_of_a_check_are_those_of_the_store(table, tmp_path):
    store = prepare(table, SETTINGS, tmp_path / "store", workers=1, progress=False)
    pictures, reasons = read_pictures(table, SETTINGS, workers=1, progress=False)
    assert reasons == {}
    assert list(pictures) == store.image_ids
    for image_id, picture in pictures.items():
        stored = stored_picture(store, store.index_of(image_id))
        np.testing.assert_array_equal(picture.pixels, stored.pixels)
        assert (picture.lesions is None) == (stored.lesions is None)
        if picture.lesions is not None:
            np.testing.assert_array_equal(picture.lesions, stored.lesions)
    assert [image_id for image_id, picture in pictures.items() if picture.lesions is not None] == ["i1"]


def test_an_image_that_cannot_be_used_has_a_reason(table):
    cv2.imwrite(table.loc[0, "path"], np.zeros((200, 160), np.uint8))
    with open(table.loc[3, "path"], "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + bytes(40))
    pictures, reasons = read_pictures(table, SETTINGS, workers=1, progress=False)
    assert set(pictures) == {"i1", "i2", "i4", "i5"}
    assert "no breast found" in reasons["i0"]
    assert "damaged" in reasons["i3"]


def test_no_rows_are_no_pictures(table):
    assert read_pictures(table[:0], SETTINGS, workers=2) == ({}, {})


def test_a_thumbnail_is_small_and_keeps_a_lesion_of_one_pixel(table, tmp_path):
    table.at[0, "lesions"] = (Lesion("points", points=((40.0, 100.0),)),)
    table.loc[0, "lesions_known"] = True
    settings = PrepareSettings(HEIGHT * 4, HEIGHT * 3)
    store = prepare(table[:1], settings, tmp_path / "store", workers=1, progress=False)
    assert (store.mask(0) > 0).sum() == 1
    picture = stored_picture(store, 0)
    assert picture.pixels.shape == (HEIGHT, HEIGHT * 3 // 4) == picture.lesions.shape
    assert picture.lesions.any()
    assert 0 <= picture.pixels.min() < 0.01
    assert 0.1 < picture.pixels.max() <= 1
    read, _ = read_pictures(table[:1], settings, workers=1, progress=False)
    assert read["i0"].pixels.shape == picture.pixels.shape
    assert np.abs(read["i0"].pixels - picture.pixels).mean() < 0.02
