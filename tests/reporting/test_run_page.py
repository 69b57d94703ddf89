import base64
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from lemlight.metrics import LOCALIZATION_NAMES
from lemlight.metrics.classification import summarize
from lemlight.metrics.levels import summarize_levels
from lemlight.reporting.run_page import localization_text, metrics_text, write_run_page

HOSTILE = "</pre><script src='x.js'>alert(1)</script>\"&"


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
    section["by_size"] = {"below 1 cell": {"images": 7, "dsc": known, "pointing": unknown}}
    return make_summary() | metrics | {"localization": section, "localization_compared": {"my_own": metrics}}


@pytest.fixture
def write(tmp_path, read_page):
    def write(**changes):
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
        }
        return read_page(write_run_page(tmp_path, **options | changes).read_text(encoding="utf-8"))

    return write


def test_the_page_shows_all_of_a_run(write, tmp_path):
    page, auc = write(summary=with_localization()), make_summary()["auroc"]
    for part in (
        "LEM on the phantom",
        f"{auc['value']:.3f} {auc['low']:.3f} to {auc['high']:.3f}",
        "40 images of 20 patients",
        "Lesion recall",
        "mean over the images with a lesion",
        "no patient on two sides",
        "python -m lemlight.train pooling=lem",
        '"pooling": "lem"',
        "2.15.0",
        "Research only, not for clinical use",
    ):
        assert part in page.text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["report.html", "roc.png"]
    first, second = page.of("img")
    for figure in (first, second):
        assert base64.b64decode(figure["src"].partition(",")[2]) == (tmp_path / "roc.png").read_bytes()
    assert first["alt"].startswith("ROC curve. ")
    assert second["alt"].startswith("my own")


@pytest.mark.parametrize("where", ["title", "leak_text", "command", "config", "versions", "figures"])
def test_hostile_values_stay_text(write, tmp_path, where):
    values = {"config": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}, "figures": {HOSTILE: tmp_path / "roc.png"}}
    page = write(**{where: values.get(where, HOSTILE)})
    assert not page.of("script")
    assert (json.dumps(HOSTILE) if where == "config" else HOSTILE) in page.text


def test_what_is_undefined_stands_with_its_reason_on_page_and_terminal(write):
    summary = make_summary(one_class=True)
    page, lines = write(summary=summary), metrics_text(summary).splitlines()
    assert lines[2].split(maxsplit=2)[1:] == ["undefined", "(one class only: all images are benign)"]
    assert "one class only: all images are benign" in page.text
    assert not {"nan", "None"} & {*page.text.split(), *" ".join(lines).split()}


def test_every_level_has_a_column_and_what_is_not_defined_its_reason(write):
    number = np.arange(40)
    rows = {"patient_id": [f"P{n // 4}" for n in number], "laterality": ["LR"[n // 2 % 2] for n in number]}
    label = number // 2 % 2
    table = pd.DataFrame({**rows, "label": label, "probability": 0.02 * number, "split": "test"})
    levels = {"levels": summarize_levels(table, resamples=100), "primary_level": "breast"}
    summary = summarize(table, resamples=100) | levels
    page, lines = write(summary=summary), metrics_text(summary)
    for part in ("By image (40)", "By breast (20, primary)", "By patient (10)", "Not by exam: 40 of 40 images name no"):
        assert part in page.text
        assert part in lines or part == "By image (40)"
    assert f"{summary['levels']['breast']['auroc']['value']:.3f}" in lines


def test_the_temperature_is_told_or_why_there_is_none(write):
    for found, said in (({"temperature": 2.5}, "2.500"), ({"uncalibrated": "one class"}, "undefined one class")):
        summary = make_summary()
        summary["calibration"] |= found
        assert f"Temperature, by which logits are divided {said}" in write(summary=summary).text
    assert "Temperature" not in write().text


def test_a_subgroup_shows_a_value_that_has_no_interval_and_a_dash_where_it_is_too_small(write):
    known = {"value": 1.0, "low": None, "high": None, "reason": "every resample gives the same value"}
    small = {"value": None, "reason": "too small: 3 patients"}
    group = {"images": 12, "patients": 6, "auroc": known, "sensitivity": small, "specificity": small}
    page = write(summary=make_summary() | {"subgroups": {"by": {"view": {"CC": group}}, "differences": []}})
    assert "view: CC 12, 6 1.000 every resample gives the same value - too small: 3 patients" in page.text


def test_the_terminal_shows_values_and_intervals_aligned():
    summary = with_localization()
    lines, auc = metrics_text(summary).splitlines(), summary["auroc"]
    assert lines[0].startswith("test split: 40 images of 20 patients; predicted malignant above 0.5; 95 % intervals")
    assert lines[2].split() == ["AUC", f"{auc['value']:.3f}", f"[{auc['low']:.3f},", f"{auc['high']:.3f}]"]
    assert len(lines) == 2 + 6
    what, _, head, importance, own, _, _, size = localization_text(summary).splitlines()
    assert what.startswith("localization: 20 lesions on 18 of 40 images")
    assert head.split()[:4] == ["Method", "Dice", "Lesion", "recall"]
    assert importance.split()[:4] == ["Importance", "0.500", "[0.400,", "0.600]"]
    assert own.index("undefined") == head.index("PxAP")
    assert own.split()[-1] == "0.250"
    assert size.split() == ["Importance", "below", "1", "cell", "7", "0.500", "undefined"]
