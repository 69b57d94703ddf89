import base64
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lemlight.errors import LemlightError
from lemlight.metrics import LOCALIZATION_NAMES
from lemlight.metrics.classification import summarize
from lemlight.reporting.run_page import localization_text, metrics_text, write_run_page

HOSTILE = "</pre><script src='http://evil.example/x.js'>alert(1)</script>\"&"
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make_summary(one_class=False):
    label = np.arange(40) % 2 * (not one_class)
    predictions = {
        "image_id": [f"i{number}" for number in range(40)],
        "patient_id": [f"P{number // 2}" for number in range(40)],
        "split": "test",
        "label": label,
        "probability": np.clip(0.4 + 0.2 * label + np.linspace(-0.3, 0.3, 40), 0, 1),
    }
    return summarize(pd.DataFrame(predictions), resamples=100)


def with_localization():
    known, unknown = {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": None, "reason": "none"}
    metrics = dict.fromkeys(LOCALIZATION_NAMES, known) | {"pxap": unknown, "froc": {"mean": {"value": 0.25}}}
    counts = {"lesions": 20, "images_with_lesion": 18, "images": 40, "chosen_on": "the validation split"}
    section = {"method": "importance", **counts, "rules": {"dsc": "mean over the images with a lesion"}}
    return make_summary() | metrics | {"localization": section, "localization_compared": {"my_own": metrics}}


def write(tmp_path, **changes):
    picture = tmp_path / "roc.png"
    Figure(figsize=(1, 1)).savefig(picture)
    options = {
        "title": "LEM on the phantom",
        "summary": make_summary(),
        "figures": {"roc": picture, "my own": picture},
        "config": {"choices": {"pooling": "lem"}, "seed": 0},
        "leak_text": "split by patient\nno patient on two sides",
        "versions": {"torch": "2.15.0"},
        "command": "python -m lemlight.train pooling=lem",
    } | changes
    page = write_run_page(tmp_path, **options)
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return page, reader, "".join(reader.text)


def test_the_page_shows_all_of_a_run(tmp_path):
    page, reader, text = write(tmp_path, summary=with_localization())
    auc = make_summary()["auroc"]
    for part in (
        "LEM on the phantom",
        f"{auc['value']:.3f}",
        f"{auc['low']:.3f} to {auc['high']:.3f}",
        "40 images of 20 patients",
        "Lesion recall",
        "mean over the images with a lesion",
        "no patient on two sides",
        "python -m lemlight.train pooling=lem",
        '"pooling": "lem"',
        "2.15.0",
        "Research only, not for clinical use",
    ):
        assert part in text
    assert {"details", "figure", "table"} <= {tag for tag, _ in reader.tags}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "roc.png"]
    assert page == tmp_path / "report.html"


def test_the_figures_are_inside_and_have_a_text(tmp_path):
    _, reader, _ = write(tmp_path)
    first, second = reader.of("img")
    for figure in (first, second):
        kind, content = figure["src"].split(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == (tmp_path / "roc.png").read_bytes()
    assert first["alt"].startswith("ROC curve. ")
    assert second["alt"].startswith("my own")


def test_the_page_asks_nothing_of_any_server(tmp_path):
    page, reader, _ = write(tmp_path)
    assert not reader.of("script") + reader.of("link")
    for _, attributes in reader.tags:
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    for word in ("url(", "@import"):
        assert word not in page.read_text(encoding="utf-8")
    assert any("default-src 'none'" in attributes.get("content", "") for attributes in reader.of("meta"))


@pytest.mark.parametrize("where", ["title", "leak_text", "command", "config", "versions", "figures"])
def test_hostile_values_stay_text(tmp_path, where):
    picture = tmp_path / "hostile.png"
    Figure(figsize=(1, 1)).savefig(picture)
    values = {"config": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}, "figures": {HOSTILE: picture}}
    _, reader, text = write(tmp_path, **{where: values.get(where, HOSTILE)})
    assert not reader.of("script")
    assert (json.dumps(HOSTILE) if where == "config" else HOSTILE) in text


def test_a_figure_that_is_not_there_is_named_and_no_page_is_written(tmp_path):
    with pytest.raises(LemlightError, match=r"no such figure: a \(.*a\.png\), b \(.*b\.png\)"):
        write(tmp_path, figures={"a": tmp_path / "a.png", "b": tmp_path / "b.png"})
    assert not (tmp_path / "report.html").exists()


def test_what_is_undefined_stands_with_its_reason_on_page_and_terminal(tmp_path):
    summary = make_summary(one_class=True)
    _, _, text = write(tmp_path, summary=summary)
    lines = metrics_text(summary).splitlines()
    assert lines[2].split(maxsplit=2)[1:] == ["undefined", "(one class only: all images are benign)"]
    assert "one class only: all images are benign" in text
    assert not {"nan", "None"} & {*text.split(), *" ".join(lines).split()}


def test_the_terminal_shows_values_and_intervals_aligned():
    summary = with_localization()
    lines = metrics_text(summary).splitlines()
    auc = summary["auroc"]
    assert lines[0].startswith("test split: 40 images of 20 patients; predicted malignant above 0.5; 95 % intervals")
    assert lines[2].split() == ["AUC", f"{auc['value']:.3f}", f"[{auc['low']:.3f},", f"{auc['high']:.3f}]"]
    assert len(lines) == 2 + 6
    what, _, head, importance, own = localization_text(summary).splitlines()
    assert what.startswith("localization: 20 lesions on 18 of 40 images")
    assert head.split(maxsplit=3)[:3] == ["Dice", "Lesion", "recall"]
    assert importance.split()[:4] == ["Importance", "0.500", "[0.400,", "0.600]"]
    assert own.index("undefined") == head.index("PxAP")
    assert own.split()[-1] == "0.250"
