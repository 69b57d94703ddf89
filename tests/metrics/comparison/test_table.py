import numpy as np
import pandas as pd
import pytest

from lemlight.errors import LemlightError
from lemlight.metrics.trials import read_trials

IMAGES = ["c", "a", "b", "d"]


def rows(method, seed=0, images=IMAGES, repeat="seed", **columns):
    """What the table holds of one training: patient and label follow from the image."""
    images = list(images)
    whole = {
        "method": method,
        repeat: seed,
        "image_id": images,
        "patient_id": ["p" + ("1" if image in "ab" else "2") for image in images],
        "label": [int(image in "ac") for image in images],
        "probability": np.linspace(0.1, 0.9, len(images)),
        "prediction": np.linspace(0.1, 0.9, len(images)) > 0.5,
    }
    return pd.DataFrame(whole | columns)


def cross_validation(method, *folds):
    """What the table holds of a method whose folds have these images."""
    return [rows(method, fold, images, "fold") for fold, images in enumerate(folds)]


def table(*parts):
    return pd.concat(parts, ignore_index=True)


def refusal(predictions, **options):
    with pytest.raises(LemlightError) as error:
        read_trials(predictions, **options)
    return str(error.value)


def test_all_trainings_come_in_one_order_of_the_images():
    shuffled = rows("GAP", 1).sample(frac=1, random_state=3)
    trials = read_trials(table(rows("LEM", 1), rows("LEM", 2, probability=0.3), shuffled))
    assert trials.repeat == "seed"
    assert trials.image_ids.tolist() == ["a", "b", "c", "d"]
    assert trials.patients.tolist() == ["p1", "p1", "p2", "p2"]
    assert list(trials.methods) == ["LEM", "GAP"]
    assert [training.name for training in trials.methods["LEM"]] == ["1", "2"]
    (lem, _), (gap,) = trials.methods.values()
    for training in (lem, gap):
        assert training.outcomes.truth.tolist() == [True, False, True, False]
        np.testing.assert_allclose(training.outcomes.probability, [0.1 + 0.8 / 3, 0.1 + 1.6 / 3, 0.1, 0.9])
        assert training.outcomes.called.tolist() == [False, True, False, True]
        assert training.outcomes.dsc is None


def test_folds_are_parts_of_the_images():
    trials = read_trials(table(*cross_validation("LEM", "ab", "dc"), *cross_validation("GAP", "ab", "dc")))
    assert trials.repeat == "fold"
    assert [training.images.tolist() for training in trials.methods["GAP"]] == [[0, 1], [2, 3]]
    assert trials.methods["GAP"][1].outcomes.truth.tolist() == [True, False]


def test_the_dice_is_taken_where_there_is_one():
    trials = read_trials(table(*(rows(method, dsc=[0.5, np.nan, 0.25, 1]) for method in ("LEM", "GAP"))))
    np.testing.assert_array_equal(trials.methods["LEM"][0].outcomes.dsc, [np.nan, 0.25, 0.5, 1])
    different = table(rows("LEM", dsc=[0.5, np.nan, 0.25, 1]), rows("GAP", dsc=[0.5, 0.1, 0.25, 1]))
    assert "1 image (a) with a Dice in some methods only" in refusal(different)
    assert "dsc must lie in" in refusal(rows("LEM", dsc=[0.5, 2, 0.25, 1]))


def test_other_images_are_named_and_left_out_only_if_asked():
    short = table(
        rows("LEM"), rows("GAP", 0), rows("GAP", 1, ["a", "c", "d"]), rows("CAM", images=["a", "b", "c", "e"])
    )
    message = refusal(short)
    assert "GAP (seed 1) lacks 2 images (b, e) of 5" in message
    assert "CAM (seed 0) lacks 1 image (d) of 5" in message
    assert "common_only" in message
    trials = read_trials(short, common_only=True)
    assert trials.image_ids.tolist() == ["a", "c"]
    assert trials.images_left_out == 3
    assert "no image" in refusal(table(rows("LEM", images=["a"]), rows("GAP", images=["b"])), common_only=True)


def test_a_long_list_of_images_is_cut():
    long = table(rows("LEM", images=[f"i{number}" for number in range(9)]), rows("GAP", images=["i0"]))
    assert "lacks 8 images (i1, i2, i3, ...) of 9" in refusal(long)


def test_everything_that_disagrees_is_said_at_once():
    wrong = table(rows("LEM"), rows("GAP", label=[0, 1, 1, 0], patient_id=["p1", "p1", "p1", "p2"]), rows("LEM"))
    message = refusal(wrong)
    assert "4 images (c, a, b, ...) several times" in message
    assert "2 images (b, c) with another label" in message
    assert "1 image (c) with another patient_id" in message


def test_folds_that_differ_or_share_a_patient_are_refused():
    shared = refusal(table(*cross_validation("LEM", "ac", "bd"), *cross_validation("GAP", "ac", "bd")))
    assert "2 patients are in several folds" in shared
    moved = refusal(table(*cross_validation("LEM", "ab", "cd"), *cross_validation("GAP", "cd", "ab")))
    assert "4 images (a, b, c, ...) with another fold" in moved
    assert "several folds" not in moved
    assert "several times" in refusal(table(*cross_validation("LEM", "ab", "ab")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": [0.1, 0.2, 0.3, 4]}, "logits"),
        ({"probability": [0.1, 0.2, 0.3, np.nan]}, "NaN"),
        ({"label": [0, 1, 2, 0]}, "neither 0"),
        ({"prediction": [0, 1, 0.5, 0]}, "prediction must be 1"),
        ({"prediction": ["no", "yes", "no", "no"]}, "prediction must be 1"),
        ({"patient_id": ["p", None, "p", "p"]}, "rows without patient_id"),
        ({"fold": 0}, "has 2 of them"),
    ],
)
def test_values_that_cannot_be_are_refused(change, message):
    assert message in refusal(rows("LEM", **change))


def test_missing_columns_and_rows_are_refused():
    message = refusal(rows("LEM").drop(columns=["seed", "label"]))
    assert "lacks the columns label" in message
    assert "has 0 of them" in message
    assert "no rows" in refusal(rows("LEM").iloc[:0])
