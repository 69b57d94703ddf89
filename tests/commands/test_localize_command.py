"""`python -m lemlight.localize` and `export` on real files: pictures, regions, maps, segmentations, what goes wrong."""

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import highdicom
import numpy as np
import onnx
import pandas as pd
import pydicom
import pytest

from lemlight.data.preparing.geometry import BreastGeometry
from lemlight.models.exported import METADATA_KEY
from lemlight.reporting import prediction_files


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
    source = tmp_path / "in"
    source.mkdir()
    for number, path in enumerate(dicoms):
        shutil.copy(path, source / f"{number}.dcm")
    whole = rows(lemlight_run("localize", best, f"input={source}"))
    calls = []

    write_files = prediction_files.write_files

    def ends_at_the_third(*arguments, **wanted):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write_files(*arguments, **wanted)

    monkeypatch.setattr(prediction_files, "write_files", ends_at_the_third)
    folder = tmp_path / "out"
    with pytest.raises(AssertionError):
        lemlight_run("localize", best, f"input={source}", folder=folder)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "predictions.csv", keep_default_na=False), whole[:2])
    monkeypatch.setattr(prediction_files, "write_files", write_files)
    with (folder / "predictions.csv").open("a") as file:
        file.write("image_0003_")  # cut off by a kill
    (folder / "maps" / f"{whole['image_id'][0]}.npz").unlink()
    done = lemlight_run("localize", best, f"input={source}", "resume=true", folder=folder)
    pd.testing.assert_frame_equal(rows(done), whole)
    assert "2 of 3 images were done before" in done.out
    assert len(list((folder / "maps").iterdir())) == 2  # what is done is not done again


def test_a_run_goes_on_with_the_same_settings_only_and_tries_again_what_failed(
    lemlight_run, refused, best, dicoms, tmp_path
):
    source, folder = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.dcm", "c.dcm"):
        shutil.copy(dicoms[0], source / name)
    (source / "b.dcm").write_bytes(dicoms[1].read_bytes()[:900])
    common = (best, f"input={source}", "maps=false", "resume=true")
    first = rows(lemlight_run("localize", *common, folder=folder))  # nothing there: it begins
    assert (first["error"] == "").tolist() == [True, False, True]
    assert "other settings (cutoff)" in refused("localize", *common, "cutoff=0.7", folder=folder)
    shutil.copy(dicoms[1], source / "b.dcm")
    second = rows(lemlight_run("localize", *common, folder=folder))
    assert (second["error"] == "").all()
    assert second["path"].tolist() == first["path"].tolist()
    pd.testing.assert_frame_equal(second.iloc[[0, 2]].astype(str), first.iloc[[0, 2]].astype(str))


def test_processes_and_batches_change_no_row_and_no_file(lemlight_run, done, best, mixed):
    options = (f'input="{mixed}"', "dicom_seg=true", "cutoff=0.2", "threshold=0", "workers=2")
    for other in (
        lemlight_run("localize", best, *options),
        lemlight_run("localize", best, *options[:-1], "batch_size=3"),
    ):
        table, expected = rows(other), rows(done)
        assert table["path"].tolist() == expected["path"].tolist()
        np.testing.assert_allclose(
            pd.to_numeric(table["probability"]), pd.to_numeric(expected["probability"]), rtol=1e-5
        )
        names = [sorted(str(path.relative_to(one.folder)) for path in one.folder.rglob("*")) for one in (other, done)]
        assert names[0] == names[1]
    picture = next((done.folder / "overlays").iterdir()).name
    assert (other.folder / "overlays" / picture).stat().st_size > 1000


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
        assert len(segmentation.SegmentSequence) == len(regions) == highdicom.seg.segread(file).number_of_segments
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


def test_bad_input_is_one_clear_message(refused, best, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no image in" in refused("localize", best, f"input={tmp_path / 'empty'}")
    assert "there is no file or folder" in refused("localize", best, f"input={tmp_path / 'nothing'}")
    said = refused("localize", best, "input=x", "method=gradcam")
    assert "method=gradcam: there is no such method (did you mean grad_cam?); there are importance, cam" in said
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((60, 50), np.uint8))
    assert "none of the 1 images could be read" in refused("localize", best, f"input={black}")


