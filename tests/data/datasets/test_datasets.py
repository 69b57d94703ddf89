"""What all data sets have in common: the table is the truth, and a bad download is told at once and whole."""

from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.cbis import TABLES
from lemlight.data.datasets.common import list_files, read_rows
from lemlight.data.preparing.store import PrepareSettings, prepare
from lemlight.data.splits import split_table
from lemlight.errors import LemlightError
from tests.layouts.drawing import failure_of, save_mammogram

ALL = {"cmmd": {"normal_images": True}, "rsna": {"views": ["CC", "MLO", "AT"]}}  # options that take in every image
NAMES = ("cbis", "cmmd", "embed", "inbreast", "mias", "rsna", "vindr")
BUILD = {name: getattr(import_module(f"lemlight.data.datasets.{name}"), name) for name in NAMES}
WRITE = {name: getattr(import_module(f"tests.layouts.{name}"), f"write_{name}") for name in NAMES}
CSV = {  # the table, and a column without which it is of another version
    "cbis": (TABLES[0], "pathology"),
    "cmmd": ("CMMD_clinicaldata_revision.csv", "classification"),
    "embed": ("EMBED_OpenData_clinical.csv", "path_severity"),
    "inbreast": ("INbreast.csv", "Bi-Rads"),
    "rsna": ("train.csv", "cancer"),
    "vindr": ("breast-level_annotations.csv", "breast_birads"),
}
with_csv = pytest.mark.parametrize("name", CSV, indirect=True)
marked = pytest.mark.parametrize("name", ["cbis", "embed", "inbreast", "mias", "vindr"], indirect=True)


@pytest.fixture(scope="module", params=BUILD)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def written(name, tmp_path_factory):
    root = tmp_path_factory.mktemp(name)
    return root, WRITE[name](root, patients=8)


@pytest.fixture
def build(name):
    return lambda root, **options: BUILD[name](root, **ALL.get(name, {}) | options)


@pytest.fixture
def failure(build):
    return partial(failure_of, build)


@pytest.fixture
def csv(name, download):
    return next(download.rglob(CSV[name][0]))


def test_the_table_is_the_truth(name, written, truth, build):
    table = build(written[0]).set_index("image_id")
    assert set(table.index) == set(truth.index)
    if name not in ("cbis", "cmmd"):  # these are sorted by patient
        assert list(table.index) == list(truth.index)
    truth = truth.loc[table.index]
    for column in ("label", "laterality", "view", "split", "lesions_known"):
        missing = {"view": "MLO", "split": "", "lesions_known": False}.get(column)
        assert list(table[column]) == list(truth.get(column, [missing] * len(truth))), column
    patient = next(truth[column] for column in ("patient_id", "study_id", "patient") if column in truth)
    assert table.groupby("patient_id").ngroups == patient.nunique() == 8
    assert table.groupby(patient)["patient_id"].nunique().max() == 1
    types = [[lesion.type for lesion in lesions] for lesions in table["lesions"]]
    assert types == list(truth.get("types", [[]] * len(truth)))
    assert all(Path(path).is_file() for path in table["path"])


@marked
def test_every_lesion_is_drawn_where_it_is(written, truth, build):
    drawn = 0
    for row in build(written[0]).itertuples():
        for lesion, mask in zip(row.lesions, truth.loc[row.image_id, "masks"], strict=True):
            np.testing.assert_array_equal(lesion.draw(mask.shape)[0], mask)
            drawn += 1
    assert drawn >= 5


def test_prepared_masks_are_the_true_ones_in_the_prepared_geometry(written, truth, build, tmp_path, geometry_of):
    table = build(written[0]).iloc[:12]
    store = prepare(table, PrepareSettings(160, 96), tmp_path / "store", workers=1)
    assert store.left_out.empty
    assert len(store) == 12
    for i, image in enumerate(store.image_ids):
        mask, true = store.mask(i), truth.loc[image]
        assert (mask is None) == (not true.get("lesions_known", False))
        if mask is not None:
            small = [geometry_of(store, i).mask_to_prepared(lesion) > 0 for lesion in true["masks"]]
            np.testing.assert_array_equal(mask > 0, np.any([np.zeros(mask.shape, bool), *small], axis=0))
            for number, lesion in enumerate(small, 1):
                assert not (mask == number)[~lesion].any()
            assert list(store.lesion_types(i)) == true["types"]


