"""The same mammogram under every method, and the marks that tell the methods apart."""

import base64
import io
import shutil

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from lemlight.plots.comparison import MOST_PAIRS, forest_pairs
from lemlight.plots.style import method_marks
from lemlight.recipe.report import find_everything
from lemlight.reporting.runs import EDGE, LEVELS, REGION, WHITE, lesion_pixels, overlay_pixels, read_mammograms
from tests.layouts.run_folders import config_of, predictions_of, write_run, write_sweep


def test_mammograms_are_the_ones_all_methods_share(tmp_path):
    root = write_sweep(tmp_path, seeds=(0,))
    path = root / "pooling=gap+seed=0/examples/examples.csv"
    rows = pd.read_csv(path)
    rows[::-1][:2].to_csv(path, index=False)  # without the first image, in another order
    write_run(root / "without", config=config_of("gmp"))
    found = read_mammograms(find_everything(root, 1000).groups)
    assert [mammogram.height for mammogram in found] == [90, 80]
    assert [overlay.method for overlay in found[0].overlays] == ["GAP", "LEM"]
    assert found[0].label == int(predictions_of()["label"][2])
    shutil.rmtree(root / "pooling=lem+seed=0/examples")
    shutil.rmtree(root / "pooling=gap+seed=0/examples")
    assert read_mammograms(find_everything(root, 1000).groups) == []


def test_an_overlay_shows_the_map_and_borders_its_regions(tmp_path):
    strength = np.zeros((40, 50), np.uint8)
    strength[10:30, 10:30] = 200
    strength[20, 20] = 255
    pixels = overlay_pixels(strength, 0.5)
    assert pixels[20, 20] == LEVELS - 1
    assert pixels[0, 0] == 0
    assert pixels[10, 20] == REGION
    assert {pixels[9, 20], pixels[11, 20]} == {EDGE}
    assert (overlay_pixels(np.zeros((7, 9), np.uint8), 0.0) == 0).all()  # no map, no region


def test_lesions_are_dashed(tmp_path):
    lesions = np.zeros((80, 80), bool)
    lesions[20:60, 20:60] = True
    pixels = lesion_pixels(lesions)
    top = pixels[18:22].max(axis=0)[22:58]
    assert (top == WHITE).any()
    assert (top == 0).any()
    assert (pixels[30:50, 30:50] == 0).all()


def test_pictures_are_small_and_see_through(tmp_path):
    run = write_run(tmp_path / "a", pictures=1)
    large = np.full((1200, 600), 255, np.uint8)
    large[:400] = 0
    for kind in ("image", "map", "lesions"):
        assert cv2.imwrite(str(run / f"examples/1_{kind}.png"), large)
    (found,) = read_mammograms(find_everything(tmp_path, 1000).groups)
    assert (found.width, found.height) == (200, 400)
    picture = Image.open(io.BytesIO(base64.b64decode(found.overlays[0].png))).convert("RGBA")
    assert picture.size == (200, 400)
    assert picture.getpixel((100, 50))[3] == 0
    assert picture.getpixel((100, 300))[3] > 150


def test_methods_look_different():
    marks = method_marks(str(number) for number in range(24))
    assert len({(mark["color"], mark["linestyle"]) for mark in marks.values()}) == 24


def test_a_forest_of_too_many_pairs_keeps_those_of_the_best(tmp_path):
    poolings = ("lem", "gap", "gmp", "rgp", "ggp", "lse", "peak", "max_min", "sparse_mil", "attention_mil")
    comparison = find_everything(write_sweep(tmp_path, poolings, (0,), pictures=0), 2000).comparison
    pairs, title = forest_pairs(comparison, "auroc")
    assert len(comparison.pairs) > MOST_PAIRS
    assert len(pairs) == 9
    assert "9 of 45 pairs, those with LEM" in title
