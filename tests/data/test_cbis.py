import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from lemlight.data.sources.cbis import TABLES, cbis_table, count, group_images, read_descriptions
from lemlight.data.sources.cbis_files import read_header
from lemlight.errors import LemlightError

EXCERPT = Path(__file__).parent / "cbis_excerpt"  # nine patients, CC BY 3.0: see its README
PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "cbis-ddsm"
COUNTS = {  # abnormalities, folders, mammograms, patients; both sides: patients, kinds, mammograms, splits, labels
    EXCERPT: (28, 24, 21, 9, 3, 5, 3, 2, 1),
    PUBLISHED: (3568, 3103, 3032, 1566, 31, 79, 71, 29, 17),
}
THERE = [folder for folder in COUNTS if folder.is_dir()]


def descriptions(folder=EXCERPT):
    return read_descriptions([folder / name for name in TABLES])


@pytest.mark.parametrize("folder", THERE, ids=lambda folder: folder.name)
def test_counts_of_the_tables(folder):
    assert tuple(count(descriptions(folder)).values()) == COUNTS[folder]


@pytest.mark.parametrize("folder", THERE, ids=lambda folder: folder.name)
@pytest.mark.parametrize("patient_disjoint", [True, False])
def test_split_and_labels_against_a_naive_loop(folder, patient_disjoint):
    rows = [row for name in TABLES for row in pd.read_csv(folder / name).to_dict("records")]
    in_test = {row["patient_id"] for row in rows if "-Test_" in row["image file path"]}
    expected = {}
    for row in rows:
        key = f"{row['patient_id']}_{row['left or right breast']}_{row['image view']}"
        label, split = expected.get(key, (0, "train"))
        test = row["patient_id"] in in_test if patient_disjoint else "-Test_" in row["image file path"]
        expected[key] = (max(label, int(row["pathology"] == "MALIGNANT")), "test" if test else split)
    images = group_images(descriptions(folder), patient_disjoint).set_index("image_id")
    assert {key: (row["label"], row["split"]) for key, row in images.iterrows()} == expected
    shared = images.groupby("patient_id")["split"].nunique()
    assert (shared > 1).any() != patient_disjoint


def test_a_mammogram_listed_as_mass_and_as_calc_is_one_image():
    image = group_images(descriptions()).set_index("image_id").loc["P_01840_RIGHT_MLO"]
    assert set(image["folders"]) == {"Mass-Training_P_01840_RIGHT_MLO", "Calc-Training_P_01840_RIGHT_MLO"}
    assert set(image["mask_folders"]) == {"Mass-Training_P_01840_RIGHT_MLO_1", "Calc-Training_P_01840_RIGHT_MLO_2"}


def write_dicom(path, shape, bits):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = *shape, bits
    dataset.BitsStored, dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = bits, bits - 1, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.zeros(shape, f"uint{bits}").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def dated(root, name, file):
    return root / "CBIS-DDSM" / name / "08-07-2016-DDSM-84313" / "1.000000-images-68352" / file


def uid(root, name, file):
    return root / name / "1.3.6.1.4.1.9590.100.1.2.1" / f"1.3.6.1.4.1.9590.100.1.2.{2 + int(file[2])}" / file


@pytest.fixture(params=[dated, uid])
def layout(request):
    return request.param


@pytest.fixture
def download(tmp_path, layout):
    """Every image of the excerpt with mask and crop, in either order, two of the traps among them."""
    for name in TABLES:
        (tmp_path / "tables").mkdir(exist_ok=True)
        shutil.copyfile(EXCERPT / name, tmp_path / "tables" / name)
    table = descriptions()
    for folder in table["folder"].unique():
        write_dicom(layout(tmp_path, folder, "1-1.dcm"), (50, 20), 16)
    for n, folder in enumerate(table["mask_folder"]):
        mask, crop = ("1-1.dcm", "1-2.dcm") if n % 2 else ("1-2.dcm", "1-1.dcm")
        write_dicom(layout(tmp_path, folder, mask), (50, 20), 8)
        write_dicom(layout(tmp_path, folder, crop), (12, 9), 8 if n % 3 else 16)
    return tmp_path


def rows_and_bits(path):
    header = read_header(Path(path))
    return header.rows, header.bits


def test_images_and_masks_are_found_whatever_their_order(download):
    table = cbis_table(download)
    assert len(table) == 21
    assert {rows_and_bits(path) for path in table["path"]} == {(50, 16)}
    masks = [lesion.path for lesions in table["lesions"] for lesion in lesions]
    assert len(masks) == 28
    assert {rows_and_bits(path) for path in masks} == {(50, 8)}
    for row in table.itertuples():
        assert row.patient_id in row.path
        assert all(row.image_id in path for path in (row.path, *(lesion.path for lesion in row.lesions)))
    assert set(table["laterality"]) == {"L", "R"}
    assert table["lesions_known"].all()


