import json
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest

from lemlight.errors import LemlightError
from lemlight.report import report
from lemlight.reporting.comparison_page import command_of, differing_settings, leak_reports, notes_of
from lemlight.reporting.methods import compare_runs
from lemlight.reporting.runs import find_runs
from lemlight.settings import ReportSettings as ReportConfig
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_state

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(page)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(root, output, question=None):
    report(ReportConfig(runs=str(root), question=question, resamples=1000, to=None, output=str(output)))
    text = (output / "report.html").read_text(encoding="utf-8")
    return text, Reader(text)


@pytest.fixture(scope="module")
def pages(sweep, tmp_path_factory):
    """The sweep with a failed, an unfinished and a damaged run: its page and its folder."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copytree(sweep, root / "sweep")
    message = f"/data/{NAME}/1.dcm: image {NAME}_L (patient 19670312): RuntimeError: CUDA out of memory"
    write_state(root / "sweep/a failed one", "failed", message, config_of("gap", 7))
    write_state(root / "sweep/started", "running", config=config_of("gap", 8))
    (write_run(root / "sweep/broken", config=config_of("gap", 9)) / "metrics.json").write_text("{")
    return *written(root / "sweep", root / "out"), root / "out"


def test_the_page_says_everything(pages):
    _, page, _ = pages
    for said in (
        "Which method tells malignant from benign",
        "Finished runs: 4, on folder. Tested on 80 images of 40 patients",
        "Methods differ in pooling;",
        "gap has a lower AUC than lem",
        "3 of 7 runs are not done",
        "failed out of memory",
        "it is still running, or was killed",
        "metrics.json cannot be read",
        "Runs 2, 3, 4, 5, 6: split by patient. In more than one split: 1 patients",
        "Warning: 1 patients leak",
        "python -m lemlight.train pooling=lem seed=0 dataset.root=...",
        "pytorch-lightning (this report)",
        "Mammogram 3:",
        "Holm over all pairs",
        "Research only, not for clinical use",
    ):
        assert said in page.text, said


def test_of_many_differences_the_largest_are_said_and_the_others_counted(tmp_path, capsys):
    for place, pooling in enumerate(("gap", "gmp", "lem", "lse", "rgp", "ggp")):
        predictions = predictions_of(error=0.05 if place < 3 else 2 * place, seed=place)
        write_run(tmp_path / "runs" / pooling, config=config_of(pooling), predictions=predictions)
    _, page = written(tmp_path / "runs", tmp_path / "out")
    assert "All differences in AUC: 9 of 15 shown" in page.text
    top = page.text[page.text.index("What is shown") : page.text.index("Not shown does not mean")]
    for said in (top, capsys.readouterr().out):
        sizes = [abs(float(size)) for size in re.findall(r"(?:higher|lower) AUC than [\w-]+: ([+-][\d.]+)", said)]
        assert len(sizes) == 5
        assert sizes == sorted(sizes, reverse=True)
        assert "4 more differences in AUC are shown, none larger" in said


def test_the_page_names_no_patient_no_image_and_no_path(pages):
    text, _, folder = pages
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for secret in (NAME, "Mueller", "19670312", "/data", "/runs", str(folder), ".dcm", "a failed one", "_target_"):
        assert secret not in plain, secret
    assert NAME in (folder / "runs.csv").read_text()  # the whole message is there


def test_the_page_asks_nobody_for_anything(pages):
    text, page, _ = pages
    assert not re.search(r"https?:", text)
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    assert all("src" not in script for script in page.of("script"))
    policy = page.of("meta")[3]["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_every_picture_has_words_and_every_region_a_name(pages):
    _, page, _ = pages
    assert all(image["alt"] for image in page.of("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key, ids[0]) in ids
        if attributes.get("role") == "region":
            assert "aria-label" in attributes or "aria-labelledby" in attributes
    assert all(link["href"][1:] in ids for link in page.of("a"))
    assert all("scope" in header for header in page.of("th"))


def test_the_best_is_bold(pages):
    text, _, _ = pages
    row = text[text.index('<th scope="row">lem</th>') :]
    assert "<b>" in row[: row.index("</tr>")]
    row = text[text.index('<th scope="row">gap</th>') :]
    assert "<b>" not in row[: row.index("</tr>")]


def test_the_files_beside_the_page(pages):
    *_, folder = pages
    assert {path.name for path in folder.iterdir()} == {
        *("report.html", "table.csv", "table.md", "table.tex", "differences.csv", "runs.csv"),
    }
    assert pd.read_csv(folder / "runs.csv")["state"].tolist().count("done") == 4


def test_hostile_words_stay_words(tmp_path):
    config = config_of(HOSTILE, choices={"backbone": HOSTILE})
    write_run(tmp_path / "s/a", config=config, overrides=[f"pooling={HOSTILE}"])
    write_run(tmp_path / "s/b")
    text, page = written(tmp_path / "s", tmp_path / "out", question=HOSTILE)
    assert len(page.of("script")) == 1
    assert "alert('x')" not in text.replace("alert(&#39;x", "")
    assert HOSTILE in page.text


def test_nothing_finished_is_a_page_all_the_same(tmp_path):
    write_state(tmp_path / "s/f", "failed", "no", config_of())
    write_state(tmp_path / "s/g", "failed", "no")
    _, page = written(tmp_path / "s", tmp_path / "out")
    assert "No run is finished" in page.text
    assert "Their metrics are listed, not compared" in page.text
    assert "2 of 2 runs are not done" in page.text
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["report.html", "runs.csv"]


def test_one_class_only_is_a_page_with_reasons(tmp_path):
    for pooling in ("lem", "gap"):
        write_run(tmp_path / f"s/{pooling}", config=config_of(pooling), predictions=predictions_of().assign(label=0))
    assert "AUC of gap and lem cannot be tested" in written(tmp_path / "s", tmp_path / "out")[1].text


def test_broken_side_files_are_left_out(sweep, tmp_path):
    root = shutil.copytree(sweep, tmp_path / "s")
    for run in root.iterdir():
        (run / "logs/metrics.csv").write_text("\x00")
        (run / "leaks.json").write_text("[]")
        (run / "examples/1_map.png").write_bytes(b"")
        (run / "examples/2_image.png").write_bytes(b"no picture")
        (run / "examples/3_scores.npz").write_bytes(b"no array")
        summary = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps(summary | {"froc": 3, "calibration": [], "pointing": "x"}))
    _, page = written(root, tmp_path / "out")
    assert "No run left a leak report" in page.text
    assert page.text.count("Mammogram 1:") == 1


def test_the_report_of_a_run_is_not_overwritten(sweep):
    with pytest.raises(LemlightError, match="output=DIR"):
        written(sweep, sweep / "pooling=lem+seed=0")


ONE_SEED = "a difference speaks of these networks, not of the methods"


@pytest.mark.parametrize(
    ("kinds", "split", "said"),
    [
        ([("lem", 0), ("lem", 1), ("gap", 0), ("gap", 1)], "test", []),
        ([("lem", 0), ("gap", 0)], "test", [f"of every method: {ONE_SEED}"]),
        ([("lem", 0), ("lem", 1), ("gap", 0)], "test", [f"of gap: {ONE_SEED}"]),
        ([("lem", 0)], "test", ["There is one run only"]),
        ([("lem", 0), ("lem", 1)], "test", ["There is one method only"]),
        ([("lem", 0), ("lem", 1), ("gap", 0), ("gap", 1)], "val", ["4 of the 4 runs report the validation split"]),
    ],
)
def test_what_the_comparison_cannot_say_is_noted(tmp_path, kinds, split, said):
    for kind in kinds:
        run = write_run(tmp_path / f"{kind}", config=config_of(*kind), dice=0.5)
        summary = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps(summary | {"split": split}))
    notes = notes_of(compare_runs(find_runs(tmp_path), 100))
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))


def test_the_command_hides_paths(tmp_path):
    words = ["pooling=lem", "dataset.root=/data", "+own.file=x", "store=~/x", "experiment=a/b"]
    (run,) = find_runs(write_run(tmp_path / "s", overrides=words))
    hidden = "dataset.root=... +own.file=... store=... experiment=..."
    assert command_of(run) == f"python -m lemlight.train pooling=lem {hidden}"


def test_differing_settings_leave_paths_and_the_machine_out(tmp_path):
    write_run(tmp_path / "a", config=config_of("lem", 0, workers=3))
    write_run(tmp_path / "b", config=config_of("gap", 0, dataset={"root": "/elsewhere"}))
    numbers, settings = differing_settings(find_runs(tmp_path))
    assert numbers == [1, 2]
    assert settings == {"pooling": ["lem", "gap"], "pooling.aggregate": ["mean", "(none)"]}


def test_equal_leak_reports_stand_once_without_names(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "s")
    changed = tmp_path / "s/pooling=gap+seed=0/leaks.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"warnings": []}))
    (tmp_path / "s/pooling=gap+seed=1/leaks.json").write_text("{")
    reports = leak_reports(find_runs(tmp_path))
    assert [report["numbers"] for report in reports] == [[1], [3, 4]]
    assert reports[0]["in_several"] == "1 patients, 0 breasts, 0 files"
    assert NAME not in repr(reports)