def test_a_split_keeps_patients_apart_and_the_official_test_part(name, written, truth, build):
    official = name in ("cbis", "vindr")
    table = split_table(build(written[0]), "column" if official else "patient", seed=0).set_index("image_id")
    assert set(table["split"]) == {"train", "val", "test"}
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    if official:
        assert list(table["split"] == "test") == list(truth.loc[table.index, "split"] == "test")


def assert_same(build, *roots):
    """The images of two downloads are the same, wherever their files lie."""
    pd.testing.assert_frame_equal(*(build(root).drop(columns=["path", "lesions"]) for root in roots))


def test_links_hidden_files_and_a_folder_of_macos_change_nothing(written, download, build):
    image = Path(build(download).loc[0, "path"])
    (image.parent / f"0{image.name}").symlink_to("nowhere")
    (image.parent / "again").symlink_to(download)
    (image.parent / "itself").symlink_to("itself")
    (download / "above").symlink_to(download.parent)
    for hidden in (f"._{image.name}", f"__MACOSX/{image.name}"):
        (image.parent / hidden).parent.mkdir(exist_ok=True)
        (image.parent / hidden).write_bytes(b"\0")
    assert_same(build, download, written[0])


@with_csv
def test_a_table_that_a_spreadsheet_program_saved(written, download, build, name, csv):
    separator = ";" if name != "inbreast" else ","
    table = pd.read_csv(csv, dtype=str, keep_default_na=False, sep=None, engine="python")
    table[""] = ""
    table.to_csv(csv, sep=separator, index=False, encoding="utf-8-sig", lineterminator="\r\n\r\n")
    assert_same(build, download, written[0])


@with_csv
def test_numbers_as_a_german_spreadsheet_writes_them(name, written, download, build, csv):
    separator = ";" if name == "inbreast" else ","
    table = pd.read_csv(csv, dtype=str, keep_default_na=False, sep=separator)
    numbers = [column for column in table if table[column].str.fullmatch(r"\d+(\.\d+)?").all()]
    for column in {*numbers, "xmin", "ymin", "number", "File Name"} & {*table}:
        whole = table[column].str.fullmatch(r"\d+")
        table[column] = table[column].where(~whole, table[column] + ",0").str.replace(".", ",")
    lines = table.to_csv(index=False, sep=";", lineterminator="\r\n").splitlines()
    csv.write_text("\n".join(["sep=;", *lines, ";" * (len(table.columns) - 1)]), encoding="utf-8-sig")
    assert_same(build, download, written[0])


def test_no_folder_and_an_empty_one(failure, tmp_path):
    assert "there is no folder" in failure(tmp_path / "absent")
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert "is empty" in failure(tmp_path)


