import numpy as np
import pytest

from lemlight.data.datasets.inbreast import inbreast
from lemlight.data.datasets.registry import build_table
from lemlight.data.store import PrepareSettings, prepare
from lemlight.errors import LemlightError
from tests.layouts.inbreast import RELEASE, dicom_of, table_of, write_inbreast


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("inbreast")
    return root, write_inbreast(root, patients=6)


def test_the_table_is_the_truth(written, truth):
    table = build_table("inbreast", written[0]).set_index("image_id")
    assert list(table.index) == list(truth.index)
    for column in ("label", "laterality", "view", "lesions_known"):
        assert list(table[column]) == list(truth[column]), column
    assert (table["split"] == "").all()
    assert table.groupby("patient_id").ngroups == 6
    assert (table.groupby("patient_id")["label"].size() == 4).all()
    assert table.groupby(truth["patient"])["patient_id"].nunique().max() == 1
    assert [[lesion.type for lesion in lesions] for lesions in table["lesions"]] == list(truth["types"])


def test_every_lesion_is_drawn_where_it_is(written, truth):
    for row in inbreast(written[0]).itertuples():
        for lesion, mask in zip(row.lesions, truth.loc[row.image_id, "masks"], strict=True):
            np.testing.assert_array_equal(lesion.draw(mask.shape), mask)


def test_prepared_masks_are_the_true_ones_in_the_prepared_geometry(written, truth, tmp_path, geometry_of):
    table = inbreast(written[0]).iloc[:12]
    store = prepare(table, PrepareSettings(128, 96), tmp_path / "store", workers=1, progress=False)
    assert len(store) == 12
    assert store.left_out.empty
    for i, image in enumerate(store.image_ids):
        mask, true = store.mask(i), truth.loc[image]
        assert (mask is None) == (not true["lesions_known"])
        if mask is not None:
            small = [geometry_of(store, i).mask_to_prepared(lesion) > 0 for lesion in true["masks"]]
            np.testing.assert_array_equal(mask > 0, np.any([np.zeros(mask.shape, bool), *small], axis=0))
            for number, lesion in enumerate(small, 1):
                assert not (mask == number)[~lesion].any()
            assert list(store.lesion_types(i)) == true["types"]


@pytest.mark.parametrize("malignant_from", [2, 3, 4, 5, 6])
def test_the_label_follows_the_chosen_category(written, truth, malignant_from):
    table = inbreast(written[0], malignant_from=malignant_from)
    assert list(table["label"]) == [int(int(birads[0]) >= malignant_from) for birads in truth["birads"]]


@pytest.mark.parametrize(("leave_out", "gone"), [([3], {"3"}), (["4a"], {"4a"}), ([4, 1], {"4a", "4b", "4c", "1"})])
def test_categories_are_left_out(written, truth, leave_out, gone):
    table = inbreast(written[0], leave_out=leave_out)
    assert set(table["image_id"]) == set(truth.index[~truth["birads"].isin(gone)])


def test_nothing_left_is_an_error(written):
    with pytest.raises(LemlightError, match="no image of INbreast is left"):
        inbreast(written[0], leave_out=[1, 2, 3, 4, 5, 6])


def test_images_of_a_left_out_category_may_be_missing(download, truth):
    for image in truth.index[truth["birads"] == "3"]:
        dicom_of(download, image).unlink()
    assert len(inbreast(download, leave_out=[3])) == (truth["birads"] != "3").sum()


@pytest.mark.parametrize("separator", [",", "\t"])
def test_other_separators_byte_order_mark_and_numbers_of_a_spreadsheet(written, download, separator):
    lines = [line.split(";") for line in table_of(download).read_text().splitlines()]
    lines = [[*cells[:5], f"{cells[5]}.0", *cells[6:]] if cells[-1][:1].isdigit() else cells for cells in lines]
    text = "\r\n".join(separator.join(cells) for cells in lines)
    table_of(download).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(inbreast(download)["label"]) == list(inbreast(written[0])["label"])


def test_a_folder_inside_of_the_download_does_as_well(written):
    assert len(inbreast(written[0] / RELEASE)) == len(inbreast(written[0]))


def test_an_image_of_birads_1_without_xml_holds_no_lesion_and_another_one_is_unknown(download, truth, caplog):
    normal, other = truth.index[truth["birads"] == "1"][0], truth.index[truth["birads"] == "2"][0]
    (download / RELEASE / "AllXML" / f"{other}.xml").unlink()
    table = inbreast(download).set_index("image_id")
    assert (table.loc[normal, "lesions"], table.loc[normal, "lesions_known"]) == ((), True)
    assert (table.loc[other, "lesions"], table.loc[other, "lesions_known"]) == ((), False)
    assert other in caplog.text
