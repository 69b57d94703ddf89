"""DICOMDIR, the list of the files on a CD: which image files it names, and which of them are there."""

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from lemlight.data.dicom import quiet
from lemlight.errors import ImageError

INACTIVE = 0  # Record In-use Flag, PS3.3 F.3.2.2


def named_images(directory: Path) -> tuple[list[Path], list[str]]:
    """Return the image files that a DICOMDIR names, in its order, and the names of those that are not there.

    A name is found in lower case and with a suffix, too: so do Linux and archives deliver CDs. A name that leads out
    of the folder of the DICOMDIR counts as not there. Raises ImageError where the DICOMDIR cannot be read.
    """
    with quiet():
        try:
            records = pydicom.dcmread(directory).get("DirectoryRecordSequence") or []
            names = [_parts(record) for record in records if _names_an_image(record)]
        except OSError as error:
            raise ImageError(f"{directory}: cannot be read ({error.strerror}); check its permissions") from error
        except Exception as error:  # pydicom raises whatever broken tags make Python raise; its text may hold values
            raise ImageError(
                f"{directory}: a damaged DICOMDIR ({type(error).__name__}); remove it, or give the folder of the images"
            ) from error
    found = {parts: _find(directory.parent, parts) for parts in names}
    there = [path for path in found.values() if path is not None]
    return there, ["/".join(parts) for parts, path in found.items() if path is None]


def _names_an_image(record: Dataset) -> bool:
    in_use = record.get("RecordInUseFlag") != INACTIVE
    return bool(in_use and record.get("DirectoryRecordType") == "IMAGE" and record.get("ReferencedFileID"))


def _parts(record: Dataset) -> tuple[str, ...]:
    name = record.ReferencedFileID
    return tuple(str(part) for part in name) if isinstance(name, MultiValue) else (str(name),)


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """Walk down from folder, part by part, whatever the case; the last part may have got a suffix."""
    if any(part in ("", ".", "..") or "/" in part for part in parts):
        return None
    for depth, part in enumerate(parts, start=1):
        exact = folder / part
        folder = exact if exact.exists() else _alike(folder, part, suffix=depth == len(parts)) or exact
    return folder if folder.is_file() else None


def _alike(folder: Path, name: str, suffix: bool) -> Path | None:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return None
    wanted = name.lower()
    for entry in entries:
        here = entry.name.lower().removesuffix(";1")  # the version number of ISO 9660
        if here == wanted or (suffix and here.startswith(f"{wanted}.")):
            return entry
    return None