def test_a_folder_of_something_else(failure, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    message = failure(tmp_path, allow_missing=True)
    assert any(words in message for words in ("tables that are not in", "no table of", "there is no "))


def test_one_missing_image_is_named_and_left_out_on_demand(name, download, build, failure, caplog):
    whole = build(download)
    gone = whole.loc[whole["label"] == 1].iloc[-1]
    Path(gone["path"]).unlink()
    stem = Path(gone["path"]).stem
    kept = build(download, allow_missing=True)
    if name == "cmmd":  # its table does not say which images a breast has
        assert "patients with fewer images than the table says (1)" in caplog.text
    else:
        message = failure(download)
        assert {"cbis": gone["image_id"], "inbreast": stem.split("_")[0]}.get(name, stem) in message
        assert "finish the download, or set dataset.allow_missing=true" in message
        assert "left out: " in caplog.text
    assert set(whole["image_id"]) - set(kept["image_id"]) == {gone["image_id"]}


def test_no_image_at_all_is_an_error_even_if_images_may_be_missing(download, failure):
    for path in [path for path in download.rglob("*") if path.suffix in (".dcm", ".dicom", ".pgm")]:
        path.unlink()
    message = failure(download)
    assert "without a" in message
    assert "set dataset.allow_missing=true" in message
    assert "no image of" in failure(download, allow_missing=True)


@with_csv
def test_a_table_of_another_version_hides_nothing_else(name, download, failure, csv):
    csv.write_text(csv.read_text().replace(CSV[name][1], "Something"))
    save_mammogram(download / "stray" / "IMG.dcm", np.zeros((8, 8)), "")
    message = failure(download, allow_missing=True)
    assert f"no column {CSV[name][1]}" in message
    assert "Something" in message
    assert "IMG.dcm" in message
    assert "without a row" not in message


@with_csv
@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00", b"a,b\n1,2\n", b'patient_id,"image'])
def test_a_file_that_is_not_the_table(download, failure, csv, content):
    csv.write_bytes(content)
    assert "the table" in failure(download) or "tables that cannot be used" in failure(download)


@with_csv
def test_a_table_without_rows_and_one_that_is_cut_short(download, failure, csv):
    whole = csv.read_bytes()
    csv.write_bytes(whole.splitlines()[0])
    assert "has no rows" in failure(download)
    csv.write_bytes(whole[:-25])
    assert ", line " in failure(download) or "cells in line " in failure(download)


@with_csv
def test_two_versions_of_a_table_and_the_same_one_twice(download, build, failure, csv):
    (download / "copy").mkdir()
    copy = download / "copy" / csv.name
    copy.write_bytes(csv.read_bytes())
    assert len(build(download))
    head, rows = csv.read_text().split("\n", 1)
    copy.write_text("\n".join([head, rows.replace("1", "2", 40)]))
    assert "with different contents" in failure(download)


@with_csv
def test_a_table_that_the_disk_refuses(download, failure, monkeypatch, csv):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert "cannot be read (Permission denied)" in failure(download)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("inbreast", {"malignant_from": 7}, "malignant_from=7: must be less than or equal to 6"),
        ("inbreast", {"leave_out": ["7"]}, "leave_out"),
        ("vindr", {"leave_out": [6]}, "leave_out"),
        ("rsna", {"views": []}, "views"),
        ("rsna", {"views": ["XCC"]}, "must be 'CC', 'MLO'"),
        ("cbis", {"patient_disjoint": "no"}, "patient_disjoint=no: must be a valid boolean"),
        ("mias", {"normal_images": 3, "allow_missing": 3}, "normal_images=3.*allow_missing=3"),
    ],
)
def test_impossible_arguments_are_refused_by_name(tmp_path, source, options, message):
    with pytest.raises(LemlightError, match=f"{source}: .*{message}"):
        BUILD[source](tmp_path, **options)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(LemlightError, match=r"cannot be read \(Permission denied\)"):
        list_files(tmp_path, "X")


def rows_of(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_rows(path, ("a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1, x y \n007,NA\n",
        "A;b\r\n1;x y\r\n\r\n007;NA",
        b"\xef\xbb\xbfa\tb\t\n1\tx y\t\n\t\t\n007\tNA\t\n",
        '"a","b "\n"1","x y"\n\n\n"007","NA"\n',
        "sep=;\na;b\n1;x y\n007;NA\n",
        b'\xef\xbb\xbf"sep=|"\r\nA|b\r\n1|x y\r\n007|NA\r\n',
        "\u200ba,b\u00a0,,\n1\u200b,\ufeffx y,,\n\u200b,,,\n007,NA,,\n,,,\n,,,\n",
        'a,b\n="1",x y\n"=""007""",NA\n',
        ",a,,b,\n0,1,,x y,\n1,007,,NA,\n",
    ],
)
def test_cells_are_stripped_text_in_any_dialect(tmp_path, text):
    assert rows_of(tmp_path, text).to_dict("list") == {"a": ["1", "007"], "b": ["x y", "NA"]}


def test_a_spreadsheet_may_drop_cells_that_are_empty_and_not_needed(tmp_path):
    rows = rows_of(tmp_path, "a,b,split,mask\n1,2,test,m.png\n3,4\n5,6,\n")
    assert rows.fillna("").to_numpy().tolist() == [["1", "2", "test", "m.png"], ["3", "4", "", ""], ["5", "6", "", ""]]
    with pytest.raises(LemlightError, match="not 4 cells in line 3"):  # cut short
        rows_of(tmp_path, "a,b,split,mask\n1,2,test,m.png\n3,4,te")


def test_rows_are_named_by_their_line(tmp_path):
    assert list(rows_of(tmp_path, "sep=,\n\na,b\n1,2\n3,4\n").index) == [4, 5]
    assert list(rows_of(tmp_path, 'a,b\n1,2\n\n,,\n3,"4\n"\n5,6').index) == [2, 6, 7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column a, b: it has none"),
        ("x,b\n1,2\n", "no column a: it has x, b"),
        ("a,b,a\n1,2,3\n", "the column a twice"),
        ("a,b\n1,2\n3\n", "not 2 cells in line 3"),
        ("a,b\n1,2,3\n", "not 2 cells in line 2"),
        ("a,b\n", "no rows"),
        ('a,b\n1,"2\n', "line 2: this is no CSV"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, message):
    with pytest.raises(LemlightError, match=message):
        rows_of(tmp_path, text)
