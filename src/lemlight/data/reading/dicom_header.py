"""What the header of a DICOM file says of a mammogram: side, view, spacing, turn, and whether it is a mammogram."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

VIEW_MEANINGS = {  # CID 4014; vendors hyphenate it at will, so only the letters count
    "craniocaudal": "CC",
    "mediolateral": "ML",
    "mediolateraloblique": "MLO",
    "lateromedial": "LM",
    "lateromedialoblique": "LMO",
    "craniocaudalexaggeratedlaterally": "XCCL",
    "craniocaudalexaggeratedmedially": "XCCM",
}


MENDED = {  # tags of the pixels: what a single grey mammogram has where they are needed, and what can be used
    "NumberOfFrames": (None, range(1, 2**31)),
    "SamplesPerPixel": (1, range(1, 5)),
    "PixelRepresentation": (0, range(2)),
    "PlanarConfiguration": (None, range(2)),
    "HighBit": (None, range(64)),
}


def mend_pixel_tags(dataset: Dataset) -> list[str]:
    """Remove tags of the pixels that are empty or invalid, put in what is needed, and say so, without their values."""
    notes = []
    for keyword, (needed, usable) in MENDED.items():
        try:
            value: Any = dataset[keyword].value if keyword in dataset else ""
            empty = value is None or value == ""
            good = not empty and int(value) in usable
        except Exception:  # whatever a broken value makes pydicom and Python raise
            empty = good = False
        if good:
            continue
        dataset.pop(keyword, None)
        if needed is not None:
            setattr(dataset, keyword, needed)
        if needed is not None or not empty:
            taken = "not used" if needed is None else f"{needed} taken"
            notes.append(f"a {keyword} that is {'missing' if empty else 'invalid'}: {taken}")
    return notes


def spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """Size of a pixel (row, column) in mm, at the detector where the file says; None where unknown or not above 0."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        try:
            row, column = (float(value) for value in dataset[keyword].value)
        except (KeyError, TypeError, ValueError):
            continue
        if 0 < row < math.inf and 0 < column < math.inf:
            return row, column
    return None


def laterality(dataset: Dataset) -> str:
    """Side of the breast, "L" or "R"; "" where the file does not say, or says both."""
    for keyword in ("ImageLaterality", "Laterality"):
        side = _text(dataset, keyword)
        if side in ("L", "R"):
            return side
    return ""


def view(dataset: Dataset) -> str:
    """Find the view ("CC", "MLO", ...) in ViewPosition, else the view code, else PatientOrientation; "" if nowhere.

    CBIS-DDSM keeps it in PatientOrientation, where the directions of the image axes should stand.
    """
    position = _text(dataset, "ViewPosition")
    if position:
        return position
    for code in _codes(dataset, "ViewCodeSequence"):
        meaning = re.sub("[^a-z]", "", _text(code, "CodeMeaning").lower())
        if meaning in VIEW_MEANINGS:
            return VIEW_MEANINGS[meaning]
    orientation = re.split(r"\\", _text(dataset, "PatientOrientation"))
    return next((part for part in orientation if part in ("CC", "MLO")), "")


def _text(dataset: Dataset, keyword: str) -> str:
    """The text of a tag in capitals, several values joined by a backslash; "" where it is missing or broken."""
    try:
        value = dataset.get(keyword)
    except Exception:  # whatever pydicom raises about a broken value
        value = None
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    return "\\".join(str(part).strip().upper() for part in parts)


def _codes(dataset: Dataset, keyword: str) -> list[Dataset]:
    items = dataset.get(keyword)
    return [item for item in items if isinstance(item, Dataset)] if isinstance(items, Sequence) else []


KIND_TAGS = (
    *("SOPClassUID", "Modality", "ImageType", "ViewPosition", "ViewCodeSequence", "PaddleDescription"),
    *("BodyPartExamined", "EstimatedRadiographicMagnificationFactor"),
)
DOUBT_TAGS = (*KIND_TAGS, "PresentationIntentType", "ImagePositionPatient", "PartialView", "ContrastBolusAgent")
OTHER_MODALITIES = {
    *("MR", "CT", "US", "PT", "NM", "XA", "RF", "IVUS", "IVOCT", "OPT", "OP", "ES", "XC", "SM", "GM", "BI", "TG"),
    *("SEG", "SR", "PR", "KO", "DOC", "RTIMAGE", "RTDOSE", "RTSTRUCT", "RTPLAN"),
}
KNOWN_MODALITIES = ("CR", "DX", "OT", "SC", "RG", "DR", "IO", "PX")  # further ones, of images that may be mammograms
PROJECTIONS = ("Digital X-Ray", "Computed Radiography", "Secondary Capture", "Digital Intra-Oral")
FROM_SLICES = re.compile("2D|C-?VIEW|(?<!TOMO)SYNTH")  # in ImageType: a 2-D view made of tomosynthesis slices
# Words of view modifiers (CID 4015), paddles and image types, and what they mean
NO_VIEW = {"SPECIMEN": "a specimen, no breast", "STEREO": "a stereotactic view", "BIOPSY": "a view of a biopsy"}
PARTIAL = {"MAG": "a magnification view", "SPOT": "a spot compression view"}
MODIFIERS = {  # SNOMED CT and SRT, where the words are in another language
    **dict.fromkeys(("399163009", "R-102D6"), "MAGNIFICATION"),
    **dict.fromkeys(("399055006", "R-102D7"), "SPOT"),
    **dict.fromkeys(("127457009", "G-8310"), "SPECIMEN"),
}
MAGNIFIED = 1.2  # times: a breast on its table is magnified by some 1.05


