"""No patient, no image and no path in what a logger sends or in the files that docs/report.md says may be handed on.

Words are planted in every tag, column, name, path and message, and searched for in archives, base64, what is
compressed and what stands beside the pixels of pictures.
"""

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import PIL.Image
import pydicom
import pytest
from pydicom.datadict import DicomDictionary

from tests.layouts.drawing import save_stored
from tests.layouts.folder import breast, write_folder
from tests.layouts.run_folders import write_state

NAMES = ("patient", "image", "mask", "folder", "csv", "store", "run", "home")
VALUES = ("tag", "site", "density", "view", "lesion", "exam", "text", "error", "words", "syntax", "colour")
PLANTS = [f"planted{word}" for word in (*NAMES, *VALUES)]
PLACE = "1234567890"  # of a word, in tags that take numbers only
TEXTS = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "CS")
OF_THE_STUDY = {  # PS3.3 C.7.2.1 and C.7.2.2, outside of the groups 0010 and 0012; and that an image is lossy
    *("StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "LossyImageCompression"),
    *("ReferringPhysicianName", "ConsultingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy"),
    *("AdmittingDiagnosesDescription", "RequestingService", "ReasonForVisit", "PatientState"),
    *("AdmissionID", "ServiceEpisodeID", "ServiceEpisodeDescription", "LongitudinalTemporalEventType"),
}
PICTURES = {"sheet", "roc", "reliability", "curves", "overlays", "froc"}


@pytest.fixture(scope="module")
def run(lemlight_run, tmp_path_factory):
    """A sweep of one job with both loggers on data whose every name is planted; one breast in both train and test."""
    home = tmp_path_factory.mktemp("plantedhome")
    root = home / "plantedfolder"
    table = write_folder(root, name="plantedimage-{patient:02}-{side}.png", patient_id="plantedpatient^{patient}")
    table = pd.concat([plant_masks(root, table), plant_files(root)], ignore_index=True)
    words = {"site": "plantedsite", "density": "planteddensity", "view": "PLANTEDVIEW", "exam": "plantedexam"}
    table.assign(**words).to_csv(root / "plantedcsv.csv", index=False)
    data = ["dataset=folder", f"dataset.root={root}", "dataset.csv=plantedcsv.csv", f"store={home / 'plantedstore'}"]
    loggers = ["logger=all", "dataset.split.scheme=image", "examples=2"]
    sweep = home / "plantedrun"
    axes = ["pooling=choice(lem)", "loss.beta=choice(0.002)", f"hydra.sweep.dir={sweep}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(home / "data of wandb"))
        done = lemlight_run("train", "-m", *data, *loggers, *axes, folder=sweep, own_process=True)
    assert not (home / "data of wandb").exists()
    (job,) = sweep.glob("*/metrics.json")
    return dataclasses.replace(done, folder=job.parent)


def plant_masks(root, table):
    """Give every malignant image a lesion, so that there are overlays; the table with them."""
    mask = np.zeros((130, 90), np.uint8)
    mask[50:75, 20:40] = 255
    names = [f"plantedmask-{number:02}.png" if label else "" for number, label in enumerate(table["label"])]
    for name in filter(None, names):
        assert cv2.imwrite(str(root / name), mask)
    return table.assign(mask=[name or "none" for name in names])


def plant_files(root):
    """Files with the words in all that they can hold: tags by their kind, the file's head, comments; half are damaged.

    The tags that say what the pixels are stay as they are, but for one file each.
    """
    pixels, tags = breast(7, 1), {"PatientName": "plantedtag", "Manufacturer": "plantedtag"}
    needed = {"PhotometricInterpretation", "Modality", "SOPClassUID", "NumberOfFrames", "SpecificCharacterSet"}
    kinds: dict[str, dict[str, object]] = {"texts": {}, "numbers": {}}
    for tag, (kind, _, _, _, keyword) in DicomDictionary.items():
        if keyword and keyword not in needed and tag > 0x00080000:
            if kind in (*TEXTS, "DA", "TM", "DT", "AS"):
                kinds["texts"][keyword] = "plantedtag"
            elif kind in ("DS", "IS"):
                kinds["numbers"][keyword] = PLACE
    kinds |= {"modality": {"Modality": "PLANTEDTAG"}, "class": {"SOPClassUID": "plantedtag"}, "syntax": {}}
    kinds |= {"colours": {"PhotometricInterpretation": "PLANTEDCOLOUR"}, "frames": {"NumberOfFrames": PLACE}}
    kinds |= {"letters": {"SpecificCharacterSet": "ISO_IR 100"}}
    with pydicom.config.disable_value_validation():
        for name, more in kinds.items():
            save_stored(path := root / f"plantedimage-{name}.dcm", pixels + len(name), **tags | more)
            data = pydicom.dcmread(path)
            data.private_block(0x1235, "plantedtag", create=True).add_new(1, "LO", "plantedtag")
            data.file_meta.ImplementationVersionName = data.file_meta.SourceApplicationEntityTitle = "plantedtag"
            data.preamble = b"plantedtag".ljust(128, b"\0")
            data.save_as(path)
            written = path.read_bytes().replace(PLACE.encode(), b"plantedtag").replace(b"ISO_IR 100", b"plantedtag")
            if name == "syntax":
                written = written.replace(b"1.2.840.10008.1.2.1\0", b"plantedsyntax".ljust(20, b"1"), 1)
            path.write_bytes(written)
    (root / "plantedimage-words.pgm").write_bytes(b"P2 # plantedtext\n90 130\n255\n" + b"plantedtext " * 11700)
    picture = PIL.Image.fromarray((breast(8, 1) >> 8).astype(np.uint8))
    picture.save(root / "plantedimage-exif.jpg", comment=b"plantedtext")
    (root / "plantedimage-cut.tif").write_bytes(b"II*\0plantedtext")
    paths = sorted(
        path.name for path in root.glob("plantedimage-*") if path.stem.split("-")[1] in (*kinds, "words", "exif", "cut")
    )
    rows = {"path": paths, "label": 1, "patient": [f"plantedpatient {path}" for path in paths], "mask": "none"}
    return pd.DataFrame(rows).assign(lesion_id="")


def planted(content, words=PLANTS):
    """The words that stand in the content, however they are packed."""
    found = set()
    for part in map(bytes.lower, unpacked(content)):
        found |= {word for word in words if word.encode() in part or word.encode("utf-16-le") in part}
    return sorted(found)


def unpacked(content, depth=3):
    """The content, and what archives, compressed parts, base64 and pictures in it hold."""
    if content.startswith(b"PK\3\4") and depth:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield archive.comment
            for member in archive.infolist():
                yield member.filename.encode() + member.comment + member.extra
                yield from unpacked(archive.read(member), depth - 1)
        return
    yield content
    if not depth:
        return
    if content.startswith((b"\x89PNG", b"\xff\xd8")):
        with PIL.Image.open(io.BytesIO(content)) as picture:
            picture.load()
            yield repr((picture.info, dict(picture.getexif()))).encode()
        return
    for found in re.finditer(rb"base64,([\w+/=]+)", content):
        yield from unpacked(base64.b64decode(found[1]), depth - 1)
    for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", content):
        with suppress(zlib.error):
            yield zlib.decompressobj(47).decompress(memoryview(content)[found.start() :], 2**16)


def test_the_searcher_finds_words_in_whatever_they_are_packed_into(tmp_path):
    word = b"plantedtag"
    PIL.Image.new("L", (2, 2)).save(tmp_path / "a.jpg", comment=word)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", b"x" + zlib.compress(word * 3))
    packed = [b"page base64," + base64.b64encode((tmp_path / "a.jpg").read_bytes()), word.decode().encode("utf-16-le")]
    for content in (*packed, (tmp_path / "a.zip").read_bytes(), b"WORD: PlantedTag"):
        assert planted(content) == ["plantedtag"]
    assert planted(b"planted tag") == []


def test_the_words_are_planted(run):
    found = pd.read_csv(run.folder / "predictions.csv")
    assert found["patient_id"].str.startswith("plantedpatient").all()
    assert found["image_id"].str.startswith("plantedimage").all()
    assert "plantedpatient" in (run.folder / "leaks.json").read_text()
    assert pd.read_csv(run.folder / "subgroups.csv")["value"].str.lower().str.contains("planted").all()
    left_out = pd.read_csv(run.folder / "left_out.csv")["image_id"]
    for name in ("syntax", "colours", "words", "cut"):
        assert f"plantedimage-{name}" in set(left_out)
    assert "plantedimage-frames" not in set(left_out)  # read without the tag, which a note names
    config = (run.folder / "config.yaml").read_bytes()
    assert planted(config) == ["plantedcsv", "plantedfolder", "plantedhome", "plantedrun", "plantedstore"]


def offline_run(run):
    (offline,) = (run.folder / "wandb").glob("offline-run-*")
    return offline


def read_back(run, *options):
    """What the offline run would send, by wandb's own command: an object for each line."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, offline_run(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_wandb_is_sent_figures_and_no_names(run):
    offline = offline_run(run)
    (file,) = offline.glob("*.wandb")
    records = read_back(run)  # in the file they are cut at blocks of 32 KiB
    for known in ("efficientnet_lite0", "test/acc", "val/loss", "train/loss", "lem-efficientnet_lite0-seed0"):
        assert known in records
    assert planted(records.encode() + file.read_bytes()) == []
    sent = [path for path in (offline / "files").rglob("*") if path.is_file()]
    assert {path.name.partition("_")[0] for path in sent if path.suffix == ".png"} == PICTURES
    for path in sent:
        assert planted(path.read_bytes()) == [], path.name
        assert planted(str(path.relative_to(offline)).encode()) == []


def test_the_run_has_a_comparable_name_a_group_and_tags(run):
    [record] = [line["run"] for line in map(json.loads, read_back(run).splitlines()) if line["type"] == "run"]
    assert record["display_name"] == "lem-efficientnet_lite0-seed0+loss.beta-0.002"
    assert record["job_type"] == "train"
    assert record["tags"] == ["folder"]
    assert record["run_group"].startswith("loss.beta-choice-0.002-+pooling-choice-lem-+")


def test_the_settings_can_be_filtered_and_the_figures_sorted(run):
    sent = json.loads(read_back(run, "--summary"))
    settings, summary = sent["config"], sent["summary"]
    choices = settings["choices"]
    assert [choices[group] for group in ("pooling", "backbone", "dataset")] == ["lem", "efficientnet_lite0", "folder"]
    assert (settings["dataset"]["split"]["fold"], settings["seed"]) == (0, 0)
    assert settings["loss"]["beta"] == 0.002
    assert not [key for key in settings if "." in key], "W&B cannot filter keys with dots in them"
    assert not any(isinstance(value, list) for value in leaves(settings))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    for name in ("auroc", "acc", "dsc", "pointing"):
        assert summary[f"test/{name}"] == pytest.approx(metrics[name]["value"])
    for bound in ("low", "high"):
        assert summary[f"test/acc_{bound}"] == pytest.approx(metrics["acc"][bound])


def leaves(values):
    return [leaf for value in values.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]


def test_the_table_of_predictions_names_images_by_their_row(run):
    (file,) = (offline_run(run) / "files" / "media" / "table" / "test").glob("*.table.json")
    table = json.loads(file.read_text())
    here = pd.read_csv(run.folder / "predictions.csv")
    assert table["columns"] == ["image", "label", "probability", "n_maxima", "n_minima"]
    assert [row[0] for row in table["data"]] == list(range(1, len(here) + 1))
    np.testing.assert_allclose([row[1:] for row in table["data"]], here[table["columns"][1:]], atol=1e-6)


def test_the_dashboard_names_nobody_and_no_folder(run, lemlight_run, tmp_path, monkeypatch):
    monkeypatch.setattr("lemlight.reporting.comparison.wandb_dashboard.logged_in", lambda: False)
    folder = tmp_path / "report"
    done = lemlight_run("report", f"runs='{run.folder}'", "to=wandb", folder=folder)
    assert f"wandb sync {offline_run(run)}" in done.out
    specification = (folder / "wandb_dashboard.json").read_bytes()
    assert b"test/overlays" in specification
    assert planted(specification) == []
    assert str(tmp_path).encode() not in specification
    assert planted((folder / "report.html").read_bytes()) == []


def test_tensorboard_is_sent_figures_and_no_names(run):
    files = [path for path in (run.folder / "logs" / "tensorboard").rglob("*") if path.is_file()]
    together = b"".join(path.read_bytes() for path in files)
    for known in (b"efficientnet_lite0", b"test/acc", b"val/loss", b"test/sheet"):
        assert known in together
    assert planted(together) == []
    assert [path.name for path in files if planted(path.name.encode())] == []


def test_the_page_names_nobody_and_no_folder(run):
    page = (run.folder / "report.html").read_bytes()
    assert b"patients are trained and tested on" in page
    assert b"dataset=folder" in page
    assert b"site: no. 1" in page
    assert planted(page) == []


def test_checkpoints_and_their_card_hold_none_of_it(run):
    files = sorted((run.folder / "checkpoints").iterdir())
    assert [path.name for path in files] == ["best.ckpt", "last.ckpt", "model_card.md"]
    here = [str(Path(__file__).parents[2]), str(Path.home()), sys.prefix]
    places = [place.lower() for place in here if len(place) > 1]
    for path in files:
        assert planted(path.read_bytes(), [*PLANTS, *places]) == [], path.name


def test_the_page_on_the_data_holds_none_of_it(run, lemlight_run):
    home = run.folder.parents[1]
    data = ["dataset=folder", f"dataset.root={home / 'plantedfolder'}", "dataset.csv=plantedcsv.csv"]
    done = lemlight_run("prepare", *data, f"store={home / 'plantedstore'}", "dataset.split.scheme=image")
    checked = lemlight_run("prepare", *data, "check_only=true", "dataset.split.scheme=image")
    for folder in (done.folder, checked.folder):
        for name in ("prepare.html", "inventory.json"):
            assert planted((folder / name).read_bytes()) == [], name


def test_evaluations_failed_runs_and_the_pages_over_them_hold_none_of_it(run, lemlight_run, tmp_path):
    home, runs = run.folder.parents[1], tmp_path / "plantedrun"
    checkpoint = run.folder / "checkpoints" / "best.ckpt"
    data = ["dataset=folder", f"dataset.root={home / 'plantedfolder'}", "dataset.csv=plantedcsv.csv", "split=all"]
    data += [f"store={home / 'plantedstore'}", f"checkpoint={checkpoint}"]
    runs.mkdir()
    evaluated = lemlight_run("evaluate", *data, folder=runs / "plantedhome").folder
    assert planted((evaluated / "report.html").read_bytes()) == []
    shutil.copytree(run.folder, runs / "run")
    write_state(runs / "plantedfolder", "failed", "plantederror in /plantedhome")
    damaged = runs / "damaged"
    damaged.mkdir()
    for name in ("config.yaml", "metrics.json", "predictions.csv"):
        (damaged / name).write_bytes((run.folder / name).read_bytes())
    (damaged / "leaks.json").write_text('{"scheme": "plantedwords"}')
    done = lemlight_run("report", f"runs={runs}", folder=tmp_path / "report")
    assert "plantederror" in done.out
    names = {path.name for path in done.folder.iterdir() if path.is_file()}
    shared = names & {"report.html", "hospitals.html", "table.csv", "table.md", "table.tex", "table_breast.csv"}
    assert {"report.html", "hospitals.html"} <= shared
    for name in shared:
        assert planted((done.folder / name).read_bytes()) == [], name


def test_pictures_and_maps_name_no_file(run, lemlight_run):
    root = run.folder.parents[1] / "plantedfolder"
    checkpoint = run.folder / "checkpoints" / "best.ckpt"
    done = lemlight_run("localize", f"input={root / 'plantedimage-texts.dcm'}", f"checkpoint={checkpoint}")
    written = [path for kind in ("overlays", "maps") for path in (done.folder / kind).iterdir()]
    assert {path.suffix for path in written} == {".png", ".npz"}
    for path in written:
        assert planted(path.read_bytes() + path.name.encode()) == [], path.name


def test_a_segmentation_repeats_patient_and_study_and_nothing_else(run, lemlight_run, tmp_path):
    source, checkpoint = tmp_path / "plantedimage.dcm", run.folder / "checkpoints" / "best.ckpt"
    with pydicom.config.disable_value_validation():
        data = pydicom.dcmread(run.folder.parents[1] / "plantedfolder" / "plantedimage-texts.dcm")
        data.StudyInstanceUID = data.SeriesInstanceUID = pydicom.uid.generate_uid()
        data.save_as(source)
        done = lemlight_run("localize", f"input={source}", f"checkpoint={checkpoint}", "dicom_seg=true", "threshold=0")
        (file,) = (done.folder / "segmentations").iterdir()
        assert planted(file.name.encode()) == []
        written = pydicom.dcmread(file)
        repeated = [element for element in written if planted(str(element).encode())]
        assert {"PatientID", "PatientName", "PatientBirthDate"} | OF_THE_STUDY <= {one.keyword for one in repeated}
        for element in repeated:  # 0010: the patient, 0012: a clinical trial
            assert element.tag.group in (0x0010, 0x0012) or element.keyword in OF_THE_STUDY, element.keyword
            del written[element.tag]
        written.save_as(file)
    assert planted(file.read_bytes()) == []
