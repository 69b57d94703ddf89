"""What the sources of public data sets share: the files of a download, and one list of all that is wrong with it."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from lemlight.data.table import bullet_error, first_ten
from lemlight.errors import LemlightError

logger = logging.getLogger(__name__)


def files_of(root: Path, name: str) -> list[Path]:
    """List all files below root, sorted; hidden ones and what macOS leaves behind are passed over.

    Links are followed and a folder is read once. Raises LemlightError where there is no such folder or no file in it.
    """
    if not root.is_dir():
        raise LemlightError(f"there is no folder {root}: set dataset.root to the folder of the {name} download")
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(os.path.abspath(root), followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if folder[0] != "." and folder != "__MACOSX")
        found += [path for file in files if file[0] != "." and (path := Path(place, file)).is_file()]
    if not found:
        raise LemlightError(f"the folder {root} is empty: put the {name} download there, or set dataset.root")
    return sorted(found)


def read_text(path: Path) -> str:
    """Read a text file, in whatever encoding it is; LemlightError where the disk or its permissions refuse."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise LemlightError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


class Problems:
    """All that is wrong with a download, collected before anything is decoded.

    `wrong` makes it unusable; `incomplete` does so unless the user allows to go on without what is missing.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._wrong: list[str] = []
        self._incomplete: list[str] = []

    def wrong(self, what: str, items: Iterable[object]) -> None:
        """Note `what` if there are any items: nothing can be used before that is corrected."""
        self._wrong += _line(what, items)

    def incomplete(self, what: str, items: Iterable[object]) -> None:
        """Note `what` if there are any items: they can be left out."""
        self._incomplete += _line(what, items)

    def raise_any(self, allow_missing: bool) -> None:
        """Raise one LemlightError with everything noted; what may be left out is a warning with `allow_missing`."""
        if self._incomplete and allow_missing:
            logger.warning("%s: left out: %s", self.name, "; ".join(self._incomplete))
        fatal = self._wrong if allow_missing else [*self._wrong, *self._incomplete]
        if fatal:
            remedy = "finish the download, or set dataset.allow_missing=true to go on without these"
            last = [remedy] if self._incomplete and not allow_missing else []
            raise bullet_error(f"the {self.name} download in {self.root} cannot be used", [*fatal, *last])


def _line(what: str, items: Iterable[object]) -> list[str]:
    names = list(items)
    return [f"{what} ({len(names)}): {first_ten(names)}"] if names else []