def not_a_mammogram(dataset: Dataset) -> str:
    """Say why a file is no 2-D mammogram, by its SOP class, Modality and kind of view; "" where nothing says so.

    A single-frame tomosynthesis slice is none; a 2-D view made of them is one, as `doubts` says.
    """
    storage, modality = UID(_text(dataset, "SOPClassUID")), _text(dataset, "Modality")
    kinds = _text(dataset, "ImageType")
    known = storage.name if storage.type == "SOP Class" else ""
    if ("Tomosynthesis" in known or "TOMO" in kinds) and not FROM_SLICES.search(kinds):
        return "a tomosynthesis slice, not a 2-D mammogram; leave it out"
    if known and not any(name in known for name in ("Mammography", "Tomosynthesis", *PROJECTIONS)):
        return f"{known.removesuffix(' Storage')}, no mammogram; leave it out"
    if modality in OTHER_MODALITIES:
        return f"Modality {modality}, no mammogram; leave it out"
    why = _meanings(dataset, NO_VIEW)
    return f"{why[0]}, not a view of the whole breast; leave it out" if why else ""


def for_processing(dataset: Dataset) -> bool:
    """Whether the pixels are raw detector values, as the intent says, or without one the storage class."""
    storage = UID(_text(dataset, "SOPClassUID"))
    told = _text(dataset, "PresentationIntentType") or (storage.name if storage.type == "SOP Class" else "")
    return told.upper().endswith("FOR PROCESSING")


def doubts(dataset: Dataset) -> Iterator[str]:
    """Say what makes a readable file an odd mammogram: another modality, raw values, a view of a part of the breast."""
    storage, modality = UID(_text(dataset, "SOPClassUID")), _text(dataset, "Modality")
    other = next((name for name in PROJECTIONS if storage.type == "SOP Class" and name in storage.name), "")
    if modality and modality != "MG":
        plain = modality if modality in KNOWN_MODALITIES else "unknown"  # others may be anyone's initials
        yield f"Modality {plain}, not MG: is it a mammogram?"
    elif other and not modality:
        yield f"{other} without a Modality: is it a mammogram?"
    if for_processing(dataset):
        yield "FOR PROCESSING: raw detector values look unlike the images FOR PRESENTATION"
    if re.search(f"TOMO|GENERATED|{FROM_SLICES.pattern[3:]}", _text(dataset, "ImageType")):
        yield "a 2-D view that was computed from tomosynthesis slices"
    if re.search("SCREEN|REPORT|DOSE", _text(dataset, "ImageType")):
        yield "a screen save or a report by its ImageType: is it a mammogram?"
    if not re.search("^$|BREAST|MAMM?A|BRUST|SEIN|SENO", _text(dataset, "BodyPartExamined")):
        yield "BodyPartExamined is not BREAST: is it a mammogram?"
    if _text(dataset, "ImagePositionPatient"):
        yield "a position in space, as slices have it: is it a mammogram?"
    parts = _meanings(dataset, PARTIAL)
    factor = _text(dataset, "EstimatedRadiographicMagnificationFactor")
    magnified = bool(re.fullmatch(r"\d+(\.\d*)?", factor)) and float(factor) >= MAGNIFIED
    parts += [PARTIAL["MAG"]] if magnified and PARTIAL["MAG"] not in parts else []
    parts += ["a partial view"] if _text(dataset, "PartialView") == "YES" else []
    if "SUBTRACTION" in _text(dataset, "ImageType") or _text(dataset, "ContrastBolusAgent"):
        yield "taken with contrast agent: it looks unlike a mammogram without"
    yield from (f"{what}: it shows a part of the breast" for what in parts)


def _meanings(dataset: Dataset, meanings: dict[str, str]) -> list[str]:
    """What the words say that ImageType, paddle, body part, view and its modifiers begin with."""
    texts = [_text(dataset, name) for name in ("ImageType", "PaddleDescription", "BodyPartExamined", "ViewPosition")]
    for code in _codes(dataset, "ViewCodeSequence"):
        for item in (code, *_codes(code, "ViewModifierCodeSequence")):
            texts += [_text(item, "CodeMeaning"), MODIFIERS.get(_text(item, "CodeValue"), "")]
    return [what for word, what in meanings.items() if any(re.search(f"(?<![A-Z]){word}", text) for text in texts)]


def quarter_turns(dataset: Dataset) -> int:
    """How often to turn the image counterclockwise by 90 degrees (0 to 3) for the chest wall to stand at a side.

    By PatientOrientation, the directions in which the rows and the columns go: a column towards A or P has the chest
    wall at the top or the bottom. An oblique or lateral view whose columns go to the head stands upside down.
    """
    row, _, column = _text(dataset, "PatientOrientation").partition("\\")
    if re.fullmatch("[APRLHF]{1,3}", row) and re.fullmatch("[APRLHF]{1,3}", column):
        if column[0] in "AP" and row[0] not in "AP":
            return 1 if column[0] == "A" else 3
        if row[0] in "AP" and column[0] == "H":
            return 2
    return 0
