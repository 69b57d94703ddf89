"""The list of the NCI Imaging Data Commons and how its series are fetched: idc-index, and s5cmd, which it brings."""

import importlib
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import pandas as pd

from lemlight.errors import LemlightError

FOLDER = ["collection_id", "PatientID", "StudyInstanceUID"]  # and Modality_SeriesInstanceUID, as the archive says
ADDRESS = "https://s3.amazonaws.com"  # where the Imaging Data Commons are kept
SILENCE = 60.0  # s without a byte after which a network is taken for none


class Index(Protocol):
    """What the Imaging Data Commons hold and how it is fetched; the package idc-index, or a stand-in of a test."""

    version: str

    def series(self, collection: str) -> pd.DataFrame:
        """List the series: FOLDER, Modality, SeriesInstanceUID and SeriesDescription, instanceCount, series_size_MB,
        license_short_name."""

    def fetch(self, series: Sequence[str], root: Path) -> None:
        """Fetch whole series into collection/PatientID/StudyInstanceUID/Modality_SeriesInstanceUID below `root`."""


def places(series: pd.DataFrame) -> "pd.Series[str]":
    """The folder of each series, below the root."""
    return series[FOLDER].agg("/".join, axis=1) + "/" + series["Modality"] + "_" + series["SeriesInstanceUID"]


class IdcIndex:
    """The package idc-index, whose list of everything needs no network."""

    def __init__(self) -> None:
        try:
            self._client: Any = importlib.import_module("idc_index.index").IDCClient()
        except ImportError as error:
            raise LemlightError(f"this needs a package ({error.name}): pip install 'lemlight[download]'") from error
        self.version = str(self._client.get_idc_version())

    def series(self, collection: str) -> pd.DataFrame:
        """List the series of a collection."""
        rows: pd.DataFrame = self._client.index
        return rows[rows["collection_id"] == collection]

    def fetch(self, series: Sequence[str], root: Path) -> None:
        """Fetch whole series with s5cmd, which the package brings along.

        The package's own call of it says nothing of errors, tries ten times, and waits for ever for an answer.

        Raises:
            ConnectionError: what s5cmd said of the network or of the disk, or no byte came for SILENCE seconds.
        """
        wanted = self._client.index.set_index("SeriesInstanceUID", drop=False).loc[list(series)]
        folders = [root / place for place in places(wanted)]
        lines = [
            f"cp {shlex.quote(url)} {shlex.quote(f'{folder}/')}\n"
            for url, folder in zip(wanted["series_aws_url"], folders, strict=True)
        ]
        with tempfile.TemporaryDirectory() as name:
            (plan := Path(name, "plan.txt")).write_text("".join(lines), encoding="utf-8")
            call = [self._client.s5cmdPath, "--no-sign-request", "--endpoint-url", ADDRESS, "--retry-count", "3"]
            with Path(name, "said.txt").open("w+", encoding="utf-8", errors="replace") as said:
                code = _run_while_bytes_come([*call, "run", str(plan)], folders, said)
                said.seek(0)
                if code:
                    _, found, errors = " ".join(said.read().split()).partition("ERROR ")
                    first = errors.partition(" ERROR ")[0].rpartition("caused by: ")[2]
                    raise ConnectionError(first if found else f"s5cmd ended with {code}")


def _run_while_bytes_come(call: Sequence[str], folders: Sequence[Path], said: IO[str]) -> int:
    """The exit code of a program that fills folders; ConnectionError where nothing comes any more."""
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=said)
    try:
        have, since = -1, time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(1)
            now = 0
            for file in (file for folder in folders for file in folder.glob("*")):
                with suppress(FileNotFoundError):  # it has another name by now
                    now += file.stat().st_size
            have, since = (have, since) if now == have else (now, time.monotonic())
            if time.monotonic() - since > SILENCE:
                raise ConnectionError(f"{ADDRESS} gave no byte for {SILENCE:g} s; is there a network?")
    finally:
        process.kill()
        process.wait()
