"""The images that a file, a folder or a DICOMDIR holds, each under a name that tells nothing about a patient."""

import hashlib
import logging
import os
import stat
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, MediaStorageDirectoryStorage

from lemlight.data.dicom import quiet
from lemlight.data.dicom_directory import named_images
from lemlight.data.images import HEADER
from lemlight.data.raster import PNM, is_raster
from lemlight.errors import ImageError, LemlightError

# What a file is by its content; all but the first three are counted and left out.
DICOM = "DICOM image"
RASTER = "raster image"
DIRECTORY = "DICOMDIR"
NO_FORMAT = "neither DICOM (with its preamble) nor PNG, JPEG, TIFF, PGM or PPM"
NO_IMAGE = "DICOM without an image (a report, a segmentation, ...)"
UNREADABLE = "cannot be read (permissions, a broken link, no regular file)"
NOT_NAMED = "not named by the DICOMDIR in their folder"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundImage:
    """One image file. `image_id` is its place in the sorted list and six digits of a hash of its content."""

    path: Path
    image_id: str
    is_dicom: bool


def find_images(path: Path) -> list[FoundImage]:
    """Find the images of a file, a folder (to any depth) or a DICOMDIR, sorted by path.

    The content says what a file is, not its suffix. Hidden files and folders are passed over; links are followed, and
    a folder is read once. In a folder with a DICOMDIR the images are those that it names, unless none of them is there.
    What is left out or missing is counted in the log. File names may hold a patient's name and image_ids do not: only
    the caller knows both. Raises LemlightError where there is no such path or no image.
    """
    if not os.path.exists(path):  # unlike Path.exists, it takes a folder that may not be entered for one not there
        raise LemlightError(f"there is no file or folder {path}: set input to an image, a DICOMDIR or a folder of them")
    if path.is_dir():
        kinds = _walk(path)
        for directory in [file for file, kind in kinds.items() if kind == DIRECTORY]:
            _keep_named(directory, kinds)
    else:
        kinds = {path: _kind(path)}
        if kinds[path] == DIRECTORY:
            kinds |= {file: _kind(file) for file in _named(path)}
    skipped = Counter(kind for kind in kinds.values() if kind not in (DICOM, RASTER, DIRECTORY))
    counts = "; ".join(f"{count} {why}" for why, count in sorted(skipped.items())) or "it holds no file"
    images = sorted((file for file, kind in kinds.items() if kind in (DICOM, RASTER)), key=lambda file: file.parts)
    if not images:
        raise LemlightError(f"no image in {path}: {counts}")
    if skipped:
        log.info("left out: %s", counts)  # no path in any message: a folder may be named after a patient
    return [FoundImage(file, _image_id(n, file), kinds[file] == DICOM) for n, file in enumerate(images, start=1)]


def _walk(root: Path) -> dict[Path, str]:
    """Return what every file below root is."""
    kinds: dict[Path, str] = {}
    real = root.resolve()
    seen = {_identity(folder) for folder in (real, *real.parents)}  # a link to a folder above is a loop
    unreadable: list[OSError] = []
    for folder, subfolders, files in os.walk(root, onerror=unreadable.append, followlinks=True):
        below = {name: _identity(Path(folder, name)) for name in sorted(subfolders) if not name.startswith(".")}
        subfolders[:] = []
        for name, identity in below.items():
            if identity not in seen:
                seen.add(identity)
                subfolders.append(name)
        for name in files:
            if not name.startswith("."):
                kinds[Path(folder, name)] = _kind(Path(folder, name))
    if unreadable:
        log.warning("%d folders cannot be read: check their permissions", len(unreadable))
    return kinds


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _kind(path: Path) -> str:
    """Return what a file is by its first bytes; a damaged DICOM file is an image, reading it tells the rest."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return UNREADABLE
        with path.open("rb") as file:
            start = file.read(HEADER)
        if start[128:] != b"DICM":
            words = start.startswith(PNM) and not start[2:3].isspace() and start[2:3] != b"#"  # a text: P2001, ...
            return RASTER if is_raster(start) and not words else NO_FORMAT
        with quiet():
            storage = UID(read_file_meta_info(path).MediaStorageSOPClassUID)
    except OSError:
        return UNREADABLE
    except Exception:
        return DICOM
    if storage == MediaStorageDirectoryStorage:
        return DIRECTORY
    known_other = storage.type == "SOP Class" and "Image" not in storage.name
    return NO_IMAGE if known_other else DICOM


def _keep_named(directory: Path, kinds: dict[Path, str]) -> None:
    """Leave out the images in the folder of a DICOMDIR that it does not name (a viewer's icons), in place."""
    try:
        named = _named(directory)
    except LemlightError:
        log.warning("a DICOMDIR cannot be read: every image in its folder is taken")
        return
    here = {file.resolve() for file in named}
    around = [file for file, kind in kinds.items() if kind in (DICOM, RASTER) and directory.parent in file.parents]
    others = [file for file in around if file.resolve() not in here]
    kinds |= dict.fromkeys(others, NOT_NAMED)
    if others:
        log.warning("a DICOMDIR does not name %d images in its folder; give them alone to take them", len(others))


def _named(directory: Path) -> list[Path]:
    """Return the files that a DICOMDIR names and that are there; LemlightError where that is none."""
    there, missing = named_images(directory)
    if not there:
        raise ImageError(f"{directory}: of the {len(missing)} images that this DICOMDIR names none is there")
    if missing:
        log.warning("a DICOMDIR names %d images that are not there", len(missing))
    return there


def _image_id(number: int, path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=3)).hexdigest()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the disk and try again") from error
    return f"image_{number:04d}_{digest}"
