import errno
import http.server
import io
import shutil
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lemlight.data.datasets.cbis import cbis
from lemlight.data.datasets.cmmd import cmmd
from lemlight.data.sources import MANIFEST, Archive, Command, IdcIndex, ImagingDataCommons, places
from lemlight.errors import LemlightError
from tests.layouts.cbis import write_cbis
from tests.layouts.cmmd import write_cmmd

CBIS = {"patient": r"P_\d{5}", "stratum": "(?:Mass|Calc)-(?:Training|Test)"}


class MockArchive:
    """An archive that holds what lies in a folder, laid out as the Imaging Data Commons do; it can fail."""

    def __init__(self, folder, version="v25"):
        self.folder, self.version = Path(folder), version
        self.fetched, self.fails_after, self.cuts = [], None, 0

    def series(self, collection):
        rows = []
        for folder in sorted({file.parent for file in (self.folder / collection).rglob("*.dcm") if file.is_file()}):
            *_, patient, study, name = folder.parts
            sizes = [file.stat().st_size for file in folder.iterdir()]
            rows.append((collection, patient, study, *name.split("_"), "MG", len(sizes), sum(sizes) / 1e6, "CC BY 4.0"))
        columns = ["collection_id", "PatientID", "StudyInstanceUID", "Modality", "SeriesInstanceUID"]
        return pd.DataFrame(
            rows, columns=[*columns, "SeriesDescription", "instanceCount", "series_size_MB", "license_short_name"]
        )

    def fetch(self, series, root):
        for uid in series:
            if self.fails_after is not None and len(self.fetched) >= self.fails_after:
                raise ConnectionError("no such host")
            (folder,) = self.folder.rglob(f"MG_{uid}")
            target = root / folder.relative_to(self.folder)
            shutil.copytree(folder, target, dirs_exist_ok=True)
            self.fetched.append(uid)
            if self.cuts:
                self.cuts -= 1
                file = next(target.iterdir())
                file.write_bytes(file.read_bytes()[:100])


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """The archive's own copy of both collections, without their tables; and a folder with these and whole downloads."""
    folder, whole = tmp_path_factory.mktemp("archive"), tmp_path_factory.mktemp("whole")
    write_cbis(whole / "cbis_ddsm")
    write_cmmd(whole / "cmmd")
    write_cbis(folder, "idc")
    write_cmmd(folder, layout="idc")
    for table in folder.glob("*.csv"):
        table.rename(whole / table.name)
    return folder, whole


@pytest.fixture
def archive(held):
    return MockArchive(held[0])


def test_a_whole_collection_comes_and_is_read_by_its_data_set(held, archive, tmp_path):
    for collection, data_set in (("cbis_ddsm", cbis), ("cmmd", cmmd)):
        root = tmp_path / collection
        source = ImagingDataCommons(collection, "someone", index=archive, tables=["*.csv"], tables_from="there")
        said = source.describe(root, None, 0)
        assert "to fetch:   0 series" not in said
        assert f"not in {root}: *.csv" in said
        assert "CC BY 4.0" in said
        assert not root.exists()  # describing leaves nothing
        assert "series are there" in source.fetch(root, None, 0)
        for table in held[1].glob("*.csv"):
            shutil.copy(table, root)
        assert sorted(data_set(root)["image_id"]) == sorted(data_set(held[1] / collection)["image_id"])
        assert "to fetch:   0 series" in source.describe(root, None, 0)


def test_a_part_has_so_many_patients_from_every_stratum_and_a_larger_one_holds_it(archive, tmp_path):
    source = ImagingDataCommons("cbis_ddsm", "someone", index=archive, **CBIS)
    whole = source.choose(tmp_path, None, 0)
    patients = whole["PatientID"].str.extract(r"(P_\d{5})", expand=False)
    before = set()
    for number in (1, 4, 8, 12):
        chosen = source.choose(tmp_path, number, 3)
        drawn = patients[whole["SeriesInstanceUID"].isin(chosen["SeriesInstanceUID"])]
        assert drawn.nunique() == number
        assert len(drawn) == patients.isin(drawn).sum()  # every series of a patient
        assert before <= set(drawn)
        before = set(drawn)
        if number == 4:
            strata = whole.loc[patients.isin(drawn), "PatientID"].str.extract("(Mass|Calc)-(Training|Test)").dropna()
            assert len(strata.drop_duplicates()) == 4
    assert set(source.choose(tmp_path, 4, 3)["PatientID"]) != set(source.choose(tmp_path, 4, 4)["PatientID"])
    with pytest.raises(LemlightError, match=r"patients=13: cbis_ddsm has 12"):
        source.choose(tmp_path, 13, 0)


