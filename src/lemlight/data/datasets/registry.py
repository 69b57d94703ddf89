"""The data sets by name; each is a function from its layout on disk to the image table."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.errors import LemlightError

NAMES = ("cbis", "cmmd", "folder", "inbreast", "mias", "phantom", "rsna", "vindr")


def source(name: str) -> Any:
    """Give the function that builds the image table of the data set `name`."""
    if name not in NAMES:
        raise LemlightError(f"there is no data set {name!r}: choose {', '.join(NAMES)}")
    module = "lemlight.data.phantom.files" if name == "phantom" else f"lemlight.data.datasets.{name}"
    return getattr(import_module(module), name)


def build_table(name: str, root: Path, **options: Any) -> pd.DataFrame:
    """Build the image table of the data set `name` below `root`; `options` are those of its function."""
    table: pd.DataFrame = source(name)(root, **options)
    return table