def test_a_lesion_has_the_type_of_its_table(download):
    rows = [(row, name[:4]) for name in TABLES for row in pd.read_csv(EXCERPT / name).to_dict("records")]
    expected = {row["ROI mask file path"].split("/")[0].strip(): kind for row, kind in rows}
    lesions = [lesion for lesions in cbis_table(download)["lesions"] for lesion in lesions]
    assert len(lesions) == len(expected)
    for lesion in lesions:
        (kind,) = {expected[part] for part in Path(lesion.path).parts if part in expected}
        assert lesion.type == {"mass": "mass", "calc": "calcification"}[kind]


def test_a_link_back_into_the_download_changes_nothing(download):
    before = cbis_table(download)
    (download / "tables" / "all").symlink_to(download)
    pd.testing.assert_frame_equal(cbis_table(download), before)


def test_a_mask_of_another_size_is_taken_only_if_it_can_be_rescaled(download, layout):
    for name, shape in {"Mass-Test_P_00145_LEFT_CC_1": (45, 18), "Mass-Test_P_00145_LEFT_MLO_1": (45, 25)}.items():
        for file in ("1-1.dcm", "1-2.dcm"):
            path = layout(download, name, file)
            if rows_and_bits(path)[0] == 50:
                write_dicom(path, shape, 8)
    masks = cbis_table(download).set_index("image_id")["lesions"]
    assert [rows_and_bits(lesion.path) for lesion in masks["P_00145_LEFT_CC"]] == [(45, 8)]
    assert masks["P_00145_LEFT_MLO"] == ()


def test_one_unusable_mask_of_several_makes_the_mask_of_the_image_unknown(download, layout):
    table = descriptions()
    several = table[table.duplicated("folder", keep=False)].iloc[0]
    for file in ("1-1.dcm", "1-2.dcm"):
        layout(download, several["mask_folder"], file).write_bytes(b"half a download")
    images = cbis_table(download).set_index("path")
    masks = images["lesions"]
    chosen = [paths for path, paths in masks.items() if f"{several['folder']}/" in path]
    assert chosen == [()]
    assert sum(not paths for paths in masks) == 1
    assert images["lesions_known"].tolist() == [bool(paths) for paths in masks]


def test_of_two_folders_of_one_mammogram_the_one_that_exists_is_taken(download, layout):
    shutil.rmtree(layout(download, "Mass-Training_P_01840_RIGHT_MLO", "1-1.dcm").parents[2])
    table = cbis_table(download).set_index("image_id")
    assert "Calc-Training_P_01840_RIGHT_MLO" in table.loc["P_01840_RIGHT_MLO", "path"]


def test_missing_mammograms_are_counted_and_named_or_left_out_on_demand(download, layout):
    for name in ("Mass-Training_P_00001_LEFT_CC", "Calc-Test_P_00038_LEFT_CC"):
        shutil.rmtree(layout(download, name, "1-1.dcm").parents[2])
    with pytest.raises(
        LemlightError, match=r"2 of 21 mammograms are missing .*Mass-Training_P_00001_LEFT_CC.*allow_missing"
    ):
        cbis_table(download)
    assert len(cbis_table(download, allow_missing=True)) == 19


def test_no_mammogram_at_all_is_an_error_even_then(tmp_path):
    with pytest.raises(LemlightError, match="21 of 21 mammograms are missing"):
        cbis_table(tmp_path, tables=EXCERPT, allow_missing=True)


def test_missing_tables_are_listed_together(tmp_path):
    with pytest.raises(LemlightError, match="there is no folder"):
        cbis_table(tmp_path / "absent")
    shutil.copyfile(EXCERPT / TABLES[0], tmp_path / TABLES[0])
    with pytest.raises(LemlightError) as error:
        cbis_table(tmp_path)
    assert [name in str(error.value) for name in TABLES] == [False, True, True, True]


def test_two_versions_of_a_table_are_refused(tmp_path):
    shutil.copytree(EXCERPT, tmp_path / "one")
    shutil.copytree(EXCERPT, tmp_path / "two")
    (tmp_path / "two" / TABLES[1]).write_text("patient_id\n")
    with pytest.raises(LemlightError, match=f"{TABLES[1]} is there 2 times with different contents"):
        cbis_table(tmp_path)


def test_renamed_columns_and_unknown_values_are_listed_together(tmp_path):
    for name in TABLES:
        text = (EXCERPT / name).read_text()
        if name == TABLES[0]:
            text = text.replace("pathology", "diagnosis")
        if name == TABLES[1]:
            text = text.replace("BENIGN", "NORMAL").replace(",LEFT,", ",LINKS,")
        (tmp_path / name).write_text(text)
    (tmp_path / TABLES[2]).write_bytes(b"")
    with pytest.raises(LemlightError) as error:
        read_descriptions([tmp_path / name for name in TABLES])
    message = str(error.value)
    assert f"{TABLES[0]}: no column pathology" in message
    assert "unknown label" in message
    assert "unknown laterality" in message
    assert f"{TABLES[2]}: not readable" in message
