"""Images found by content in files, folders and DICOMDIRs as they come from scanners and CDs, and their headers."""

import hashlib
import logging
import os
import re
import shutil

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.fileset import FileSet
from pydicom.uid import (
    AdvancedBlendingPresentationStateStorage,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    SegmentationStorage,
)

from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.writer import write_patient
from lemlight.data.reading.headers import read_headers
from lemlight.data.reading.io import find_images, read_image
from lemlight.errors import ImageError, LemlightError

NAME = "DOE^JANE"


@pytest.fixture(scope="module")
def mammograms(tmp_path_factory):
    """Four DICOM mammograms of one patient in as many transfer syntaxes."""
    folder = tmp_path_factory.mktemp("phantom")
    rows = write_patient(folder, PhantomSettings(patients=1, scale=0.25), 0)
    return [folder / row["path"] for row in rows]


@pytest.fixture
def cd(tmp_path, mammograms):
    """A CD with a DICOMDIR that names four mammograms, beside a viewer's icon."""
    folder = tmp_path / "cd"
    files = FileSet()
    for file in mammograms:
        files.add(file)
    files.write(folder)
    Image.new("L", (8, 8)).save(folder / "viewer.png")
    return folder


def png(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((5, 7), value, dtype=np.uint8)).save(path, format="PNG")
    return path


def found(path):
    return [image.path for image in find_images(path)]


def test_a_single_file_is_found_whatever_its_suffix(tmp_path, mammograms):
    for source, name in ((mammograms[0], "IM000001"), (png(tmp_path / "a.png"), "mammogram.dcm")):
        shutil.copy(source, tmp_path / name)
        (image,) = find_images(tmp_path / name)
        assert (image.path, image.is_dicom) == (tmp_path / name, source == mammograms[0])


def test_images_of_every_format_are_found_to_any_depth_and_sorted(tmp_path, mammograms):
    deep = tmp_path / "b" / "c" / "d" / "e"
    deep.mkdir(parents=True)
    shutil.copy(mammograms[0], deep / "IM1")
    files = [png(tmp_path / name) for name in ("z.png", "b/2.png", "b/10.png", "a b/ä.png")]
    for suffix in ("jpeg", "tiff", "pgm"):
        files.append(tmp_path / f"image.{suffix}")
        Image.new("L", (8, 8)).save(files[-1])
    assert found(tmp_path) == sorted([*files, deep / "IM1"], key=lambda file: file.parts)


def test_what_is_no_image_is_left_out_and_counted(tmp_path, mammograms, caplog, write_dicom):
    png(tmp_path / "image")
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "patients.csv").write_text("P2001,malignant\n")  # begins as a PGM does
    (tmp_path / "empty.dcm").touch()
    states = GrayscaleSoftcopyPresentationStateStorage, AdvancedBlendingPresentationStateStorage
    for number, storage in enumerate((SegmentationStorage, BasicTextSRStorage, *states)):
        write_dicom(tmp_path / f"{number}.dcm", np.zeros((4, 4), np.uint8), SOPClassUID=storage)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with caplog.at_level(logging.INFO):
        assert found(tmp_path) == [tmp_path / "image"]
    assert "2 DICOM without an image" in caplog.text
    assert "2 DICOM presentation states, which are not applied" in caplog.text
    assert "3 neither DICOM" in caplog.text
    assert "2 cannot be read" in caplog.text


def test_a_dicom_file_of_an_unknown_kind_is_left_to_the_reader(tmp_path, write_dicom):
    write_dicom(tmp_path / "private", np.zeros((4, 4), np.uint8), SOPClassUID="1.2.3.4")
    (tmp_path / "damaged").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\xff\xff")
    assert len(found(tmp_path)) == 2


def test_what_is_hidden_is_passed_over_unless_it_is_asked_for(tmp_path):
    kept = png(tmp_path / "a.png")
    for name in ("._a.png", ".mine/b.png", "folder/.c.png"):
        png(tmp_path / name)
    assert found(tmp_path) == [kept]
    assert found(tmp_path / ".mine") == [tmp_path / ".mine" / "b.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    outside = png(tmp_path / "outside" / "a.png")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "up").symlink_to(root)
    (root / "sub" / "higher").symlink_to(tmp_path)
    (root / "itself.png").symlink_to("itself.png")
    (root / "linked").symlink_to(outside.parent)
    (root / "twice").symlink_to(outside.parent)
    (root / "file.png").symlink_to(outside)
    assert found(root) == [root / "file.png", root / "linked" / "a.png"]


def test_image_ids_are_short_stable_and_tell_no_name(tmp_path):
    first, second = png(tmp_path / f"{NAME}_1.png", 1), png(tmp_path / f"{NAME}_2.png", 2)
    images = find_images(tmp_path)
    assert [image.path for image in images] == [first, second]
    assert images == find_images(tmp_path)
    for number, image in enumerate(images, start=1):
        content = hashlib.blake2b(image.path.read_bytes(), digest_size=3).hexdigest()
        assert image.image_id == f"image_{number:04d}_{content}"
    renamed = first.rename(tmp_path / "other.png")
    assert {i.path: i.image_id[-6:] for i in find_images(tmp_path)}[renamed] == images[0].image_id[-6:]
    shutil.copy(renamed, tmp_path / "twin.png")
    same = [image.image_id for image in find_images(tmp_path) if image.image_id[-6:] == images[0].image_id[-6:]]
    assert len(set(same)) == 2


@pytest.mark.parametrize("below", ["", "DICOMDIR"])
def test_a_dicomdir_names_the_images_of_a_cd(cd, below, mammograms):
    images = found(cd / below)
    assert len(images) == 4
    uids = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in mammograms}
    assert {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in images} == uids


