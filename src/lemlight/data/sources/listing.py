"""The files of a large download: every folder is listed once, and no file is looked at."""

import os
from pathlib import Path, PurePath

from lemlight.errors import LemlightError

IMAGES = (".dcm", ".dicom")
LEFT_BEHIND = "__MACOSX"


def list_files(root: Path, name: str) -> list[str]:
    """List the absolute paths of all files below root, sorted; hidden ones are passed over.

    The entries of a folder say what they are, so that tens of thousands of files cost no call each. Links are followed
    and a folder is read once. Raises LemlightError where there is no such folder, none of its files, or no permission.
    """
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    folders = [os.path.abspath(root)]
    try:
        while folders:
            folder = folders.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # by way of a link
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                shown = [entry for entry in entries if entry.name[0] != "." and entry.name != LEFT_BEHIND]
            folders += sorted((entry.path for entry in shown if entry.is_dir()), reverse=True)
            found += [entry.path for entry in shown if entry.is_file()]
    except OSError as error:
        raise LemlightError(f"{error.filename} cannot be read ({error.strerror}); check its permissions") from error
    if not found:
        raise LemlightError(f"the folder {root} is empty: put the {name} download there, or set dataset.root")
    return sorted(found)


def ending(path: str) -> str:
    """Give the suffix of a file in lower case, with its dot."""
    return os.path.splitext(path)[1].lower()


def below(path: str, root: Path) -> str:
    """Name a file by its place below root."""
    return PurePath(os.path.relpath(path, os.path.abspath(root))).as_posix()
