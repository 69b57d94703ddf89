"""Where public data sets come from: what a source holds, what of it is here, and how the rest is fetched.

A source has two methods: `describe` says what would come and what it costs, `fetch` does it and goes on where an
earlier one stopped. A source of one's own needs nothing but these.
"""

import gzip
import http.client
import importlib
import os
import shlex
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pandas as pd

from lemlight.arguments import checked
from lemlight.data.datasets.common import read_rows
from lemlight.data.table import first_ten
from lemlight.errors import LemlightError
from lemlight.files import write_csv
from lemlight.terminal import Progress

MANIFEST = "manifest.csv"
CHUNK = 10**9  # bytes that are fetched, then checked, at a time
SPARE = 10**9  # bytes that are to stay free on the disk
BLOCK = 2**20
UNPACKED = ".unpacked"  # where an archive is unpacked first
FOLDER = ["collection_id", "PatientID", "StudyInstanceUID"]  # and Modality_SeriesInstanceUID, as the archive says
ADDRESS = "https://s3.amazonaws.com"  # where the Imaging Data Commons are kept
SILENCE = 60.0  # s without a byte after which a network is taken for none
NETWORK = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException, ssl.SSLError)


class Source(Protocol):
    """Where a data set comes from."""

    def describe(self, root: Path, patients: int | None, seed: int) -> str:
        """Say what would be fetched into `root`, its licence and size; LemlightError if it cannot be."""

    def fetch(self, root: Path, patients: int | None, seed: int) -> str:
        """Fetch what is not there yet and say what is there; LemlightError names what is missing."""