def test_several_cds_in_one_folder_keep_to_themselves(cd, tmp_path):
    shutil.copytree(cd, tmp_path / "second")
    beside = png(tmp_path / "beside.png")
    images = found(tmp_path)
    assert len(images) == 9
    assert beside in images


@pytest.mark.parametrize("rename", [str.lower, lambda name: f"{name}.dcm", lambda name: f"{name};1"])
def test_a_dicomdir_finds_its_files_as_they_come_from_a_cd(cd, rename):
    for folder, subfolders, files in os.walk(cd, topdown=False):
        for name in files:
            if name not in ("DICOMDIR", "viewer.png"):
                os.rename(os.path.join(folder, name), os.path.join(folder, rename(name)))
        for name in subfolders:
            os.rename(os.path.join(folder, name), os.path.join(folder, name.lower()))
    assert len(found(cd)) == 4
    assert len(found(cd / "DICOMDIR")) == 4


def test_images_that_a_dicomdir_does_not_name_or_names_in_vain_are_reported(cd, caplog):
    found(cd)[2].unlink()
    assert len(found(cd)) == 3
    assert re.search(r"does not name 1 images in its folder", caplog.text)
    assert "names 1 images that are not there" in caplog.text


def test_a_dicomdir_whose_images_are_all_missing_is_refused_alone_and_passed_over_in_its_folder(cd, tmp_path, caplog):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(cd / "DICOMDIR", alone)
    with pytest.raises(LemlightError, match="of the 4 images that this DICOMDIR names none is there"):
        find_images(alone / "DICOMDIR")
    image = png(alone / "a.png")
    assert found(alone) == [image]
    assert "every image in its folder is taken" in caplog.text


def test_a_dicomdir_leads_nowhere_else(cd, tmp_path):
    png(tmp_path / "secret.png")
    records = pydicom.dcmread(cd / "DICOMDIR")
    images = [record for record in records.DirectoryRecordSequence if record.DirectoryRecordType == "IMAGE"]
    with disable_value_validation():
        images[0].ReferencedFileID = ["..", "secret.png"]
        images[1].ReferencedFileID = str(tmp_path / "secret.png")
        images[2].RecordInUseFlag = 0
        records.save_as(cd / "DICOMDIR")
    assert len(found(cd / "DICOMDIR")) == 1


def test_a_damaged_dicomdir_is_refused_alone_and_passed_over_in_its_folder(cd, caplog):
    whole = (cd / "DICOMDIR").read_bytes()
    start = whole.index(b"\x04\x00\x30\x14")  # the type of the first record gets a length beyond the file
    (cd / "DICOMDIR").write_bytes(whole[:start] + b"\x04\x00\x30\x14ZZ\xff\xff")
    with pytest.raises(LemlightError, match="DICOMDIR"):
        find_images(cd / "DICOMDIR")
    assert len(found(cd)) == 5
    assert "every image in its folder is taken" in caplog.text


def test_nothing_found_says_what_was_looked_at(tmp_path, write_dicom):
    with pytest.raises(LemlightError, match=r"no file or folder .*nowhere.*set input to"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(LemlightError, match="it holds no file"):
        find_images(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    write_dicom(tmp_path / "b", np.zeros((4, 4), np.uint8), ExplicitVRLittleEndian, SOPClassUID=SegmentationStorage)
    with pytest.raises(LemlightError, match=r"1 DICOM without an image .*; 1 neither DICOM"):
        find_images(tmp_path)
    with pytest.raises(LemlightError, match="1 neither DICOM"):
        find_images(tmp_path / "a.txt")


def test_nothing_of_a_header_is_logged(tmp_path, write_dicom, caplog):
    with disable_value_validation():
        write_dicom(tmp_path / "a", np.zeros((4, 4), np.uint8), PatientBirthDate="SECRET date")
    with caplog.at_level(logging.DEBUG):
        find_images(tmp_path)
    assert "Secret" not in caplog.text
    assert "SECRET" not in caplog.text


def test_a_deflated_file_is_inflated_no_further_than_the_limits(tmp_path, write_dicom, monkeypatch, limited):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((64, 48), np.uint16), DeflatedExplicitVRLittleEndian)
    parsed = []
    monkeypatch.setattr("lemlight.data.reading.io.pydicom.dcmread", lambda *given, **named: parsed.append(given))
    limited(decoded=1e-6)
    assert [image.path for image in find_images(tmp_path)] == [path]
    assert not parsed
    with pytest.raises(ImageError, match=r"limits\.decoded=1e-06"):
        read_image(path)


def test_a_file_of_any_size_costs_a_glance(tmp_path):
    cv2.imwrite(str(path := tmp_path / "huge.png"), np.full((40, 30), 7, np.uint16))
    before = find_images(path)[0].image_id
    os.truncate(path, 10**12)  # it takes no room on the disk
    assert find_images(path)[0].image_id != before
    with pytest.raises(ImageError, match=f"{path}: the file has 1000.0 GB, more than limits.decoded=1"):
        read_image(path)
    (header,) = read_headers([str(path)])
    assert (header.format, "1000.0 GB" in header.problem) == ("raster, too large", True)
