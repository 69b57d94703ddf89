"""The example images under the maps of all methods: what is shown, what is passed over, and the figures of them."""

import base64
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from lemlight.plots.comparison import MOST_PAIRS, forest_pairs, score_map_panels
from lemlight.plots.style import method_marks
from lemlight.reporting.example_images import lesion_layer, map_layer, png, read_examples
from lemlight.reporting.methods import compare_runs
from lemlight.reporting.runs import find_runs
from tests.layouts.run_folders import config_of, predictions_of, write_run, write_sweep


@pytest.fixture
def root(tmp_path):
    for pooling in ("gap", "lem"):
        write_run(tmp_path / "runs" / pooling, config=config_of(pooling), pictures=3)
    return tmp_path / "runs"


def examples(root):
    return read_examples(compare_runs(find_runs(root), 100).groups)


def test_images_are_the_ones_all_methods_share(root):
    path = root / "gap/examples/examples.csv"
    rows = pd.read_csv(path)
    rows[::-1][:2].to_csv(path, index=False)  # without the first image, in another order
    write_run(root / "without", config=config_of("gmp"))
    found = examples(root)
    assert [list(image) for image in found] == [["gap", "lem"]] * 2
    assert [image["gap"].image.shape for image in found] == [(90, 40), (80, 40)]
    assert found[0]["gap"].label == predictions_of()["label"][2]
    assert found[0]["gap"].malignant == (predictions_of()["probability"][2] > 0.5)
    for pooling in ("lem", "gap"):
        shutil.rmtree(root / pooling / "examples")
    assert examples(root) == []


def test_large_pictures_are_made_small(root):
    for kind in ("image", "map", "lesions"):
        assert cv2.imwrite(str(root / f"lem/examples/1_{kind}.png"), np.zeros((1200, 600), np.uint8))
    example = examples(root)[0]["lem"]
    assert example.image.shape == example.strength.shape == example.lesions.shape == (400, 200)


def test_a_map_of_another_size_is_not_laid_over_the_image(root):
    assert cv2.imwrite(str(root / "lem/examples/1_map.png"), np.zeros((7, 9), np.uint8))
    assert examples(root)[0]["lem"].strength is None


def test_a_map_is_see_through_where_it_is_zero_and_its_regions_have_borders():
    strength = np.zeros((40, 50), np.uint8)
    strength[10:30, 10:30] = 200
    strength[20, 20] = 255
    layer = map_layer(strength, 0.5)
    assert layer[0, 0, 3] == 0
    assert 150 < layer[20, 20, 3] < 255
    assert layer[9, 20].tolist() == layer[11, 20].tolist() == [0, 0, 0, 255]
    assert layer[10, 20, 2] > layer[10, 20, 0]  # blue
    assert not map_layer(np.zeros((7, 9), np.uint8), 0.0)[..., 3].any()  # no map, no region
    read = cv2.imdecode(np.frombuffer(base64.b64decode(png(layer)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (read == layer[..., [2, 1, 0, 3]]).all()


def test_lesions_are_dashed():
    lesions = np.zeros((80, 80), bool)
    lesions[20:60, 20:60] = True
    layer = lesion_layer(lesions)
    assert {tuple(pixel) for pixel in layer[20, 22:58]} == {(0, 0, 0, 0), (255, 255, 255, 255)}
    assert not layer[30:50, 30:50].any()


def items(root):
    return [{method: one.sheet_item() for method, one in image.items()} for image in examples(root)]


def test_score_maps_have_their_extrema_and_lesions(root):
    found = items(root)
    assert [item.image.shape for image in found for item in image.values()] == [
        shape for shape in ((70, 40), (80, 40), (90, 40)) for _ in range(2)
    ]
    item = found[0]["lem"]
    assert item.mask[10, 10]
    assert item.maxima[1, 1]
    assert item.minima[0, 1]


@pytest.mark.parametrize(
    "content", [b"", b"no array", "pickle", "shape", "nan", "words", "empty", "npy", "cut", "bomb"]
)
def test_a_damaged_score_map_is_passed_over_and_no_code_is_loaded(content, root):
    path = root / "lem/examples/2_scores.npz"
    good = np.zeros((2, 2), bool)
    large = np.zeros((5000, 5000), np.float32)
    scores = {
        "pickle": np.array([[object()]]),
        "words": np.array([["a", "b"]]),
        "empty": good[:0],
        "shape": np.zeros((2, 3)),
        "nan": np.full((2, 2), np.nan),
    }
    if content == "bomb":
        np.savez_compressed(path, score_map=large, maxima=large > 0, minima=large > 0)
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, good)
    elif content in scores:
        extrema = good[:0] if content == "empty" else good
        np.savez(path, score_map=scores[content], maxima=extrema, minima=extrema)
    else:
        path.write_bytes(path.read_bytes()[:200] if content == "cut" else content)
    assert [image["lem"] is None for image in items(root)] == [False, True, False]


def test_each_method_has_a_scale_of_its_own(root, tmp_path, monkeypatch):
    for number in (1, 2, 3):
        scores = np.full((2, 2), -7, np.float32)
        np.savez(root / f"lem/examples/{number}_scores.npz", score_map=scores, maxima=scores > 0, minima=scores > 0)
    scales = []
    monkeypatch.setattr("lemlight.plots.comparison.draw_scores", lambda axes, item, scale: scales.append(scale.vmax))
    score_map_panels(items(root), tmp_path / "scores.png")
    assert scales == [3] * 3 + [7] * 3


def test_maps_of_zeros_are_drawn_and_without_maps_there_is_no_figure(root, tmp_path):
    nothing = np.zeros((2, 2))
    for path in root.glob("*/examples/*_scores.npz"):
        np.savez(path, score_map=nothing, maxima=nothing > 0, minima=nothing > 0)
    assert cv2.imread(str(score_map_panels(items(root), tmp_path / "scores.png"))).std() > 0
    assert score_map_panels([{}], tmp_path / "none.png") is None


def test_methods_look_different():
    marks = method_marks(str(number) for number in range(24))
    assert len({(mark["color"], mark["linestyle"]) for mark in marks.values()}) == 24


def test_a_forest_of_too_many_pairs_keeps_those_of_the_best(tmp_path):
    poolings = ("lem", "gap", "gmp", "rgp", "ggp", "lse", "peak", "max_min", "sparse_mil", "attention_mil")
    comparison = compare_runs(find_runs(write_sweep(tmp_path, poolings, (0,), pictures=0)), 2000).comparison
    pairs, title = forest_pairs(comparison, "auroc")
    assert len(comparison.pairs) > MOST_PAIRS
    assert len(pairs) == 9
    assert "9 of 45 pairs, those with lem" in title
