"""The arrays of the prepared store as files: their whole space is taken first, then filled slot by slot."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lemlight.errors import LemlightError


def allocate(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Make a .npy file of zeros with all its space on the disk, unless it is there.

    Raises:
        LemlightError: the disk has not that much space; found now, not after hours of work.
    """
    if path.is_file():
        return
    aside = path.with_name(f".{path.name}.part")
    try:
        array = np.lib.format.open_memmap(aside, mode="w+", dtype=dtype, shape=shape)
        size = int(getattr(array, "offset", 0)) + array.nbytes
        del array
        with aside.open("r+b") as file:
            _take_space(file.fileno(), size)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise disk_error(path.parent, error, f"it needs {_gigabytes(_size(shape, dtype))}") from error


def write_slot(path: Path, slot: int, values: NDArray[Any]) -> None:
    """Write `values` as the entry `slot` of the array in `path`; by pwrite, for which a full disk is an error.

    Through a memory map it would be a signal that ends the process.
    """
    offset = _header_size(path) + slot * values.nbytes
    data = np.ascontiguousarray(values).data.cast("B")
    file = os.open(path, os.O_WRONLY)
    try:
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(file)


def disk_error(folder: Path, error: OSError, detail: str) -> LemlightError:
    """An error that says where the disk refused, how much is free, and what to do."""
    free = _gigabytes(shutil.disk_usage(folder).free) if folder.is_dir() else "nothing"
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return LemlightError(
        f"cannot write the prepared store in {folder}: {reason} ({detail}, {free} free); free some space or set "
        "store=DIR on another disk, then start again: what is done stays done"
    )


def _take_space(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot: go on without
            raise


def _header_size(path: Path) -> int:
    array = np.load(path, mmap_mode="r")
    return int(array.offset)


def _size(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
