"""`dataset=phantom`: the embedded synthetic mammograms, written once and then read like any folder."""

from pathlib import Path

import pandas as pd

from lemlight.data.phantom.settings import PhantomSettings
from lemlight.data.phantom.writing import write_phantom
from lemlight.data.sources.folder import folder_table

__all__ = ["PhantomSettings", "phantom_table"]


def phantom_table(
    root: Path, settings: PhantomSettings, workers: int | None = None, progress: bool = True
) -> pd.DataFrame:
    """The image table of the phantom with these settings, written under `root` at the first call.

    Layout: `<root>/phantom-<hash of the settings>/` with `images.csv`, `images/<patient>/<side>_<view>.dcm` and
    `masks/<patient>/<side>_<view>.png`. Label: 1 for the images of a breast with a malignant lesion. A mask shows the
    lesion of its image, malignant or benign, of the type mass or calcification; a normal image is known to hold none,
    whatever else in it looks like one. No split is given.
    """
    return folder_table(write_phantom(root, settings, workers, progress))
