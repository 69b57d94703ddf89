import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.registry import build_table
from lemlight.data.datasets.vindr import vindr
from lemlight.data.splits import split_table
from lemlight.data.store import PrepareSettings, prepare
from tests.layouts.vindr import RELEASE, write_vindr

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("vindr")
    return root, write_vindr(root)


def image_of(root, image):
    return next((root / RELEASE / "images").glob(f"*/{image}.*"))


def test_the_table_is_the_truth(written, truth):
    table = build_table("vindr", written[0]).set_index("image_id")
    assert list(table.index) == list(truth.index)
    for column in ("label", "split", "laterality", "view", "lesions_known"):
        assert list(table[column]) == list(truth[column]), column
    assert list(table["patient_id"]) == list(truth["study_id"])
    assert [[lesion.type for lesion in lesions] for lesions in table["lesions"]] == list(truth["types"])
    assert all(str(image) in path for image, path in table["path"].items())


def test_every_box_is_drawn_where_it_is(written, truth):
    drawn = 0
    for row in vindr(written[0]).itertuples():
        for lesion, mask in zip(row.lesions, truth.loc[row.image_id, "masks"], strict=True):
            np.testing.assert_array_equal(lesion.draw(mask.shape), mask)
            drawn += 1
    assert drawn > 10


def test_prepared_masks_are_the_true_ones_in_the_prepared_geometry(written, truth, tmp_path, geometry_of):
    table = vindr(written[0]).iloc[:12]
    store = prepare(table, PrepareSettings(128, 96), tmp_path / "store", workers=1, progress=False)
    assert len(store) == 12
    for i, image in enumerate(store.image_ids):
        mask, true = store.mask(i), truth.loc[image]
        assert (mask is None) == (not true["lesions_known"])
        if mask is not None:
            small = [geometry_of(store, i).mask_to_prepared(lesion) > 0 for lesion in true["masks"]]
            np.testing.assert_array_equal(mask > 0, np.any([np.zeros(mask.shape, bool), *small], axis=0))
            assert list(store.lesion_types(i)) == true["types"]


def test_the_official_split_keeps_its_test_part_and_patients_apart(written, truth):
    table = split_table(vindr(written[0]), "column", seed=0).set_index("image_id")
    assert list(table["split"] == "test") == list(truth["split"] == "test")
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("patient_id")["split"].nunique().max() == 1


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
    assert f"boxes of 1 images are cut at the edge: {truth.index[3]}" in caplog.text
    assert f"{truth.index[2]} (a box outside the image)" in caplog.text
    assert f"{truth.index[1]} (a finding without a box)" in caplog.text


def test_no_image_is_opened(download, truth):
    for image in truth.index:
        image_of(download, image).write_bytes(b"")
    assert len(vindr(download)) == len(truth)


def test_a_link_back_and_a_broken_one(download, written):
    (download / RELEASE / "images" / "again").symlink_to(download)
    (download / RELEASE / "images" / "nowhere.dicom").symlink_to("absent")
    assert len(vindr(download)) == len(written[1])


def test_a_table_of_a_spreadsheet_program(download, written):
    for name in (BREASTS, FINDINGS):
        path = download / RELEASE / name
        pd.read_csv(path, dtype=str, keep_default_na=False).to_csv(
            path, sep=";", index=False, encoding="utf-8-sig", lineterminator="\r\n"
        )
    pd.testing.assert_frame_equal(vindr(download).drop(columns="path"), vindr(written[0]).drop(columns="path"))
