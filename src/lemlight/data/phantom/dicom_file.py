"""A rendering as a DICOM file: Digital Mammography X-Ray Image - For Presentation, the same bytes every time."""

from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lemlight.data.phantom.patient import SIDES, VIEWS, generator, in_turn
from lemlight.data.phantom.render import Rendering
from lemlight.data.phantom.settings import GENERATOR_VERSION, PhantomSettings

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
ORIENTATIONS = {("L", "CC"): ["A", "R"], ("R", "CC"): ["P", "L"], ("L", "MLO"): ["A", "FR"], ("R", "MLO"): ["P", "FL"]}
VIEW_CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}  # SNOMED CT


def write_dicom(path: Path, rendering: Rendering, settings: PhantomSettings, number: int, side: str, view: str) -> None:
    """Write one image of patient `number`; its transfer syntax is drawn without a look at the label."""
    place = (number * len(SIDES) + SIDES.index(side)) * len(VIEWS) + VIEWS.index(view)
    syntax = SYNTAXES[in_turn(settings, 1, place, len(SYNTAXES))]
    rng = generator(settings.seed, number, SIDES.index(side), VIEWS.index(view), 2)
    dataset = Dataset()
    _describe(dataset, settings, rendering, side, view)
    pixels = _store(rng, dataset, rendering)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        dataset.PixelData = encapsulate([_compress(pixels, dataset, syntax)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)


def _describe(dataset: Dataset, settings: PhantomSettings, rendering: Rendering, side: str, view: str) -> None:
    """Patient, study, series and acquisition; every UID follows from the settings."""
    patient = rendering.patient
    study = [repr(sorted(settings.stamp().items())), patient.patient_id]
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*study, "instance", side, view])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*study, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*study, "series"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[*study, "frame of reference"])
    dataset.PatientID = patient.patient_id
    dataset.PatientName = f"Phantom^{patient.number + 1:04d}"
    dataset.PatientSex, dataset.PatientBirthDate = "F", ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "120000", "1", ""
    dataset.ReferringPhysicianName = ""
    dataset.Modality, dataset.Manufacturer = "MG", "lemlight phantom"
    dataset.SoftwareVersions = str(GENERATOR_VERSION)
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1 + SIDES.index(side) * len(VIEWS) + VIEWS.index(view)
    dataset.PositionReferenceIndicator = ""
    dataset.PresentationIntentType, dataset.ImageType = "FOR PRESENTATION", ["DERIVED", "PRIMARY"]
    dataset.BodyPartExamined, dataset.ImageLaterality, dataset.ViewPosition = "BREAST", side, view
    dataset.OrganExposed, dataset.BreastImplantPresent, dataset.BurnedInAnnotation = "BREAST", "NO", "NO"
    dataset.PatientOrientation = ORIENTATIONS[side, view]
    code = Dataset()
    code.CodeValue, code.CodeMeaning = VIEW_CODES[view]
    code.CodingSchemeDesignator = "SCT"
    dataset.ViewCodeSequence = [code]
    dataset.ImagerPixelSpacing = [f"{rendering.spacing:.6f}"] * 2
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.LossyImageCompression = "00"


def _store(rng: np.random.Generator, dataset: Dataset, rendering: Rendering) -> NDArray[np.uint16]:
    """Turn display brightness into stored values, (H, W) uint16, and say in the tags how to turn it back."""
    device = rendering.patient.device
    full = 2**device.bits
    shown = 1 - rendering.pixels if device.photometric == "MONOCHROME1" else rendering.pixels
    stored = shown * np.float32(full - 1)
    if device.voi:
        width = full * float(rng.uniform(0.25, 0.33) if device.voi == "SIGMOID" else rng.uniform(0.6, 0.85))
        width, centre = round(width), round(full * float(rng.uniform(0.47, 0.53)))
        dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, device.voi
        if device.voi == "SIGMOID":
            safe = np.clip(shown, 0.004, 0.996)
            stored = centre + np.float32(width / 4) * np.log(safe / (1 - safe))
        else:
            stored = (shown - 0.5) * np.float32(width - 1) + np.float32(centre - 0.5)
    dataset.Rows, dataset.Columns = shown.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, device.photometric
    dataset.PresentationLUTShape = "INVERSE" if device.photometric == "MONOCHROME1" else "IDENTITY"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, device.bits, device.bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    return np.asarray(np.clip(np.rint(stored), 0, full - 1), dtype="<u2")


def _compress(pixels: NDArray[np.uint16], dataset: Dataset, syntax: UID) -> bytes:
    """One frame without loss in the given transfer syntax; GDCM writes all of ours, pydicom's own encoders do not."""
    writer = gdcm.ImageWriter()  # must outlive its image
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    photometric = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, dataset.BitsStored, dataset.HighBit, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(pixels.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError(f"GDCM could not write {syntax.name}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    parts = [fragments.GetFragment(i).GetByteValue().GetBuffer() for i in range(fragments.GetNumberOfFragments())]
    return b"".join(part.encode("utf-8", "surrogateescape") for part in parts)
