"""The comparison page: what it says, shows, hides and survives."""

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.plots.panels import MOST_PAIRS, forest_pairs, score_map_panels
from lemlight.plots.style import method_marks
from lemlight.report import report
from lemlight.reporting.comparison.comparison_page import (
    differing_settings,
    leak_reports,
    lesion_layer,
    map_layer,
    notes_of,
    png,
    read_examples,
)
from lemlight.reporting.comparison.methods import compare_runs
from lemlight.reporting.comparison.runs import find_runs
from lemlight.reporting.localization_results import draw_examples
from lemlight.reporting.page import public_command
from lemlight.settings import ReportSettings
from tests.layouts.run_folders import NAME, config_of, predictions_of, write_run, write_state, write_sweep

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def written(read_page):
    """Compare the runs below a folder; the page's text, and the page as it was parsed."""

    def written(root, output, question=None):
        report(ReportSettings(runs=str(root), question=question, resamples=1000, to=None, output=str(output)))
        text = (output / "report.html").read_text(encoding="utf-8")
        return text, read_page(text)

    return written


@pytest.fixture(scope="module")
def pages(sweep, written, tmp_path_factory):
    """The sweep with a failed, an unfinished and a damaged run: its page and its folder."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copytree(sweep, root / "sweep")
    message = f"/data/{NAME}/1.dcm: image {NAME}_L (patient 19670312): RuntimeError: CUDA out of memory"
    write_state(root / "sweep/a failed one", "failed", message, config_of("gap", 7))
    write_state(root / "sweep/started", "running", config=config_of("gap", 8))
    (write_run(root / "sweep/broken", config=config_of("gap", 9)) / "metrics.json").write_text("{")
    return *written(root / "sweep", root / "out"), root / "out"


def test_the_page_says_everything(pages):
    text, page, _ = pages
    for said in (
        "Which method tells malignant from benign",
        "Finished runs: 4, on folder. Tested on 80 images of 40 patients",
        "Methods differ in pooling;",
        "gap has a lower AUC than lem",
        "3 of 7 runs are not done",
        "failed see runs.csv",
        "it is still running, or was killed",
        "metrics.json is missing or damaged",
        "Runs 3, 4, 5, 6: Warning: 1 patients are trained and tested on",
        "in more than one split: 1 patients, 0 breasts, 0 files",
        "python -m lemlight.train pooling=lem seed=0 dataset.root=...",
        "pytorch-lightning",
        "Mammogram 3:",
        "Holm over all pairs",
        "Research only, not for clinical use",
    ):
        assert said in page.text, said
    row = {name: text[text.index(f'<th scope="row">{name}</th>') :].partition("</tr>")[0] for name in ("lem", "gap")}
    assert ["<b>" in row[name] for name in ("lem", "gap")] == [True, False]  # the best


def test_a_sentence_is_said_for_each_difference_that_is_shown_the_largest_first(written, tmp_path, capsys):
    for place, pooling in enumerate(("gap", "gmp", "lem", "lse")):
        predictions = predictions_of(error=0.05 if place < 2 else 2 * place, seed=place)
        write_run(tmp_path / "runs" / pooling, config=config_of(pooling), predictions=predictions)
    _, page = written(tmp_path / "runs", tmp_path / "out")
    for said in (page.text, capsys.readouterr().out):
        sizes = [abs(float(size)) for size in re.findall(r"(?:higher|lower) AUC than [\w-]+: ([+-][\d.]+)", said)]
        assert len(sizes) == 4
        assert sizes == sorted(sizes, reverse=True)


def test_the_page_names_no_patient_no_image_and_no_path(pages):
    text, _, folder = pages
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for secret in (NAME, "Mueller", "19670312", "/data", "/runs", str(folder), ".dcm", "a failed one", "_target_"):
        assert secret not in plain, secret
    assert NAME in (folder / "runs.csv").read_text()  # the whole message is there


def test_only_the_script_of_the_page_runs_and_every_picture_and_region_has_words(pages):
    _, page, _ = pages
    assert all("src" not in script for script in page.of("script"))
    assert "script-src 'sha256-" in page.of("meta")[3]["content"]
    assert all(image["alt"] for image in page.of("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key, ids[0]) in ids
        if attributes.get("role") == "region":
            assert "aria-label" in attributes
    assert all(link["href"][1:] in ids for link in page.of("a"))
    assert all("scope" in header for header in page.of("th"))


def test_hostile_words_stay_words(written, tmp_path):
    config = config_of(HOSTILE, choices={"backbone": HOSTILE})
    write_run(tmp_path / "s/a", config=config, overrides=[f"pooling={HOSTILE}"])
    write_run(tmp_path / "s/b")
    text, page = written(tmp_path / "s", tmp_path / "out", question=HOSTILE)
    assert len(page.of("script")) == 1
    assert "alert('x')" not in text.replace("alert(&#39;x", "")
    assert HOSTILE in page.text


def test_nothing_finished_is_a_page_all_the_same(written, tmp_path):
    write_state(tmp_path / "s/f", "failed", "no", config_of())
    write_state(tmp_path / "s/g", "failed", "no")
    _, page = written(tmp_path / "s", tmp_path / "out")
    for said in ("No run is finished", "listed, not compared", "2 of 2 runs are not done", "No run left a leak report"):
        assert said in page.text
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["report.html", "runs.csv"]


def test_one_class_only_is_a_page_with_reasons(written, tmp_path):
    for pooling in ("lem", "gap"):
        write_run(tmp_path / f"s/{pooling}", config=config_of(pooling), predictions=predictions_of().assign(label=0))
    _, page = written(tmp_path / "s", tmp_path / "out")
    assert "No difference between any two methods." in page.text
    assert "one class only" in (tmp_path / "out/differences.csv").read_text()


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


def test_the_command_hides_paths_and_differing_settings_leave_them_and_the_machine_out(tmp_path):
    words = ["pooling=lem", "dataset.root=/data", "+own.file=x", "store=~/x", "experiment=a/b"]
    hidden = "dataset.root=... +own.file=... store=... experiment=..."
    assert public_command("train", words) == f"python -m lemlight.train pooling=lem {hidden}"
    write_run(tmp_path / "a", config=config_of("lem", 0, workers=3))
    write_run(tmp_path / "b", config=config_of("gap", 0, dataset={"root": "/elsewhere"}))
    numbers, settings = differing_settings(find_runs(tmp_path))
    assert numbers == [1, 2]
    assert settings == {"pooling": ["lem", "gap"], "pooling.aggregate": ["mean", "(none)"]}


def test_equal_leak_reports_stand_once_without_names(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "s")
    changed = tmp_path / "s/pooling=gap+seed=0/leaks.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"scheme": "column"}))
    (tmp_path / "s/pooling=gap+seed=1/leaks.json").unlink()
    reports = leak_reports(find_runs(tmp_path))
    assert list(reports.values()) == [[1], [3, 4]]
    assert NAME not in repr(reports)


def drawn_of(patients=10, malignant=3, views=4):
    """A table of images, and which of them are drawn as examples."""
    rows = [(f"i{p}_{v}", f"p{p}", int(p < malignant)) for p in range(patients) for v in range(views)]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "label"])
    return table, draw_examples(table)


def test_the_examples_of_a_run_depend_on_the_images_alone_and_spread_over_classes_and_patients():
    table, drawn = drawn_of()
    ids = drawn["image_id"].tolist()
    assert ids == draw_examples(table.sample(frac=1, random_state=7))["image_id"].tolist()
    assert len(set(ids)) == 6
    assert drawn["label"].tolist() == [1, 1, 1, 1, 0, 0]
    assert drawn["patient_id"][:3].nunique() == 3  # of three malignant patients each is there before any comes again
    assert drawn["patient_id"][4:].nunique() == 2
    few = [(0, 0, 1), (1, 1, 2), (3, 0, 1), (2, 1, 1)]
    assert [len(drawn_of(*counts)[1]) for counts in few] == [0, 2, 2, 2]


@pytest.fixture
def root(tmp_path):
    for pooling in ("gap", "lem"):
        write_run(tmp_path / "runs" / pooling, config=config_of(pooling), pictures=3)
    return tmp_path / "runs"


def examples(root):
    return read_examples(compare_runs(find_runs(root), 100).groups)


def test_examples_are_the_images_that_all_methods_share(root):
    path = root / "gap/examples/examples.csv"
    rows = pd.read_csv(path)
    rows[::-1][:2].to_csv(path, index=False)  # without the first image, in another order
    write_run(root / "without", config=config_of("gmp"))
    found = examples(root)
    assert [list(image) for image in found] == [["gap", "lem"]] * 2
    assert [image["gap"].item.image.shape for image in found] == [(90, 40), (80, 40)]
    example = found[1]["gap"]
    assert example.item.label == predictions_of()["label"][1]
    assert example.malignant == (predictions_of()["probability"][1] > 0.5)
    assert example.item.mask[10, 10]
    assert (example.item.maxima[1, 1], example.item.minima[0, 1]) == (True, True)
    for pooling in ("lem", "gap"):
        shutil.rmtree(root / pooling / "examples")
    assert examples(root) == []


def test_large_pictures_are_made_small(root):
    for kind in ("image", "map", "lesions"):
        assert cv2.imwrite(str(root / f"lem/examples/1_{kind}.png"), np.zeros((1200, 600), np.uint8))
    example = examples(root)[0]["lem"]
    assert example.item.image.shape == example.strength.shape == example.item.mask.shape == (400, 200)


@pytest.mark.parametrize("content", ["no array", "pickle", "shape", "nan", "words", "cut", "another size"])
def test_a_damaged_or_misfit_map_is_passed_over_and_no_code_is_loaded(content, root):
    path, good = root / "lem/examples/2_scores.npz", np.zeros((2, 2), bool)
    scores = {
        "pickle": np.array([[object()]]),
        "words": np.array([["a", "b"]]),
        "shape": np.zeros((2, 3)),
        "nan": np.full((2, 2), np.nan),
    }
    if content in scores:
        np.savez(path, score_map=scores[content], maxima=good, minima=good)
    elif content == "another size":
        assert cv2.imwrite(str(root / "lem/examples/2_map.png"), np.zeros((7, 9), np.uint8))
    else:
        path.write_bytes(path.read_bytes()[:200] if content == "cut" else content.encode())
    assert [list(image) for image in examples(root)] == [["gap", "lem"], ["gap"], ["gap", "lem"]]


def test_a_map_is_see_through_where_it_is_zero_its_regions_have_borders_and_lesions_are_dashed():
    strength = np.zeros((40, 50), np.uint8)
    strength[10:30, 10:30] = 200
    strength[20, 20] = 255
    layer = map_layer(strength, 0.5)
    assert (layer[0, 0, 3], layer[9, 20, 3]) == (0, 255)
    assert 150 < layer[20, 20, 3] < 255
    assert not map_layer(np.zeros((7, 9), np.uint8), 0.0)[..., 3].any()  # no map, no region
    read = cv2.imdecode(np.frombuffer(base64.b64decode(png(layer)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (read == layer[..., [2, 1, 0, 3]]).all()
    lesions = np.zeros((80, 80), bool)
    lesions[20:60, 20:60] = True
    layer = lesion_layer(lesions)
    assert {tuple(pixel) for pixel in layer[20, 22:58]} == {(0, 0, 0, 0), (255, 255, 255, 255)}
    assert not layer[30:50, 30:50].any()


def test_each_method_has_a_scale_of_its_own_and_maps_of_zeros_are_drawn(root, tmp_path, monkeypatch):
    scores = np.full((2, 2), -7, np.float32)
    np.savez(root / "lem/examples/1_scores.npz", score_map=scores, maxima=scores > 0, minima=scores > 0)
    items = [{method: one.item for method, one in image.items()} for image in examples(root)[:1]]
    scales = []
    with monkeypatch.context() as patch:
        patch.setattr("lemlight.plots.panels.draw_scores", lambda axes, item, scale: scales.append(scale.vmax))
        score_map_panels(items, tmp_path / "scores.png")
    assert scales == [3, 7]
    items[0]["gap"].score_map[:] = 0
    assert cv2.imread(str(score_map_panels(items, tmp_path / "scores.png"))).std() > 0
    assert score_map_panels([{}], tmp_path / "none.png") is None


def test_methods_look_different_and_a_forest_of_too_many_pairs_keeps_those_of_the_best(tmp_path):
    marks = method_marks(str(number) for number in range(24))
    assert len({(mark["color"], mark["linestyle"]) for mark in marks.values()}) == 24
    poolings = ("lem", "gap", "gmp", "rgp", "ggp", "lse", "peak", "max_min", "sparse_mil", "attention_mil")
    comparison = compare_runs(find_runs(write_sweep(tmp_path, poolings, (0,), pictures=0)), 2000).comparison
    pairs, title = forest_pairs(comparison, "auroc")
    assert len(comparison.pairs) > MOST_PAIRS
    assert len(pairs) == 9
    assert "9 of 45 pairs, those with lem" in title
