"""Settings pooled over runs: what a run keeps, against the map itself; the choice, against a naive account."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.localization.attribution import explain
from lemlight.localization.choice import RegionSettings
from lemlight.localization.pooled import Tried, choose_column, pool, read_tried, write_tried
from lemlight.localization.regions import cutoff_in, smoothed
from lemlight.metrics.overlap import near_lesions, pointing
from tests.localization.test_evaluation import make_place, survey


def tried(image_ids, dice, points=None):
    """Two pairs at one cutoff by one rule, the first the default; dice and points (N, 2)."""
    dice = np.asarray(dice, np.float16).reshape(len(image_ids), 1, 2, 1)
    points = np.zeros((len(image_ids), 2)) if points is None else np.asarray(points)
    return Tried(
        np.array(image_ids, dtype=np.str_), np.array(["maximum"]), np.array([[0.5, 8.0], [1.0, 4.0]]), np.array([0.33]),
        np.array([0, 0, 0]), dice, points.astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given_values", "shape"),
    [("importance", {}, (2, 16, 129)), ("cam", {"keep": 0.5}, (2, 4, 129)), ("cam", {"cutoff": 0.4}, (1, 4, 1))],
)
def test_a_run_keeps_the_dice_and_the_pointing_of_each_candidate_on_each_image_with_a_lesion(name, given_values, shape):
    place = make_place(compare=["cam"], cutoff_by="mass", **given_values)
    ids = place.known("val")
    kept = survey(place, name, ids, RegionSettings(keep=0.6, smoothing=3.0, cutoff=0.3)).tried
    assert kept.image_ids.tolist() == place.with_a_lesion("val")
    assert kept.dice.shape[1:] == shape
    default = kept.settings(tuple(kept.default))
    assert (default.smoothing, default.cutoff_by) == (place.output_stride / 4, "mass")
    assert default.cutoff == pytest.approx(given_values.get("cutoff", 0.33), abs=0.0005)
    method = place.settings.methods[name]
    for index in [tuple(kept.default), (0, 3, 0), (shape[0] - 1, 1, shape[2] - 1), (0, shape[1] - 1, shape[2] // 3)]:
        settings = kept.settings(index)
        for row, (image_id, found) in enumerate(kept.at(index).iterrows()):
            explained = explain(place.classifier, place.images([image_id]), method, keep=settings.keep)
            strength, lesions = smoothed(explained.maps[0].numpy(), settings.smoothing), place.lesions(image_id)
            mask = strength >= cutoff_in(strength, settings)
            dice = 2 * np.sum(mask & (lesions > 0)) / (mask.sum() + np.sum(lesions > 0))
            assert found["dsc"] == pytest.approx(dice, abs=0.0003), (index, row)
            assert found["pointing"] == pytest.approx(pointing(strength, near_lesions(lesions, 0.96)))


@given(st.integers(0, 9), st.integers(1, 6), st.integers(0, 10**6))
def test_the_choice_is_the_best_mean_if_it_gains_more_than_one_standard_error(images, columns, seed):
    generator = np.random.default_rng(seed)
    dice = generator.integers(0, 4, (images, columns)) / 4  # with ties
    default = int(generator.integers(columns))
    expected = default
    if images:
        means = [sum(dice[:, column]) / images for column in range(columns)]
        tied = [column for column in range(columns) if means[column] == max(means)]
        best = tied[(len(tied) - 1) // 2]
        gains = pd.Series(dice[:, best] - dice[:, default])
        assume(images < 2 or abs(gains.mean() - gains.sem()) > 1e-9)
        if images > 1 and gains.mean() > gains.sem():
            expected = best
    assert choose_column(dice, default) == expected


def test_all_validation_images_of_all_runs_choose_and_the_test_images_are_looked_up():
    # each run alone has one image, which shows nothing; together they show the second pair
    validation = [tried(["a"], [[0.2, 0.4]]), tried(["b"], [[0.25, 0.5]]), tried([], [])]
    tested = [tried(["x", "y"], [[0.5, 0.25], [0.5, 0.75]], [[1, 0], [1, 0.5]])] * 3
    found = pool(validation, tested)
    assert found.settings == RegionSettings(keep=1.0, smoothing=4.0, cutoff=0.33)
    assert (found.chosen, found.images, found.oracle) == (True, 2, 0.5)
    for one in found.found:
        assert one["dsc"].to_dict() == {"x": 0.25, "y": 0.75}
        assert one["pointing"].to_dict() == {"x": 0, "y": 0.5}
    assert not pool([tried([], [])] * 3, tested).chosen
    assert np.isnan(pool(validation, [*tested[:2], tried([], [])]).oracle)


def test_an_image_that_validates_several_runs_is_one_image():
    # b gains 0.5 in three runs, a loses 0.3 in one: alike by images, not by rows
    validation = [tried(["a", "b"], [[0.5, 0.2], [0.2, 0.7]]), tried(["b"], [[0.2, 0.7]]), tried(["b"], [[0.2, 0.7]])]
    assert not pool(validation, [tried(["x"], [[0, 1]])] * 3).chosen


def test_in_folds_the_images_of_a_test_do_not_choose_its_settings():
    worse, better = [0.3, 0.2], [0.2, 0.9]
    first = tried(["a", "b", "c"], [better, better, better])  # tested in the other fold
    second = tried(["d", "e", "f"], [worse, worse, worse])
    found = pool([first, second], [second, first])
    assert [one["dsc"].iloc[0] for one in found.found] == pytest.approx([0.2, 0.2], abs=0.001)
    assert found.settings.keep == 1.0  # for new images, all of them choose
    assert found.images == 6


def test_runs_that_tried_other_settings_are_not_pooled():
    one = tried(["a"], [[0, 1]])
    with pytest.raises(LemlightError, match=r"try different settings \(localization.keep"):
        pool([one, one], [one, replace(one, pairs=one.pairs + 1)])


def test_what_is_read_is_what_was_written_and_damage_is_one_sentence(tmp_path):
    kept = {"own/map": tried(["a", "b"], [[0, 1], [0.5, 0.25]]), "cam": tried([], [])}
    path = tmp_path / "localization_val.npz"
    write_tried(kept, path)
    found = read_tried(path)
    assert list(found) == list(kept)
    for name, one in kept.items():
        for key, array in vars(one).items():
            np.testing.assert_array_equal(getattr(found[name], key), array)
    whole = path.read_bytes()
    write_tried({"cam": replace(kept["own/map"], dice=np.zeros((2, 2), np.float16))}, path)
    for content in (path.read_bytes(), whole[:300], b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(LemlightError, match=r"localization_val\.npz is damaged: train again"):
            read_tried(path)
