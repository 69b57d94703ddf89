"""Regions as a DICOM Segmentation that lies over its mammogram in any viewer that reads one (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lemlight.data.reading.dicom import quiet
from lemlight.errors import ImageError, LemlightError, as_image_error
from lemlight.files import open_file, written_aside

if TYPE_CHECKING:  # an optional extra: imported where it is used
    from highdicom.seg import SegmentDescription

NOTHING_REFERS = (
    "no Segmentation can refer to it ({}): its SOP class or its image tags are not those of a DICOM image; correct "
    "them or switch the Segmentations off"
)
INSTALL = "DICOM Segmentations need highdicom: pip install 'lemlight[dicom-seg]', or switch them off"
UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")  # type 1: nobody can make them up
EMPTY_IF_MISSING = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)  # type 2: there, but maybe without a value
OF_THE_IMAGE = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
SERIES_NUMBER = 100  # beyond those of a mammography study
TEXT = 64  # characters of a DICOM LO


def write_dicom_seg(
    source: Path,
    masks: NDArray[np.bool_],
    labels: Sequence[str],
    path: Path,
    *,
    algorithm: str,
    version: str,
    scores: Sequence[float],
) -> None:
    """Write regions as a binary Segmentation that refers to the mammogram `source`.

    masks: (K, H, W), K > 0, in px of the original, one segment each, which may overlap; labels: 1 to 64 ASCII
    characters each; scores: in [0, 1]. `algorithm` and `version` say what drew them. Every text says "research only".

    **The file is as confidential as its source:** it repeats the patient and the study, as DICOM demands. A mammogram
    has no position in the patient, so each px of a segment belongs to the px of the source in its place (A.51.5.1).
    No half a geometry: neither spacing nor frame of reference is repeated, as they make no plane without a position.

    Raises:
        ImageError: the source is no DICOM image, or lacks a UID that a reference needs.
        LemlightError: highdicom is not installed; no room on the disk.
    """
    with quiet("pydicom"), quiet("highdicom"):
        header = _read_source(source)
        check_highdicom()
        segments = [
            _describe(algorithm, version, number, label, score)
            for number, (label, score) in enumerate(zip(labels, scores, strict=True), start=1)
        ]
        with as_image_error(source, NOTHING_REFERS):
            segmentation = _segmentation(header, masks, segments, version)
        with written_aside(path) as aside:
            segmentation.save_as(aside)


def check_highdicom() -> None:
    """Raise LemlightError, which says how to get it, where highdicom is not installed: before the hours of a run."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise LemlightError(INSTALL) from error


def _read_source(source: Path) -> Dataset:
    with as_image_error(source, "not a DICOM file, or a damaged one ({}), to which no Segmentation can refer"):
        with open_file(source) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        missing = [keyword for keyword in (*UIDS, "Rows", "Columns") if not header.get(keyword)]
        frames = int(header.get("NumberOfFrames") or 1)
    if missing:
        raise ImageError(
            f"{source}: has no {', '.join(missing)}; a Segmentation must refer to them and they cannot be made up: "
            "export the image again, or switch the Segmentations off"
        )
    if frames > 1:
        raise ImageError(f"{source}: {frames} frames, not one mammogram; switch the Segmentations off for it")
    return header


def _describe(algorithm: str, version: str, number: int, label: str, score: float) -> SegmentDescription:
    import highdicom

    segment = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm[:TEXT], family=codes.DCM.ArtificialIntelligence, version=version[:TEXT]
        ),
        anatomic_regions=[codes.SCT.Breast],
    )
    segment.SegmentDescription = f"Score {score:.4f} of 0 to 1. Research only, not for clinical use."
    return segment


def _segmentation(
    header: Dataset, masks: NDArray[np.bool_], segments: list[SegmentDescription], version: str
) -> Dataset:
    """Let highdicom see the image but not the patient: it refuses and logs values that hospitals do write."""
    import highdicom

    image = Dataset()
    image.Modality = "MG"
    for keyword in (*UIDS, "Rows", "Columns", *OF_THE_IMAGE):
        if header.get(keyword):
            setattr(image, keyword, header[keyword].value)
    for keyword in EMPTY_IF_MISSING:
        setattr(image, keyword, None)
    segmentation = highdicom.seg.Segmentation(
        source_images=[image],
        pixel_array=np.moveaxis(masks, 0, -1)[None].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        series_instance_uid=generate_uid(prefix=None),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer="lemlight",
        manufacturer_model_name="lemlight",
        software_versions=version[:TEXT],
        device_serial_number="none",
        series_description="lemlight regions, RESEARCH ONLY",
        content_label="RESEARCH_ONLY",
        content_description="Suspicious regions. Research only, not for clinical use.",
        content_qualification="RESEARCH",
    )
    segmentation.copy_patient_and_study_information(header)  # as they stand, whatever their values
    if "SpecificCharacterSet" in header:
        segmentation.add(header["SpecificCharacterSet"])
    for keyword in EMPTY_IF_MISSING:
        if keyword not in segmentation:
            setattr(segmentation, keyword, None)
    orientation = header.get("PatientOrientation")  # two directions; CBIS-DDSM keeps the view there
    segmentation.PatientOrientation = orientation if isinstance(orientation, MultiValue) else None
    segmentation.ContentCreatorName = None
    return segmentation