@checked
class ImagingDataCommons:
    """A collection of the NCI Imaging Data Commons, which asks for no account.

    Regular expressions: `series` for the descriptions of those that are wanted, `patient` for the patient within the
    archive's PatientID, `stratum` for the groups that a part of the patients is drawn evenly from, in the PatientID or
    the description. `tables` are the files that the archive has not, to be had from
    `tables_from`; where they lie in the folder already, their columns of patient and label make strata as well.
    """

    def __init__(
        self,
        collection: str,
        citation: str,
        series: str = "",
        patient: str = ".+",
        stratum: str = "",
        tables: Sequence[str] = (),
        tables_from: str = "",
        patient_column: str = "",
        label_column: str = "",
        index: Any = None,
    ) -> None:
        self.collection, self.citation, self.wanted = collection, citation, series
        self.patient, self.stratum = patient, stratum
        self.tables, self.tables_from = list(tables), tables_from
        self.columns = [patient_column, label_column]
        self.index: IdcIndex = index or IdcIndex()

    def describe(self, root: Path, patients: int | None, seed: int) -> str:
        """Say licence, citation, patients, files and size, what of it is here, and which tables are missing."""
        chosen = self.choose(root, patients, seed)
        rest = chosen[~self.whole(chosen, root)]
        free = shutil.disk_usage(_existing(root)).free
        facts = {
            "collection": f"{self.collection} of the NCI Imaging Data Commons, version {self.index.version}",
            "licence": ", ".join(sorted(chosen["license_short_name"].unique())),
            "cite": self.citation,
            "images": f"{self._patients(chosen).nunique()} patients, {len(chosen)} series, "
            f"{chosen['instanceCount'].sum()} files, {_size(_bytes(chosen).sum())}",
            "to fetch": f"{len(rest)} series, {_size(_bytes(rest).sum())}; {_size(free)} free on the disk of {root}",
        }
        if absent := [name for name in self.tables if not any(root.rglob(name))]:
            facts["tables"] = f"not in the archive, and not in {root}: {', '.join(absent)}"
            facts[""] = f"get them from {self.tables_from} and put them there"
        return _lined_up(facts)

    def choose(self, root: Path, patients: int | None, seed: int) -> pd.DataFrame:
        """List the series of all patients, or of a number of them, drawn evenly from the strata by the seed.

        Raises:
            LemlightError: the index has no such collection, or fewer patients.
        """
        series = self._listed().sort_values("SeriesInstanceUID", ignore_index=True)
        if series.empty:
            raise LemlightError(f"the index {self.index.version} has no collection {self.collection}: update idc-index")
        if patients is None:
            return series
        names = self._patients(series)
        text = series["PatientID"] + " " + series["SeriesDescription"].fillna("")
        strata = text.str.extract(f"({self.stratum})", expand=False).fillna("").groupby(names).max()
        strata += self._labels(root).reindex(strata.index, fill_value="")
        if patients > len(strata):
            raise LemlightError(f"patients={patients}: {self.collection} has {len(strata)}; leave it out for all")
        order = np.random.default_rng(seed).permutation(len(strata))
        drawn = strata.iloc[order].groupby(strata)
        # the place in its stratum as a fraction: each gets its part, and more patients hold the fewer
        place = (drawn.cumcount() + 0.5) / drawn.transform("size")
        chosen = place.sort_values(kind="stable").index[:patients]
        return series[names.isin(chosen)]

    def fetch(self, root: Path, patients: int | None, seed: int) -> str:
        """Fetch the series that are not whole, then check number and bytes of the files of each.

        Raises:
            LemlightError: too little room, another version's manifest, or what could not be fetched.
        """
        chosen = self.choose(root, patients, seed)
        self._write_manifest(chosen, root)
        rest = chosen[~self.whole(chosen, root)]
        need, free = int(_bytes(rest).sum()), shutil.disk_usage(root).free
        if len(rest) and need + SPARE > free:
            raise LemlightError(
                f"{root}: {_size(need)} are to come and {_size(free)} are free; make room, or patients=20"
            )
        reasons = set()
        with Progress("fetching", need, "B", enabled=not rest.empty) as bar:
            for _, part in rest.groupby((_bytes(rest).cumsum() - 1) // CHUNK):
                try:
                    self.index.fetch(part["SeriesInstanceUID"].tolist(), root)
                except Exception as error:  # the package and the network can fail in any way
                    reasons.add(f"{type(error).__name__}: {error}")
                came = int(_bytes(part[self.whole(part, root)]).sum())
                bar.update(came)
                if not came:  # each further part would take minutes to fail as well
                    break
        missing = chosen[~self.whole(chosen, root)]
        if len(missing):
            raise LemlightError(
                f"{root}: {len(missing)} of {len(chosen)} series are missing or not whole "
                f"({first_ten(missing['PatientID'], 3)}){': ' if reasons else ''}{'; '.join(sorted(reasons))}; "
                "the same command goes on from here"
            )
        return f"{len(chosen)} series are there, each with the files and bytes that the archive lists"

    def whole(self, series: pd.DataFrame, root: Path) -> "pd.Series[bool]":
        """Whether the files of each series are there, by number and bytes."""
        sizes = [[file.stat().st_size for file in (root / place).glob("*.dcm")] for place in places(series)]
        found = pd.DataFrame({"files": [len(s) for s in sizes], "bytes": [sum(s) for s in sizes]}, series.index)
        return (found["files"] == series["instanceCount"]) & (found["bytes"] == _bytes(series))

    def _listed(self) -> pd.DataFrame:
        series = self.index.series(self.collection)
        return series[series["SeriesDescription"].fillna("").str.contains(self.wanted)] if self.wanted else series

    def _patients(self, series: pd.DataFrame) -> "pd.Series[str]":
        names = series["PatientID"].str.extract(f"({self.patient})", expand=False)
        return names.fillna(series["PatientID"])

    def _labels(self, root: Path) -> "pd.Series[str]":
        """Give `malignant` or `other` by patient, as the tables in the folder say; empty without them."""
        files = [file for name in self.tables for file in root.rglob(name)] if all(self.columns) else []
        if not files:
            return pd.Series(dtype=str)
        rows = pd.concat([read_rows(file, self.columns) for file in files])
        malignant = rows[self.columns[1]].str.lower().eq("malignant").groupby(rows[self.columns[0]]).any()
        return malignant.map({True: "malignant", False: "other"})

    def _write_manifest(self, chosen: pd.DataFrame, root: Path) -> None:
        """Write down what is to be here; refuse what another version of the archive has begun."""
        file = root / MANIFEST
        columns = ["SeriesInstanceUID", "instanceCount", "bytes", "version"]
        rows = chosen.assign(bytes=_bytes(chosen), version=self.index.version)
        if file.exists():
            try:
                before = pd.read_csv(file, dtype={"version": str})[columns]
            except (ValueError, KeyError) as error:
                raise LemlightError(f"{file} is no manifest of lemlight: set another root, or move it away") from error
            gone = ~before["SeriesInstanceUID"].isin(self._listed()["SeriesInstanceUID"])
            if gone.any() and set(before["version"]) != {self.index.version}:
                raise LemlightError(
                    f"{file} lists {gone.sum()} series that version {self.index.version} of the archive "
                    f"does not have (it was written with {', '.join(sorted(set(before['version'])))}): install that "
                    "version of idc-index, or fetch into an empty folder"
                )
            rows = pd.concat([before, rows]).drop_duplicates("SeriesInstanceUID", keep="last")
        root.mkdir(parents=True, exist_ok=True)
        write_csv(rows[columns], file)


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


@checked
class Command:
    """A data set behind an account, fetched by the tool that its site prescribes, with the user's own login.

    `login` are the files (with ~) and environment variables of which one must be there; `steps` say what to do first,
    `after` what then.
    """

    def __init__(
        self, command: Sequence[str], login: Sequence[str], steps: str, terms: str, citation: str, after: str = ""
    ) -> None:
        self.command, self.login, self.steps, self.after = list(command), list(login), steps, after
        self.terms, self.citation = terms, citation

    def describe(self, root: Path, patients: int | None, seed: int) -> str:
        """Say terms, citation and command; LemlightError with the steps where tool or login are missing."""
        _refuse_a_part(patients)
        if not any(Path(place).expanduser().exists() or place in os.environ for place in self.login):
            raise LemlightError(f"no login was found ({' or '.join(self.login)}): {self.steps}")
        if not shutil.which(self.command[0]):
            raise LemlightError(f"the program {self.command[0]} is not installed: {self.steps}")
        free = _size(shutil.disk_usage(_existing(root)).free)
        facts = {"terms": self.terms, "cite": self.citation, "command": " ".join(self._call(root))}
        return _lined_up(facts | {"disk": f"{free} free on the disk of {root}"})

    def fetch(self, root: Path, patients: int | None, seed: int) -> str:
        """Run the command; it goes on by itself where it stopped."""
        root.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(self._call(root), check=False)
        if done.returncode:
            raise LemlightError(
                f"{self.command[0]} ended with {done.returncode}, see above; the same command goes on. {self.steps}"
            )
        return f"{self.command[0]} has ended without an error{'; ' if self.after else ''}{self.after}"

    def _call(self, root: Path) -> list[str]:
        return [word.replace("ROOT", str(root)) for word in self.command]


@checked
class Archive:
    """A data set that is one public tar archive at `url`, which is fetched, goes on after a stop, and is unpacked."""

    def __init__(self, url: str, terms: str, citation: str, files: str, count: int) -> None:
        self.url, self.terms, self.citation, self.files, self.count = url, terms, citation, files, count

    def describe(self, root: Path, patients: int | None, seed: int) -> str:
        """Say terms, citation, address, and what is here."""
        _refuse_a_part(patients)
        here = len(list(root.glob(self.files))) if root.is_dir() else 0
        facts = {"terms": self.terms, "cite": self.citation, "from": self.url}
        return _lined_up(facts | {"here": f"{here} of {self.count} images"})

    def fetch(self, root: Path, patients: int | None, seed: int) -> str:
        """Fetch what is missing of the archive, unpack it and remove it.

        Raises:
            LemlightError: the address cannot be reached, the archive is damaged, or images are missing.
        """
        root.mkdir(parents=True, exist_ok=True)
        if len(list(root.glob(self.files))) < self.count:
            packed = root / f".{self.url.rpartition('/')[2]}"
            self._download(packed)
            aside = root / UNPACKED  # a kill in the middle leaves no half an image among the others
            shutil.rmtree(aside, ignore_errors=True)
            try:
                with tarfile.open(packed) as archive:
                    archive.extractall(aside, filter="data")
            except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                packed.unlink()
                why = type(error).__name__
                raise LemlightError(f"{self.url}: damaged archive ({why}); the same command tries again") from error
            shutil.copytree(aside, root, copy_function=os.replace, dirs_exist_ok=True)
            shutil.rmtree(aside)
            packed.unlink()
        here = len(list(root.glob(self.files)))
        if here < self.count:
            raise LemlightError(f"{root}: {here} of {self.count} images are there after unpacking {self.url}")
        return f"{here} images are there"

    def _download(self, packed: Path) -> None:
        have = packed.stat().st_size if packed.exists() else 0
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                goes_on = answer.status == 206
                rest = int(answer.headers.get("Content-Length") or 0)
                bar = Progress(f"fetching {self.url.rpartition('/')[2]}", rest, "B")
                with packed.open("ab" if goes_on else "wb") as file, bar:
                    while block := answer.read(BLOCK):
                        file.write(block)
                        bar.update(len(block))
                if bar.done < rest:
                    raise LemlightError(f"{self.url}: the connection ended early; the same command goes on from here")
        except urllib.error.HTTPError as error:
            if error.code != 416:  # the whole archive is here already
                raise LemlightError(f"{self.url}: the server says {error.code} {error.reason}") from error
        except NETWORK as error:  # any other OSError is of the disk, and says so by itself
            reason = getattr(error, "reason", error)
            raise LemlightError(
                f"{self.url} cannot be reached ({reason}); the same command goes on from here"
            ) from error


def _refuse_a_part(patients: int | None) -> None:
    if patients is not None:
        raise LemlightError(f"patients={patients}: this source is fetched as a whole; leave patients out")


def _lined_up(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts)) + 2
    return "\n".join(f"{name + ':' if name else '':<{width}}{said}" for name, said in facts.items())


def _bytes(series: pd.DataFrame) -> "pd.Series[int]":
    return (series["series_size_MB"] * 10**6).round().astype("int64")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: its disk is the one that is written to."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