@pytest.fixture(scope="module")
def folder(dicoms, tmp_path_factory):
    root = tmp_path_factory.mktemp("in")
    for number, image in enumerate(dicoms):
        (root / f"{number}.dcm").write_bytes(image.read_bytes())
    return root


@pytest.fixture(scope="module")
def exported(lemlight_run, best, folder):
    return lemlight_run("export", best, f"input={folder / '0.dcm'}")


def test_the_file_and_its_metadata_are_left_and_the_difference_is_said(exported, trained):
    assert "probabilities of 6 images differ from the network's by at most" in exported.out
    metadata = json.loads((exported.folder / "metadata.json").read_text())
    assert metadata["preprocessing"] == {"height": 96, "width": 64, "crop": True, "flip": True}
    assert (metadata["threshold"], metadata["pooling"], metadata["label_names"]) == (
        0.4,
        "lem",
        ["benign", "malignant"],
    )
    words = (exported.folder / "model.onnx").read_bytes().decode("latin1")
    for place in (trained.folder, Path(__file__).parents[2], Path(sys.prefix)):
        assert str(place) not in words
    assert ".py" not in words  # no line of code
    assert "onnxscript" not in exported.out + exported.err  # nothing of its log


def test_localize_says_what_it_says_of_the_checkpoint(lemlight_run, exported, best, folder):
    common = (f"input={folder}", "overlays=false")
    done = lemlight_run("localize", f"checkpoint={exported.folder / 'model.onnx'}", *common)
    expected = lemlight_run("localize", best, *common, "method=cam")
    assert "method=cam: importance needs the checkpoint" in done.out
    found, wanted = (pd.read_csv(run.folder / "predictions.csv", keep_default_na=False) for run in (done, expected))
    assert found["image_id"].tolist() == wanted["image_id"].tolist()
    assert found["prediction"].tolist() == wanted["prediction"].tolist()
    np.testing.assert_allclose(found["probability"], wanted["probability"], atol=1e-4)
    for image_id in wanted["image_id"]:
        maps, reference = (np.load(run.folder / "maps" / f"{image_id}.npz") for run in (done, expected))
        for array in ("location_map", "score_map"):
            np.testing.assert_allclose(maps[array], reference[array], atol=1e-4)
        assert maps["geometry"] == reference["geometry"]


def test_what_an_exported_network_cannot_do_is_one_clear_message(refused, exported, folder):
    model = f"checkpoint={exported.folder / 'model.onnx'}"
    said = refused("localize", model, f"input={folder}", "method=grad_cam")
    assert "method=grad_cam goes back through the layers" in said
    assert "or the checkpoint" in said
    assert "run on the CPU" in refused("localize", model, f"input={folder}", "accelerator=gpu")
    for command in ("evaluate", "export"):
        assert "which only lemlight.localize takes" in refused(command, model)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"height": 16}, "height"), ({"_target_": "os.system"}, "_target_")],
)
def test_metadata_that_was_changed_is_refused_by_name(change, key, refused, exported, folder, tmp_path):
    model = onnx.load(exported.folder / "model.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    metadata["preprocessing"] |= change
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, tmp_path / "model.onnx")
    assert key in refused("localize", f"checkpoint={tmp_path / 'model.onnx'}", f"input={folder}")


def test_an_ensemble_gives_the_mean_probability_and_strength(lemlight_run, trained, dicoms):
    files = [trained.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    image, given = f"input={dicoms[0]}", ["smoothing=2", "keep=0", "cutoff=0.3", "follow=maxima"]
    alone = [lemlight_run("localize", f"checkpoint={file}", image, *given) for file in files]
    both = lemlight_run("localize", f"checkpoint=[{files[0]},{files[1]}]", image, *given)
    logits = [np.log(p / (1 - p)) for p in (rows(one)["probability"][0] for one in alone)]
    assert rows(both)["probability"][0] == pytest.approx(1 / (1 + np.exp(-np.mean(logits))), abs=1e-6)
    maps = []
    for done in (*alone, both):
        with np.load(next((done.folder / "maps").glob("*.npz"))) as arrays:
            maps.append(arrays["strength"].astype(float))
    mean = (maps[0] + maps[1]) / 2
    np.testing.assert_allclose(maps[2], mean / mean.max(), atol=0.01)
    assert "2 passes for each image" in both.out
