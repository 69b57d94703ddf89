import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from lemlight.config.commands import ReportConfig
from lemlight.errors import LemlightError
from lemlight.recipe.report import report
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_state, write_sweep

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


def written(root, output, question=None, resamples=1000):
    config = ReportConfig(runs=str(root), question=question, resamples=resamples, output=str(output))
    path = report(config)
    return path.read_text(encoding="utf-8"), Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A sweep of two methods, two seeds, a failed, an unfinished and a damaged training: its page and its folder."""
    root = tmp_path_factory.mktemp("pages")
    write_sweep(root / "sweep")
    write_state(root / "sweep/a failed one", "failed", f"/data/{NAME}/1.dcm: CUDA out of memory", config_of("gap", 7))
    write_state(root / "sweep/started", "running", config=config_of("gap", 8))
    (write_run(root / "sweep/broken", config=config_of("gap", 9)) / "metrics.json").write_text("{")
    return *written(root / "sweep", root / "out"), root / "out"


def test_the_page_says_everything(pages):
    _, page, _ = pages
    for said in (
        "Do GAP and LEM differ",
        "4 finished trainings on folder; tested on 80 images of 40 patients",
        "A method is a value of pooling.name",
        "LEM has a higher AUC than GAP" if "LEM has" in page.text else "GAP has a lower AUC than LEM",
        "3 of 7 trainings are not done",
        "CUDA out of memory",
        "The training is not finished",
        "metrics.json cannot be read",
        "Split by patient. In more than one split: 1 patients",
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
    for secret in (NAME, "Mueller", "/data", "/runs", str(folder), ".dcm", "a failed one"):
        assert secret not in text, secret
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
    row = text[text.index('<th scope="row">LEM</th>') :]
    assert "<b>" in row[: row.index("</tr>")]
    row = text[text.index('<th scope="row">GAP</th>') :]
    assert "<b>" not in row[: row.index("</tr>")]


def test_the_files_beside_the_page(pages):
    *_, folder = pages
    assert {path.name for path in folder.iterdir()} == {
        *("report.html", "table.csv", "table.md", "table.tex", "differences.csv", "runs.csv"),
    }
    assert pd.read_csv(folder / "runs.csv")["state"].tolist().count("done") == 4


def test_hostile_words_stay_words(tmp_path):
    config = config_of(HOSTILE, backbone={"name": HOSTILE})
    write_run(tmp_path / "s/a", config=config, overrides=[f"pooling={HOSTILE}"])
    write_run(tmp_path / "s/b")
    text, page = written(tmp_path / "s", tmp_path / "out", question=HOSTILE)
    assert len(page.of("script")) == 1
    assert "alert('x')" not in text.replace("alert(&#39;x", "")
    assert HOSTILE in page.text


def test_one_training_is_no_comparison(tmp_path):
    write_run(tmp_path / "s/a", pictures=2)
    _, page = written(tmp_path / "s", tmp_path / "out")
    assert "There is one training only" in page.text
    assert "Results of LEM" in page.text
    assert "The one training is done." in page.text
    assert "Differences" not in page.text.replace("Differences in", "")


def test_one_seed_speaks_of_networks_only(tmp_path):
    root = write_sweep(tmp_path / "s", seeds=(3,))
    _, page = written(root, tmp_path / "out")
    assert "a difference speaks of these networks, not of the methods" in page.text


def test_other_test_images_are_listed_and_not_compared(tmp_path):
    root = write_sweep(tmp_path / "s")
    write_run(root / "other", config=config_of("gmp"), predictions=predictions_of(40), dice=0.3, pictures=2)
    _, page = written(root, tmp_path / "out")
    assert "tested on different images" in page.text
    assert "their figures are listed, not compared" in page.text
    assert page.text.count("GMP") > 3
    assert not (tmp_path / "out/differences.csv").exists()


def test_nothing_finished_is_a_page_all_the_same(tmp_path):
    write_state(tmp_path / "s/f", "failed", "no", config_of())
    write_state(tmp_path / "s/g", "failed", "no")
    _, page = written(tmp_path / "s", tmp_path / "out")
    assert "No training is finished" in page.text
    assert "2 of 2 trainings are not done" in page.text
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["report.html", "runs.csv"]


def test_one_class_only_is_a_page_with_reasons(tmp_path):
    benign = predictions_of().assign(label=0)
    for pooling in ("lem", "gap"):
        write_run(tmp_path / f"s/{pooling}", config=config_of(pooling), predictions=benign)
    _, page = written(tmp_path / "s", tmp_path / "out")
    assert "AUC of GAP and LEM cannot be tested" in page.text


def test_broken_side_files_are_left_out(tmp_path):
    root = write_sweep(tmp_path / "s")
    for run in root.iterdir():
        (run / "logs/metrics.csv").write_text("\x00")
        (run / "leaks.json").write_text("[]")
        (run / "examples/1_map.png").write_bytes(b"")
        (run / "examples/2_image.png").write_bytes(b"no picture")
        (run / "examples/3_scores.npz").write_bytes(b"no array")
        summary = json.loads((run / "metrics.json").read_text())
        (run / "metrics.json").write_text(json.dumps(summary | {"froc": 3, "calibration": [], "pointing": "x"}))
    _, page = written(root, tmp_path / "out")
    assert "No training left a leak report" in page.text
    assert page.text.count("Mammogram 1:") == 1


def test_the_report_of_a_training_is_not_overwritten(tmp_path):
    root = write_sweep(tmp_path / "s", seeds=(0,))
    with pytest.raises(LemlightError, match="output=DIR"):
        written(root, root / "pooling=lem+seed=0")
