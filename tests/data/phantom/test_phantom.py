"""The phantom: its settings, what is drawn and where, and its files: valid, the same bytes, nothing half-written."""

import errno
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.pixels import apply_voi_lut
from scipy import fft, ndimage
from sklearn.metrics import roc_auc_score

import lemlight.data.phantom.writer as writing
from lemlight.data.datasets.folder import folder as read_folder
from lemlight.data.phantom.patients import (
    BENIGN,
    MALIGNANT,
    PhantomSettings,
    draw_lesion,
    draw_patient,
    generator,
)
from lemlight.data.phantom.render import DRAWINGS, render
from lemlight.data.phantom.tissue import draw_anatomy, power_law_noise
from lemlight.data.phantom.writer import phantom, write_phantom
from lemlight.errors import LemlightError
from lemlight.files import locked

TINY = PhantomSettings(patients=5, seed=3, scale=0.25)
ONE = PhantomSettings(patients=1, seed=3, scale=0.25)
SMALL = PhantomSettings(seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0)
HEALTHY = PhantomSettings(seed=8, scale=0.25, malignant_share=0.0, benign_share=0.0)
BREASTS = [(side, view) for side in "LR" for view in ("CC", "MLO")]
PROGRAM = """
from pathlib import Path
import sys
from lemlight.data.phantom.writer import PhantomSettings, write_phantom
if __name__ == "__main__":
    settings = PhantomSettings(patients=int(sys.argv[2]), seed=3, scale=0.25)
    print(write_phantom(Path(sys.argv[1]), settings, workers=int(sys.argv[3])).name)
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patients", 0),
        ("patients", 2.5),
        ("seed", -1),
        ("difficulty", 1.01),
        ("difficulty", math.nan),
        ("scale", math.inf),
        ("benign_share", 2),
    ],
)
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(LemlightError, match=name):
        PhantomSettings(**{name: value})


def test_all_problems_are_named_at_once():
    with pytest.raises(LemlightError, match=r"phantom: patients=3: .*4; scale"):
        phantom("nowhere", 3, 0, 0.15, 8)


def test_the_folder_depends_on_every_setting():
    default = PhantomSettings()
    changes = {"patients": 3, "seed": 1, "difficulty": 0.1, "scale": 0.5, "malignant_share": 0.2, "benign_share": 0.2}
    assert set(changes) == set(default.stamp()) - {"generator_version"}
    names = {PhantomSettings(**{name: value}).folder_name() for name, value in changes.items()}
    assert len(names | {default.folder_name()}) == len(changes) + 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.45, 0.5]))
def test_any_run_of_patients_has_its_share_of_malignant_ones(seed, share):
    phantom = PhantomSettings(seed=seed, malignant_share=share)
    sides = [draw_patient(phantom, number).malignant_side for number in range(60)]
    assert abs(sum(map(bool, sides)) / 60 - share) < 0.06


def test_nothing_but_the_lesion_depends_on_the_label():
    healthy = PhantomSettings(seed=4, malignant_share=0.0, benign_share=0.0)
    ill = PhantomSettings(seed=4, malignant_share=1.0, benign_share=1.0)
    for number in range(20):
        without, with_lesion = draw_patient(healthy, number), draw_patient(ill, number)
        assert without.malignant_side == ""
        assert with_lesion.malignant_side in ("L", "R")
        assert {**vars(without), "malignant_side": ""} == {**vars(with_lesion), "malignant_side": ""}
        assert draw_lesion(healthy, without, "L") is None
        kinds = {side: draw_lesion(ill, with_lesion, side) for side in ("L", "R")}
        malignant = {
            side for side, lesion in kinds.items() if lesion.finding in ("spiculated_mass", "calcification_cluster")
        }
        assert malignant == {with_lesion.malignant_side}


@pytest.fixture(scope="module")
def renderings():
    return {(number, *breast): render(SMALL, number, *breast) for number in range(10) for breast in BREASTS}


def test_breast_is_brighter_than_air_in_one_piece_and_left_ones_lie_on_the_left(renderings):
    for (_, side, _), rendering in renderings.items():
        assert rendering.pixels.dtype == np.float32
        assert 0 <= rendering.pixels.min() < 0.02  # and not NaN
        assert 0.5 < rendering.pixels.max() <= 1
        assert ndimage.label(rendering.breast)[1] == 1
        air = rendering.pixels[~ndimage.binary_dilation(rendering.breast, iterations=3)]
        assert np.median(air) < 0.02
        assert rendering.pixels[rendering.breast].mean() > 0.15
        half = rendering.breast.shape[1] // 2
        left, right = rendering.breast[:, :half].sum(), rendering.breast[:, -half:].sum()
        assert (left > 2 * right) if side == "L" else (right > 2 * left)


def test_muscle_is_in_the_oblique_view_only(renderings):
    for (_, side, view), rendering in renderings.items():
        rows, columns = rendering.pixels.shape
        corner = np.s_[: rows // 20, : columns // 16] if side == "L" else np.s_[: rows // 20, -columns // 16 :]
        assert (rendering.pixels[corner].mean() > 0.25) == (view == "MLO")


def test_lesions_lie_in_the_breast_and_have_their_size(renderings):
    for rendering in renderings.values():
        assert not (rendering.mask & ~rendering.breast).any()
        assert 0.001 <= rendering.mask.sum() / rendering.breast.sum() <= 0.02
    assert {rendering.lesion.finding for rendering in renderings.values()} == {*MALIGNANT, *BENIGN}


def test_lesion_is_as_far_behind_the_nipple_in_both_views(renderings):
    for (number, side, view), rendering in renderings.items():
        if view == "CC":
            other = renderings[number, side, "MLO"]
            assert other.lesion == rendering.lesion
            depths = []
            for image in (rendering, other):
                columns = np.nonzero(image.mask.any(axis=0))[0]
                wall = columns if side == "L" else image.mask.shape[1] - 1 - columns
                depths.append(image.patient.depth - wall.mean() * image.spacing)
            assert depths[0] == pytest.approx(depths[1], abs=10)


def test_lesion_changes_nothing_far_from_it():
    for number in range(3):
        with_lesion, without = (render(settings, number, "R", "MLO") for settings in (SMALL, HEALTHY))
        assert without.lesion is None
        assert not without.mask.any()
        changed = with_lesion.pixels != without.pixels
        near = ndimage.distance_transform_edt(~with_lesion.mask) * with_lesion.spacing < 25
        assert changed.any()
        assert not (changed & ~near).any()


def test_same_arguments_same_bits_and_another_seed_another_image():
    first, second = (render(SMALL, 2, "L", "CC") for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    more = PhantomSettings(patients=7, seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0)
    assert np.array_equal(first.pixels, render(more, 2, "L", "CC").pixels)
    other = render(PhantomSettings(seed=9, scale=0.25), 2, "L", "CC")
    assert other.pixels.shape != first.pixels.shape or not np.array_equal(other.pixels, first.pixels)


def test_simple_statistics_of_an_image_tell_no_class():
    settings = PhantomSettings(seed=0, scale=0.25)
    patients = 40
    labels, statistics = [], []
    for number in range(patients):
        for side in "LR":
            image = render(settings, number, side, "CC")
            inside = image.pixels[image.breast]
            labels.append(side == image.patient.malignant_side)
            statistics.append([image.pixels.mean(), inside.mean(), inside.std(), image.breast.sum(), image.pixels.size])
    ill, healthy = sum(labels), len(labels) - sum(labels)
    deviation = math.sqrt((ill + healthy + 1) / (12 * ill * healthy))  # of the AUC of pure chance (Mann-Whitney)
    assert ill == pytest.approx(0.45 * patients, abs=2)
    for statistic in zip(*statistics, strict=True):
        assert abs(roc_auc_score(labels, statistic) - 0.5) < 3 * deviation


@pytest.mark.parametrize("finding", [*MALIGNANT, *BENIGN])
def test_contrast_falls_with_difficulty(finding):
    images = [(n, side) for n in range(10) for side in "LR" if finding_of(n, side) == finding][:2]
    assert images
    for number, side in images:
        base = render(HEALTHY, number, side, "CC").pixels
        added = []
        for difficulty in (0.0, 0.5, 1.0):
            phantom = PhantomSettings(seed=8, scale=0.25, malignant_share=0.5, benign_share=1.0, difficulty=difficulty)
            image = render(phantom, number, side, "CC")
            added.append(np.abs(image.pixels - base)[image.mask].mean())
        assert added[0] > 1.2 * added[1] > 1.44 * added[2] > 0


def finding_of(number, side):
    return draw_lesion(SMALL, draw_patient(SMALL, number), side).finding


def test_malignant_and_benign_masses_are_alike_in_size_and_brightness_and_apart_in_shape():
    values = {}
    for finding in ("spiculated_mass", "smooth_mass"):
        draw = DRAWINGS[finding][0]
        grid = draw_anatomy(generator(0, 0), draw_patient(PhantomSettings(), 0), "CC").grid
        bodies = [draw(generator(5, k), grid, (40.0, 120.0), 6.0, 0.5) for k in range(12)]
        values[finding] = [
            np.mean([mask.sum() for _, _, mask in bodies]),
            np.mean([value[mask].mean() for _, value, mask in bodies]),
            np.mean([np.ptp(value[np.abs(patch.radius - 8.5) < 0.3]) for patch, value, _ in bodies]),
        ]
    size, brightness, spikes = (a / b for a, b in zip(values["spiculated_mass"], values["smooth_mass"], strict=True))
    assert 0.7 < size < 1.4
    assert 0.7 < brightness < 1.4
    assert spikes > 2


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([2.0, 3.0]), st.integers(150, 300), st.integers(150, 300))
def test_noise_has_its_power_law(seed, beta, height, width):
    window, power = np.outer(np.hanning(height), np.hanning(width)), np.zeros((height, width))
    for rng in np.random.default_rng(seed).spawn(8):  # one image alone scatters by more than the tolerance
        noise = power_law_noise(rng, (height, width), beta)
        assert noise.shape == (height, width)
        power += np.abs(fft.fft2((noise - noise.mean()) * window)) ** 2
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)[None, :])
    bands = [(0.04, 0.06), (0.2, 0.3)]
    low, high = (power[(frequency > a) & (frequency < b)].mean() for a, b in bands)
    assert math.log(low / high) / math.log(5) == pytest.approx(beta, abs=0.35)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(tmp_path, root, patients, workers):
    script = tmp_path / "write_it.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), str(root), str(patients), str(workers)]
    path = os.pathsep.join([str(Path(writing.__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("phantom")


@pytest.fixture(scope="module")
def table(root):
    return read_folder(write_phantom(root, TINY, workers=1))


@pytest.fixture(scope="module")
def folder(root, table):
    return root / TINY.folder_name()


@pytest.fixture(scope="module")
def datasets(table):
    return [pydicom.dcmread(path) for path in table["path"]]


def test_table_has_four_images_of_every_patient(table):
    assert len(table) == 4 * TINY.patients
    for _, images in table.groupby("patient_id"):
        assert sorted(zip(images["laterality"], images["view"], strict=True)) == BREASTS
    assert table["image_id"].is_unique
    assert (table["split"] == "").all()


def test_label_belongs_to_one_breast_and_both_its_views(table, folder):
    findings = pd.read_csv(folder / "findings.csv").set_index("image_id")["finding"]
    malignant = table["image_id"].map(findings).isin(["spiculated_mass", "calcification_cluster"])
    assert (malignant == (table["label"] == 1)).all()
    breasts = table.groupby(["patient_id", "laterality"])["label"]
    assert (breasts.nunique() == 1).all()
    assert breasts.first().groupby("patient_id").sum().isin([0, 1]).all()
    assert 0 < breasts.first().sum() < TINY.patients


def test_a_folder_of_an_earlier_generator_is_left_alone_and_written_anew(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("lemlight.data.phantom.patients.GENERATOR_VERSION", 1)
        old = write_phantom(tmp_path, ONE, workers=1)
        before = contents(old)
    new = write_phantom(tmp_path, ONE, workers=1)
    assert new != old
    assert contents(old) == before


def test_a_mask_is_there_for_every_lesion_and_only_there(table, folder, datasets):
    findings = pd.read_csv(folder / "findings.csv").set_index("image_id")["finding"]
    assert {"normal"} < set(findings)
    assert table["lesions_known"].all()
    for image_id, masks, dataset in zip(table["image_id"], table["lesions"], datasets, strict=True):
        assert len(masks) == (findings[image_id] != "normal")
        for lesion in masks:
            assert lesion.type == ("calcification" if "calcification" in findings[image_id] else "mass")
            mask = np.asarray(Image.open(lesion.path))
            assert mask.shape == (dataset.Rows, dataset.Columns)
            assert set(np.unique(mask)) == {0, 255}


def test_every_kind_of_file_occurs(datasets):
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in datasets}) == 7
    assert {dataset.PhotometricInterpretation for dataset in datasets} == {"MONOCHROME1", "MONOCHROME2"}
    assert {dataset.BitsStored for dataset in datasets} == {12, 14}
    assert {dataset.get("VOILUTFunction") for dataset in datasets} == {None, "LINEAR", "SIGMOID"}
    assert len({(dataset.Rows, dataset.Columns) for dataset in datasets}) == 4
    assert all(dataset.Rows != dataset.Columns for dataset in datasets)


def test_what_a_viewer_shows_is_what_was_drawn(table, datasets):
    for (_, row), dataset in zip(table.iterrows(), datasets, strict=True):
        pixels = dataset.pixel_array
        assert pixels.max() < 2**dataset.BitsStored
        shown = apply_voi_lut(pixels, dataset).astype(float) / (2**dataset.BitsStored - 1)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = 1 - shown
        drawn = render(TINY, int(row["patient_id"][2:]) - 1, row["laterality"], row["view"])
        np.testing.assert_allclose(shown, drawn.pixels, atol=0.005)  # SIGMOID never quite reaches 0 and 1


def test_tags_are_valid_and_agree_with_the_table(table, datasets):
    for (_, row), dataset in zip(table.iterrows(), datasets, strict=True):
        assert dataset.SOPClassUID.name == "Digital Mammography X-Ray Image Storage - For Presentation"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        said = [dataset.PatientID, dataset.ImageLaterality, dataset.ViewPosition]
        assert said == list(row[["patient_id", "laterality", "view"]])
        assert dataset.ImagerPixelSpacing[0] * dataset.Rows == pytest.approx(246, abs=0.5)
        assert dataset.Modality == "MG"
        for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            assert getattr(dataset, name).is_valid
    assert len({dataset.SOPInstanceUID for dataset in datasets}) == len(table)
    assert len({dataset.StudyInstanceUID for dataset in datasets}) == TINY.patients


def test_files_are_the_same_bytes_with_any_number_of_workers(folder, tmp_path):
    again = write_phantom(tmp_path, TINY, workers=2)
    assert contents(again) == contents(folder)


def test_a_second_call_writes_nothing(root, folder, table, monkeypatch):
    monkeypatch.setattr(writing, "write_patient", None)
    again = phantom(root, TINY.patients, TINY.seed, TINY.difficulty, TINY.scale)
    assert again.drop(columns="lesions").equals(table.drop(columns="lesions"))
    for lesions, written in zip(again["lesions"], table["lesions"], strict=True):
        assert lesions == tuple(replace(lesion, id="1") for lesion in written)  # one in each breast, seen in both views


def full_at_the_second(folder, settings, number):
    if number == 1:
        raise OSError(errno.ENOSPC, "No space left on device")
    return write_patient(folder, settings, number)


def interrupted_at_the_second(folder, settings, number):
    if number == 1:
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)
    return write_patient(folder, settings, number)


write_patient = writing.write_patient


@pytest.mark.parametrize("failing", [full_at_the_second, interrupted_at_the_second])
def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, failing):
    monkeypatch.setattr(writing, "write_patient", failing)
    with pytest.raises((KeyboardInterrupt, LemlightError)) as caught:
        write_phantom(tmp_path, TINY, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [f".{TINY.folder_name()}.lock"]
    if failing is full_at_the_second:
        assert "No space left on device" in str(caught.value)
        assert "dataset.root" in str(caught.value)


def test_a_killed_writer_leaves_no_folder_and_hinders_nobody(tmp_path):
    root = tmp_path / "root"
    killed = start(tmp_path, root, 200, 2)
    deadline = time.monotonic() + 60
    while not list(root.glob(".*writing-*/images/PH0002")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    settings = PhantomSettings(patients=200, seed=3, scale=0.25)
    assert list(root.glob(".*writing-*")), "it was to be killed while it wrote"
    assert not (root / settings.folder_name()).exists()
    with locked(root / f".{settings.folder_name()}.lock", "writing"):  # the lock ended with its holder
        pass


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    leftover = tmp_path / f".{ONE.folder_name()}.writing-abc"
    leftover.mkdir()
    (leftover / "images.csv").write_text("half")
    write_phantom(tmp_path, ONE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{ONE.folder_name()}.lock", ONE.folder_name()]
