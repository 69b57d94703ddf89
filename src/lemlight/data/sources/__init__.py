"""The sources: one file per data set, each from its layout on disk to the same image table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from lemlight.data.sources.cbis import cbis_table
from lemlight.data.sources.folder import folder_table
from lemlight.errors import LemlightError


def _phantom(root: Path, **options: Any) -> pd.DataFrame:
    from lemlight.data.sources.phantom import PhantomSettings, phantom_table  # late: it reads itself back as a folder

    return phantom_table(root, PhantomSettings(**options))


SOURCES: dict[str, Callable[..., pd.DataFrame]] = {
    "cbis": cbis_table,
    "folder": folder_table,
    "phantom": _phantom,
}


def build_table(name: str, root: Path, **options: Any) -> pd.DataFrame:
    """Build the image table of the data set `name` below `root`; `options` are those of its source."""
    if name not in SOURCES:
        raise LemlightError(f"there is no data set {name!r}: choose {', '.join(sorted(SOURCES))}")
    return SOURCES[name](Path(root), **options)
