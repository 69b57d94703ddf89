"""What of a configuration may leave the machine."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

PATH_WORD = re.compile("(root|csv|table|path|file|folder|dir|store|output|resume|checkpoint|input)s?")


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy `config` without anything that names a file or folder: such keys, and under any key absolute paths and `..`.

    A key names one if one of its words (split at underscores) does: root, weights_file, output_dir. A section such as
    callbacks.checkpoint stays: only its own entries are looked at; and so does a number, as in output_stride.
    """
    return {
        str(key): _public(value)
        for key, value in config.items()
        if isinstance(value, Mapping | int | float) or not (names_a_path(str(key)) or _is_a_path(value))
    }


def place_of(dataset: Mapping[str, Any]) -> str:
    """A mark of the folder of a data set, by which it is known again and which does not name it."""
    return hashlib.blake2b(os.path.abspath(str(dataset.get("root"))).encode(), digest_size=4).hexdigest()


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public_config(value)
    if isinstance(value, list | tuple):
        return [_public(member) for member in value if not _is_a_path(member)]
    return value


def names_a_path(key: str) -> bool:
    """Tell whether the value of a key is a file or a folder, by the words of its name."""
    return any(PATH_WORD.fullmatch(word) for word in re.split(r"[^a-z0-9]+", key.lower()))


def _is_a_path(value: Any) -> bool:
    text = str(value)
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return (
        absolute
        or ".." in PurePosixPath(text).parts
        or text.startswith("~")
        or "://" in text
        or isinstance(value, PurePosixPath | PureWindowsPath)
    )


def public_override(override: str) -> bool:
    """Tell whether an override of the command line (`key=value`) may leave the machine: it names no file or folder."""
    key, _, value = override.lstrip("+~").partition("=")
    parts = [part for part in re.split(r"[\s,\[\]{}'\"]+", value) if part]
    return not names_a_path(key.rpartition(".")[2]) and not any(_is_a_path(part) for part in parts)
