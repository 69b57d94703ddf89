"""The phantom on disk: DICOM files (Digital Mammography, For Presentation), masks and tables, always the same bytes.

Layout: `<root>/phantom-<hash of the settings>/` with `images.csv` (as `dataset=folder` reads it), `findings.csv` (what
was drawn, of film too), `phantom.json` (the settings), `images/<patient>/<side>_<view>.dcm`,
`masks/<patient>/<side>_<view>.png`.
"""

import json
import os
import shutil
import tempfile
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import gdcm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
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

from lemlight.arguments import Probability, checked
from lemlight.data.datasets.folder import NO_LESION, folder
from lemlight.data.phantom.patients import (
    GENERATOR_VERSION,
    NORMAL,
    SIDES,
    VIEWS,
    Difficulty,
    PhantomSettings,
    Scale,
    Seed,
    VendorName,
    generator,
    in_turn,
)
from lemlight.data.phantom.render import Rendering, render
from lemlight.data.reading.isolated import given, map_isolated
from lemlight.errors import LemlightError
from lemlight.files import cores, locked
from lemlight.terminal import Progress

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
COLUMNS = ["image_id", "path", "label", "patient", "laterality", "view", "mask", "lesion_type"]
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
    if settings.vendor != "plain":
        dataset.Manufacturer = f"lemlight phantom, {settings.vendor}"
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


def write_phantom(root: Path, settings: PhantomSettings, workers: int | None = None) -> Path:
    """Write the phantom of these settings under `root`, unless it is there, and return its folder.

    workers: processes, None for one per core; the result does not depend on it. Safe with several processes at once and
    after a kill at any moment. LemlightError when the disk refuses.
    """
    folder = root / settings.folder_name()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{folder.name}.lock", f"writing {folder}"):
            if not folder.exists():
                _write_aside(folder, settings, workers or cores())
    except OSError as error:
        raise LemlightError(
            f"cannot write the phantom to {folder}: {error.strerror or error}; "
            "free some space there or choose another dataset.root"
        ) from error
    return folder


def _write_aside(folder: Path, settings: PhantomSettings, workers: int) -> None:
    """Write into a hidden folder beside and rename it; only one process at a time is here, by the lock."""
    prefix = f".{folder.name}.writing-"
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        aside.chmod(0o755)
        numbers = range(settings.patients)
        work = map_isolated(partial(write_patient, aside, settings), numbers, min(workers, len(numbers)))
        with closing(work):  # whatever happens, nobody writes any more when the folder is removed
            bar = Progress("writing the phantom", len(numbers), "patients").over(work)
            table = pd.DataFrame([row for rows in bar for row in given(rows)]).sort_values("image_id")
        table[COLUMNS].to_csv(aside / "images.csv", index=False)
        elsewhere = ["path", "mask", "lesion_type"] + ["film"] * (settings.film == 0)
        table.drop(columns=elsewhere).to_csv(aside / "findings.csv", index=False)
        (aside / "phantom.json").write_text(json.dumps(settings.stamp(), indent=2, sort_keys=True) + "\n")
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def write_patient(folder: Path, settings: PhantomSettings, number: int) -> list[dict[str, object]]:
    """Write the four images of patient `number` and the masks of their lesions; a row for each image."""
    return [_write_image(folder, settings, number, side, view) for side in SIDES for view in VIEWS]


def _write_image(folder: Path, settings: PhantomSettings, number: int, side: str, view: str) -> dict[str, object]:
    rendering = render(settings, number, side, view)
    patient, lesion = rendering.patient, rendering.lesion
    image = Path("images", patient.patient_id, f"{side}_{view}.dcm")
    mask = Path("masks", patient.patient_id, f"{side}_{view}.png")
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    write_dicom(folder / image, rendering, settings, number, side, view)
    if lesion is not None:
        (folder / mask).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rendering.mask.astype(np.uint8) * np.uint8(255)).save(folder / mask)
    return {
        "image_id": f"{patient.patient_id}_{side}_{view}",
        "path": image.as_posix(),
        "label": int(side == patient.malignant_side),
        "patient": patient.patient_id,
        "laterality": side,
        "view": view,
        "mask": NO_LESION if lesion is None else mask.as_posix(),
        "lesion_type": "" if lesion is None else "calcification" if "calcification" in lesion.finding else "mass",
        "finding": NORMAL if lesion is None else lesion.finding,
        "lesion_share": round(float(rendering.mask.sum() / rendering.breast.sum()), 6),
        "density": round(patient.density, 4),
        "film": rendering.film,
    }


@checked
def phantom(
    root: str | Path,
    patients: Annotated[int, Field(ge=4, le=9999)],
    seed: Seed,
    difficulty: Difficulty,
    scale: Scale,
    film: Probability = 0.0,
    vendor: VendorName = "plain",
) -> pd.DataFrame:
    """Build the image table of the phantom with these settings, written below `root` at the first call.

    Label: 1 for the images of a breast with a malignant lesion. A mask shows the
    lesion of its image, malignant or benign, of the type mass or calcification; a normal image is known to hold none,
    whatever else in it looks like one. No split is given. The arguments are explained at `PhantomSettings`.
    """
    settings = PhantomSettings(patients, seed, difficulty, scale, film=film, vendor=vendor)
    table = folder(write_phantom(Path(root), settings))
    return table.assign(lesions=table["lesions"].map(lambda lesions: tuple(replace(one, id="1") for one in lesions)))
