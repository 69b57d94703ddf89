"""`python -m lemlight.localize` on real files: pictures, regions, maps, segmentations, and what goes wrong."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest

from lemlight.data.geometry import BreastGeometry
from lemlight.reporting import localization_results


@pytest.fixture(scope="module")
def best(trained):
    return f"checkpoint={trained.folder / 'checkpoints' / 'best.ckpt'}"


@pytest.fixture(scope="module")
def dicoms(trained, phantom):
    root = Path(phantom[1].partition("=")[2])
    return sorted(root.rglob("*.dcm"))[:3]


@pytest.fixture(scope="module")
def mixed(dicoms, tmp_path_factory):
    """A nested folder: two DICOM files, one without a suffix, a PNG, a JPEG, a text, a broken DICOM, a black image."""
    root = tmp_path_factory.mktemp("Jane Doe") / "in"
    (root / "deep" / "er").mkdir(parents=True)
    shutil.copy(dicoms[0], root / "one.dcm")
    shutil.copy(dicoms[1], root / "deep" / "er" / "IM0001")
    pixels = np.zeros((130, 90), np.uint8)
    pixels[20:110, :60] = np.random.default_rng(0).integers(90, 130, (90, 60))
    cv2.imwrite(str(root / "deep" / "film.png"), pixels)
    cv2.imwrite(str(root / "film.jpg"), pixels[:, ::-1])
    (root / "notes.txt").write_text("nothing")
    (root / "broken.dcm").write_bytes(dicoms[2].read_bytes()[:900])
    cv2.imwrite(str(root / "black.png"), np.zeros((60, 50), np.uint8))
    return root


@pytest.fixture(scope="module")
def done(lemlight_run, best, mixed):
    return lemlight_run("localize", best, f'input="{mixed}"', "dicom_seg=true", "cutoff=0.2", "threshold=0")


def rows(done):
    return pd.read_csv(done.folder / "predictions.csv", keep_default_na=False)


def test_one_bad_file_does_not_stop_the_rest(done):
    table = rows(done)
    bad = table[table["error"] != ""]
    assert len(table) == 6
    assert {Path(path).name for path in bad["path"]} == {"broken.dcm", "black.png"}
    assert "4 of 6 images read" in done.out
    assert all(reason in done.out for reason in bad["error"])


def test_a_name_that_is_no_utf8_has_its_row_like_any_other(lemlight_run, best, dicoms, tmp_path):
    for name in (b"one.dcm", b"zz_M\xfcller.dcm"):
        shutil.copy(dicoms[0], os.fsencode(tmp_path) + b"/" + name)
    (tmp_path / os.fsdecode(b"aa_M\xfcller.png")).write_bytes((tmp_path / "one.dcm").read_bytes()[:900])
    done = lemlight_run("localize", best, f"input={tmp_path}", own_process=True)
    table = rows(done)
    assert table["path"].str.rsplit("/", n=1).str[1].tolist() == [
        r"aa_M\udcfcller.png",
        "one.dcm",
        r"zz_M\udcfcller.dcm",
    ]
    assert (table["error"] == "").tolist() == [False, True, True]
    assert table["probability"][1] == table["probability"][2]
    assert "2 of 3 images read" in done.out


def test_rows_are_there_as_they_come(lemlight_run, best, dicoms, tmp_path, monkeypatch):
    for number, path in enumerate(dicoms):
        shutil.copy(path, tmp_path / f"{number}.dcm")
    whole = rows(lemlight_run("localize", best, f"input={tmp_path}"))
    calls = []

    def ends_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write_prediction(*arguments)

    write_prediction = localization_results.write_prediction
    monkeypatch.setattr(localization_results, "write_prediction", ends_at_the_third)
    folder = tmp_path / "out"
    with pytest.raises(AssertionError):
        lemlight_run("localize", best, f"input={tmp_path}", folder=folder)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "predictions.csv", keep_default_na=False), whole[:2])


def test_no_file_but_predictions_names_a_patient_or_a_path(done, dicoms):
    patients = {str(pydicom.dcmread(file, stop_before_pixels=True).PatientID) for file in dicoms}
    names = [str(path.relative_to(done.folder)) for path in done.folder.rglob("*")]
    assert not any(word in name for name in names for word in (*patients, "Jane", "film", "IM0001"))
    log = (done.folder / "localize.log").read_text()
    assert not any(word in log for word in (*patients, "Jane"))


def test_every_image_gets_its_picture_its_maps_and_its_regions(done):
    for row in rows(done).query("error == ''").itertuples():
        assert 0 <= float(row.probability) <= 1
        assert row.prediction in ("benign", "malignant")
        assert cv2.imread(str(done.folder / "overlays" / f"{row.image_id}.png")).std() > 0
        arrays = np.load(done.folder / "maps" / f"{row.image_id}.npz")
        geometry = BreastGeometry.from_dict(json.loads(str(arrays["geometry"])))
        assert arrays["strength"].shape == geometry.original_shape
        assert arrays["location_map"].shape == geometry.prepared_shape
        extrema = float(row.n_maxima) + float(row.n_minima)
        assert arrays["location_map"].sum() + float(row.lost_importance) == pytest.approx(
            extrema, abs=1e-3 * max(extrema, 1)
        )
        for region in json.loads(row.regions):
            assert arrays["strength"][round(region["peak_y"]), round(region["peak_x"])] > 0.1
            assert region["y0"] - 1 <= region["peak_y"] <= region["y1"]
            assert region["x0"] - 1 <= region["peak_x"] <= region["x1"]


def test_a_segmentation_opens_on_its_mammogram(done):
    table = rows(done).set_index("image_id")
    files = sorted((done.folder / "segmentations").glob("*.dcm"))
    assert files
    for file in files:
        row = table.loc[file.stem]
        source, segmentation = pydicom.dcmread(row["path"]), pydicom.dcmread(file)
        regions = [region for region in json.loads(row["regions"]) if region["evidence"] == "malignant"]
        assert len(segmentation.SegmentSequence) == len(regions)
        assert (segmentation.Rows, segmentation.Columns) == (source.Rows, source.Columns)
        named = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
        assert named.ReferencedSOPInstanceUID == source.SOPInstanceUID
        masks = np.atleast_3d(segmentation.pixel_array).reshape(-1, source.Rows, source.Columns)
        for mask, region in zip(masks, regions, strict=True):
            assert mask.sum() == pytest.approx(region["area_px"], rel=0.35, abs=60)
            assert mask[min(round(region["peak_y"]), source.Rows - 1), min(round(region["peak_x"]), source.Columns - 1)]


def test_a_region_of_an_image_predicted_benign_is_never_written_as_a_lesion(lemlight_run, best, dicoms):
    done = lemlight_run("localize", best, f"input={dicoms[0].parent}", "dicom_seg=true", "threshold=1", "maps=false")
    regions = [region for row in rows(done).itertuples() for region in json.loads(row.regions)]
    assert regions
    assert {(region["evidence"], region["score"]) for region in regions} == {("benign", None)}
    assert not (done.folder / "segmentations").exists()


def test_any_method_localizes_in_a_single_file(lemlight_run, best, dicoms):
    done = lemlight_run("localize", best, f"input={dicoms[0]}", "method=grad_cam_pp", "maps=false")
    (row,) = rows(done).itertuples()
    assert (row.n_maxima, row.n_minima) == (0, 0)
    assert not (done.folder / "maps").exists()
    assert len(list((done.folder / "overlays").iterdir())) == 1


def test_an_own_method_is_one_key_on_the_command_line(lemlight_run, best, dicoms):
    own = "+localization.methods.own._target_=tests.localization.test_evaluation.OwnMap"
    done = lemlight_run("localize", best, f"input={dicoms[0]}", own, "+localization.methods.own.power=2", "method=own")
    (maps,) = (done.folder / "maps").iterdir()
    assert np.load(maps)["location_map"].max() > 0


def test_maxima_and_minima_can_be_followed_whatever_the_prediction(lemlight_run, best, dicoms):
    counts = {}
    for follow in ("maxima", "minima", "both"):
        done = lemlight_run("localize", best, f"input={dicoms[0]}", f"follow={follow}", "keep=0", "overlays=false")
        (row,) = rows(done).itertuples()
        counts[follow] = row.n_maxima, row.n_minima
    assert counts["both"] == (counts["maxima"][0], counts["minima"][1])
    assert counts["maxima"][1] == counts["minima"][0] == 0
    assert sum(counts["both"]) > 0


def test_bad_input_is_one_clear_message(refused, best, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no image in" in refused("localize", best, f"input={tmp_path / 'empty'}")
    assert "there is no file or folder" in refused("localize", best, f"input={tmp_path / 'nothing'}")
    assert "input: a value is needed" in refused("localize", best)
    assert "cutoff" in refused("localize", best, "input=x", "cutoff=1.5")
    said = refused("localize", best, "input=x", "method=gradcam")
    assert "method=gradcam: there is no such method (did you mean grad_cam?); there are importance, cam" in said
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((60, 50), np.uint8))
    assert "none of the 1 images could be read" in refused("localize", best, f"input={black}")
