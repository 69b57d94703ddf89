"""Files that are there completely or not at all, large arrays on the disk, locks, and the cores of this machine."""

import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from omegaconf import OmegaConf

from lemlight.errors import LemlightError

if TYPE_CHECKING:  # --help needs no pandas
    import pandas as pd
    from numpy.typing import DTypeLike, NDArray


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to; it takes the name `path` only if the block succeeds.

    The folder is made if it is missing.

    Raises:
        LemlightError: the file cannot be written (no permission, a full disk, a file in the folder's place).
    """
    aside = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        why = error.strerror or error
        raise LemlightError(
            f"cannot write {path}: {why}; check that folder and the room on its disk; the old one is untouched"
        ) from error
    finally:
        with suppress(OSError):  # what hid the folder has been said already
            aside.unlink(missing_ok=True)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read; OSError for anything else: a pipe in its place would be waited for for ever."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


MOST_UNPACKED = 10**9  # bytes of an npz
MOST_BYTES, MOST_VALUES, DEEPEST = 2**25, 10**5, 50  # of a file with plain values


def read_plain(path: Path, parse: Callable[[str], Any] = json.loads, most: int = MOST_BYTES) -> Any:
    """Read JSON, or what another `parse` takes: plain values; ValueError for a file that is too large, deep or none."""
    with open_file(path) as file:
        data = file.read(most + 1)
    try:
        if len(data) > most:
            raise ValueError("too large")
        check_plain(values := parse(data.decode("utf-8")))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path.name} cannot be read") from error
    return values


def check_plain(values: Any) -> None:
    """Raise ValueError where nested values are too many or too deep; what an alias stands for counts each time."""
    left, count = [(values, 0)], 0
    while left:
        (value, depth), count = left.pop(), count + 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError("too many values, or too deep")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        left += ((one, depth + 1) for one in inner)


def read_arrays(path: Path) -> "dict[str, NDArray[Any]]":
    """Read an npz; it raises whatever there is for a damaged one, ValueError where it unpacks to more than a GB."""
    import numpy as np

    with open_file(path) as file:
        with ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_UNPACKED:
                raise ValueError("too large")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def write_yaml(values: Mapping[str, Any], path: Path) -> None:
    """Write plain values as YAML."""
    with written_aside(path) as aside:
        OmegaConf.save(OmegaConf.create(dict(values)), aside)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write plain values as JSON."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV; bytes of a file's name that are no UTF-8 become `\\udcfc`, so that any program reads it."""
    with written_aside(path) as aside:
        table.to_csv(aside, index=False, errors="backslashreplace")


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has not
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def allocate(path: Path, shape: tuple[int, ...], dtype: "DTypeLike") -> None:
    """Make a .npy file of zeros, unless it is there; a disk without that much space is found now, not hours later."""
    if path.is_file():
        return
    from numpy.lib.format import open_memmap

    aside = path.with_name(f".{path.name}.part")
    try:
        array = open_memmap(aside, mode="w+", dtype=dtype, shape=shape)
        start, size = int(array.offset), array.nbytes
        del array
        with aside.open("r+b") as file:
            _take_space(file.fileno(), start, size)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _take_space(file: int, start: int, size: int) -> None:
    """Make the disk keep the bytes of an open file from `start` on; where the system has no call for it, write them."""
    if hasattr(os, "posix_fallocate"):  # macOS has not
        try:
            os.posix_fallocate(file, 0, start + size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
                raise
    zeros = bytes(min(size, 2**24))
    os.lseek(file, start, os.SEEK_SET)
    while size:
        size -= os.write(file, zeros[:size])


def write_slot(path: Path, slot: int, values: "NDArray[Any]") -> None:
    """Write one entry of the array in a .npy file; not through a memory map, where a full disk ends the process."""
    import numpy as np

    start = int(np.load(path, mmap_mode="r").offset)
    with path.open("r+b") as file:
        file.seek(start + slot * values.nbytes)
        file.write(np.ascontiguousarray(values).data)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file while `what` is done; the system frees it when its holder ends, however it ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is {what}: waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
