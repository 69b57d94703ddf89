"""The sources: one file per data set, each from its layout on disk to the same image table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.data.datasets.cbis import cbis_table
from lemlight.data.datasets.cmmd import cmmd_table
from lemlight.data.datasets.folder import folder_table
from lemlight.data.datasets.inbreast import inbreast_table
from lemlight.data.datasets.mias import mias_table
from lemlight.data.datasets.rsna import rsna_table
from lemlight.data.datasets.vindr import vindr_table
from lemlight.errors import LemlightError


def _phantom(root: Path, **options: Any) -> pd.DataFrame:
    from lemlight.data.phantom.files import phantom_table
    from lemlight.data.phantom.patients import PhantomSettings

    return phantom_table(root, PhantomSettings(**options))


SOURCES: dict[str, Callable[..., pd.DataFrame]] = {
    "cbis": cbis_table,
    "cmmd": cmmd_table,
    "folder": folder_table,
    "inbreast": inbreast_table,
    "mias": mias_table,
    "phantom": _phantom,
    "rsna": rsna_table,
    "vindr": vindr_table,
}


def build_table(name: str, root: Path, **options: Any) -> pd.DataFrame:
    """Build the image table of the data set `name` below `root`; `options` are those of its source."""
    if name not in SOURCES:
        raise LemlightError(f"there is no data set {name!r}: choose {', '.join(sorted(SOURCES))}")
    return SOURCES[name](Path(root), **options)
