"""What the header of a mammogram says about its geometry: pixel spacing, laterality, view."""

import math
import re

from pydicom.dataset import Dataset

VIEW_MEANINGS = {  # CID 4014; vendors hyphenate it at will, so only the letters count
    "craniocaudal": "CC",
    "mediolateral": "ML",
    "mediolateraloblique": "MLO",
    "lateromedial": "LM",
    "lateromedialoblique": "LMO",
    "craniocaudalexaggeratedlaterally": "XCCL",
    "craniocaudalexaggeratedmedially": "XCCM",
}


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
    for code in dataset.get("ViewCodeSequence") or ():
        meaning = re.sub("[^a-z]", "", _text(code, "CodeMeaning").lower())
        if meaning in VIEW_MEANINGS:
            return VIEW_MEANINGS[meaning]
    orientation = re.split(r"\\", _text(dataset, "PatientOrientation"))
    return next((part for part in orientation if part in ("CC", "MLO")), "")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) else value
    return "\\".join(str(part).strip().upper() for part in parts)
