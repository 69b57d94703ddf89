"""Score maps of all methods side by side: what is drawn, and what is passed over."""

import shutil

import cv2
import numpy as np
import pytest

from lemlight.plots import comparison as score_maps
from lemlight.recipe.report import find_everything
from tests.layouts.run_folders import config_of, write_run


@pytest.fixture
def root(tmp_path):
    for pooling in ("gap", "lem"):
        write_run(tmp_path / pooling, config=config_of(pooling), pictures=3)
    return tmp_path


@pytest.fixture
def drawn(root, monkeypatch):
    """Draw, and give for every score map that was drawn its probability and what the scale ends at."""
    seen = []

    def draw(axes, item, scale):
        seen.append((item, scale.vmax))

    monkeypatch.setattr(score_maps, "draw_scores", draw)

    def drawing():
        seen.clear()
        return score_maps.score_map_panels(find_everything(root, 100).groups, root / "scores.png"), list(seen)

    return drawing


def test_every_image_is_drawn_under_every_method(root, drawn):
    path, seen = drawn()
    assert cv2.imread(str(path)).std() > 0
    assert len(seen) == 2 * 3
    assert [item.image.shape for item, _ in seen] == [(70, 40), (80, 40), (90, 40)] * 2
    assert all(item.mask[10, 10] and item.maxima[1, 1] and item.minima[0, 1] for item, _ in seen)


def test_each_method_has_a_scale_of_its_own(root, drawn):
    for number in (1, 2, 3):
        scores = np.full((2, 2), -7, np.float32)
        np.savez(root / f"lem/examples/{number}_scores.npz", score_map=scores, maxima=scores > 0, minima=scores > 0)
    assert [largest for _, largest in drawn()[1]] == [3] * 3 + [7] * 3


@pytest.mark.parametrize(
    "content", [b"", b"no array", "pickle", "shape", "nan", "words", "empty", "npy", "cut", "bomb"]
)
def test_a_damaged_score_map_is_passed_over_and_no_code_is_loaded(content, root, drawn):
    path = root / "lem/examples/2_scores.npz"
    good = np.zeros((2, 2), bool)
    if content == "pickle":
        np.savez(path, score_map=np.array([[object()]]), maxima=good, minima=good)
    elif content == "words":
        np.savez(path, score_map=np.array([["a", "b"]]), maxima=good, minima=good)
    elif content == "empty":
        np.savez(path, score_map=good[:0], maxima=good[:0], minima=good[:0])
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, good)
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif content == "bomb":
        large = np.zeros((5000, 5000), np.float32)
        np.savez_compressed(path, score_map=large, maxima=large > 0, minima=large > 0)
    elif content in ("shape", "nan"):
        np.savez(path, score_map=np.full((2, 2 + (content == "shape")), np.nan), maxima=good, minima=good)
    else:
        path.write_bytes(content)
    assert [item.image.shape[0] for item, _ in drawn()[1]] == [70, 80, 90, 70, 90]


def test_without_examples_there_is_no_figure(root, drawn):
    shutil.rmtree(root / "gap/examples")
    assert len(drawn()[1]) == 3
    shutil.rmtree(root / "lem/examples")
    assert drawn() == (None, [])


def test_maps_of_zeros_are_drawn(root):
    nothing = np.zeros((2, 2))
    for path in root.glob("*/examples/*_scores.npz"):
        np.savez(path, score_map=nothing, maxima=nothing > 0, minima=nothing > 0)
    assert score_maps.score_map_panels(find_everything(root, 100).groups, root / "scores.png").is_file()