def test_where_the_tables_are_there_a_part_is_drawn_by_label_too(archive, held, tmp_path):
    columns = {"tables": ["CMMD_clinicaldata_revision.csv"], "patient_column": "ID1", "label_column": "classification"}
    source = ImagingDataCommons("cmmd", "someone", index=archive, **columns)
    shutil.copy(held[1] / "CMMD_clinicaldata_revision.csv", tmp_path)
    labels = source._labels(tmp_path)
    assert labels.value_counts().to_dict() == {"malignant": 7, "other": 5}
    for seed in range(5):
        chosen = source.choose(tmp_path, 2, seed)["PatientID"]
        assert set(labels[chosen]) == {"malignant", "other"}


def test_a_stop_in_the_middle_loses_nothing_and_half_a_file_is_fetched_again(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("lemlight.data.sources.CHUNK", 500_000)
    source = ImagingDataCommons("cmmd", "someone", index=archive)
    archive.fails_after, archive.cuts = 5, 1
    with pytest.raises(
        LemlightError, match=r"8 of 12 series are missing or not whole .* no such host; the same command"
    ):
        source.fetch(tmp_path, None, 0)
    archive.fails_after, before = None, list(archive.fetched)
    source.fetch(tmp_path, None, 0)
    again = archive.fetched[len(before) :]
    assert len(again) == 8
    assert len(set(before) & set(again)) == 1  # the one that was cut
    assert source.fetch(tmp_path, None, 0)
    assert len(archive.fetched) == len(before) + 8  # nothing is fetched twice


def test_without_a_network_it_gives_up_after_the_first_part(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("lemlight.data.sources.CHUNK", 1)
    calls = []
    monkeypatch.setattr(archive, "fetch", lambda series, root: calls.append(series))
    with pytest.raises(LemlightError, match="12 of 12 series"):
        ImagingDataCommons("cmmd", "someone", index=archive).fetch(tmp_path, None, 0)
    assert len(calls) == 1


def test_a_full_disk_is_said_before_anything_is_fetched(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("lemlight.data.sources.SPARE", 10**18)
    with pytest.raises(LemlightError, match=r"are free; make room, or patients=20"):
        ImagingDataCommons("cmmd", "someone", index=archive).fetch(tmp_path, None, 0)
    assert not archive.fetched


def test_the_manifest_lists_what_is_to_be_there_and_refuses_another_version(archive, held, tmp_path):
    source = ImagingDataCommons("cmmd", "someone", index=archive)
    source.fetch(tmp_path, 3, 0)
    manifest = pd.read_csv(tmp_path / MANIFEST)
    assert len(manifest) == 3
    source.fetch(tmp_path, 5, 0)
    assert len(pd.read_csv(tmp_path / MANIFEST)) == 5
    newer = MockArchive(held[0], "v26")
    ImagingDataCommons("cmmd", "someone", index=newer).fetch(tmp_path, 5, 0)  # the same series: goes on
    listed = newer.series("cmmd")
    gone = pd.read_csv(tmp_path / MANIFEST)["SeriesInstanceUID"][0]
    newer.version, newer.series = "v27", lambda collection: listed[listed["SeriesInstanceUID"] != gone]
    with pytest.raises(LemlightError, match=r"lists 1 series that version v27 .* written with v26"):
        ImagingDataCommons("cmmd", "someone", index=newer).fetch(tmp_path, 5, 0)
    (tmp_path / MANIFEST).write_text("a,b\n1,2\n")
    with pytest.raises(LemlightError, match="no manifest of lemlight"):
        source.fetch(tmp_path, 5, 0)


def test_an_unknown_collection_is_named(archive, tmp_path):
    with pytest.raises(LemlightError, match="index v25 has no collection nothing"):
        ImagingDataCommons("nothing", "someone", index=archive).choose(tmp_path, None, 0)


def test_a_tool_is_called_only_with_a_login_and_its_failure_is_said(tmp_path, monkeypatch):
    login = tmp_path / "login"

    def source(*command):
        return Command(command, [str(login), "LEMLIGHT_NO_SUCH_KEY"], "ask them", "theirs", "someone", "unpack")

    with pytest.raises(LemlightError, match=r"no login was found .* ask them"):
        source("true").describe(tmp_path, None, 0)
    monkeypatch.setenv("LEMLIGHT_NO_SUCH_KEY", "1")
    with pytest.raises(LemlightError, match="lemlight-no-such-tool is not installed"):
        source("lemlight-no-such-tool").describe(tmp_path, None, 0)
    with pytest.raises(LemlightError, match="leave patients out"):
        source("true").describe(tmp_path, 3, 0)
    root = tmp_path / "root"
    assert f"touch {root}/came" in source("touch", "ROOT/came").describe(root, None, 0)
    assert source("touch", "ROOT/came").fetch(root, None, 0).endswith("unpack")
    assert (root / "came").exists()
    with pytest.raises(LemlightError, match="false ended with 1"):
        source("false").fetch(root, None, 0)


@pytest.fixture
def server():
    """A server of one archive of three images that answers ranges, and says 404 to all else."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in range(3):
            data = np.random.default_rng(number).bytes(50_000)
            member = tarfile.TarInfo(f"mdb{number:03d}.pgm")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    whole = packed.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        most, ranges = None, []

        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.ranges.append(start)
            if self.path != "/all.tar.gz":
                self.send_error(404)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(whole) - start))
            self.end_headers()
            self.wfile.write(whole[start : self.most])

        def log_message(self, *arguments):
            pass

    Handler.ranges = []
    served = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/", Handler
    served.shutdown()
    thread.join()
    served.server_close()


def source_at(url, count=3):
    return Archive(url, "theirs", "someone", "mdb*.pgm", count)


def test_an_archive_goes_on_after_a_broken_connection_and_is_unpacked(server, tmp_path):
    url, handler = server
    source = source_at(f"{url}all.tar.gz")
    handler.most = 60_000
    with pytest.raises(LemlightError, match=r"goes on from here|cannot be reached"):
        source.fetch(tmp_path, None, 0)
    handler.most = None
    assert source.fetch(tmp_path, None, 0) == "3 images are there"
    assert handler.ranges == [0, 60_000]
    assert "3 of 3 images" in source.describe(tmp_path, None, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mdb000.pgm", "mdb001.pgm", "mdb002.pgm"]
    source.fetch(tmp_path, None, 0)
    assert len(handler.ranges) == 2  # nothing is fetched again
    with pytest.raises(LemlightError, match="3 of 4 images"):
        source_at(f"{url}all.tar.gz", 4).fetch(tmp_path, None, 0)


def test_a_damaged_archive_and_a_wrong_address_are_named(server, tmp_path):
    url, _ = server
    with pytest.raises(LemlightError, match="the server says 404"):
        source_at(f"{url}other.tar.gz").fetch(tmp_path, None, 0)
    (tmp_path / ".all.tar.gz").write_bytes(b"x" * 50_000)
    with pytest.raises(LemlightError, match="damaged archive"):
        source_at(f"{url}all.tar.gz").fetch(tmp_path, None, 0)
    assert source_at(f"{url}all.tar.gz").fetch(tmp_path, None, 0) == "3 images are there"
    with pytest.raises(LemlightError, match="cannot be reached"):
        source_at("http://127.0.0.1:9/all.tar.gz", 9).fetch(tmp_path, None, 0)


@pytest.mark.parametrize("where", ["tarfile.TarFile.extractall", "pathlib.Path.open"])
def test_a_full_disk_is_no_damaged_archive_and_no_missing_network(server, tmp_path, monkeypatch, where):
    url, handler = server
    source = source_at(f"{url}all.tar.gz")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(OSError, match="No space left"):
            source.fetch(tmp_path, None, 0)
    assert source.fetch(tmp_path, None, 0) == "3 images are there"
    assert handler.ranges[0] == 0


def test_a_kill_amid_the_unpacking_leaves_no_half_an_image(server, tmp_path, monkeypatch):
    def killed(archive, folder, **options):
        folder.mkdir()
        for number in range(3):
            (folder / f"mdb{number:03d}.pgm").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tarfile.TarFile.extractall", killed)
        with pytest.raises(KeyboardInterrupt):
            source_at(f"{server[0]}all.tar.gz").fetch(tmp_path, None, 0)
    assert not list(tmp_path.glob("mdb*"))
    source_at(f"{server[0]}all.tar.gz").fetch(tmp_path, None, 0)
    assert {path.stat().st_size for path in tmp_path.glob("mdb*")} == {50_000}
    assert not (tmp_path / ".unpacked").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("sleep 60", r"gave no byte for 0\.5 s; is there a network\?; the same command goes on"),
        (
            """echo 'ERROR "cp s3://x": RequestError: caused by: Get "x": no such host' >&2; exit 1""",
            "ConnectionError: Get .x.: no such host; the same command goes on",
        ),
        ("for word in $*; do :; done; while read -r _ from to; do mkdir -p $to && cp -r $from $to; done < $word", ""),
    ],
)
def test_an_archive_that_gives_nothing_ends_in_a_sentence_within_seconds(archive, tmp_path, monkeypatch, program, said):
    """`program` in the place of s5cmd, whose plan is the last word."""
    monkeypatch.setattr("lemlight.data.sources.SILENCE", 0.5)
    (tmp_path / "s5cmd").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "s5cmd").chmod(0o755)
    listed = archive.series("cmmd")
    listed["series_aws_url"] = [f"{archive.folder / place}/." for place in places(listed)]
    index = object.__new__(IdcIndex)
    index._client, index.version = SimpleNamespace(index=listed, s5cmdPath=str(tmp_path / "s5cmd")), "v25"
    source = ImagingDataCommons("cmmd", "someone", index=index)
    if said:
        with pytest.raises(LemlightError, match=said):
            source.fetch(tmp_path / "cmmd", None, 0)
        assert (tmp_path / "cmmd" / MANIFEST).is_file()
    else:
        assert "series are there" in source.fetch(tmp_path / "cmmd", None, 0)
