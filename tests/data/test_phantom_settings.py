"""Settings of the phantom: what is refused, and which folder they name."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.data.phantom.patients import PhantomSettings, draw_lesion, draw_patient, in_turn
from lemlight.errors import LemlightError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patients", 0),
        ("patients", 10_000),
        ("patients", 2.5),
        ("patients", True),
        ("seed", -1),
        ("difficulty", 1.01),
        ("difficulty", math.nan),
        ("difficulty", "hard"),
        ("scale", 0),
        ("scale", math.inf),
        ("malignant_share", -0.1),
        ("benign_share", 2),
    ],
)
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(LemlightError, match=name):
        PhantomSettings(**{name: value})


def test_all_problems_are_named_at_once():
    with pytest.raises(LemlightError, match=r"patients.*difficulty.*scale"):
        PhantomSettings(patients=-1, difficulty=7, scale=0)


def test_the_folder_depends_on_every_setting():
    default = PhantomSettings()
    changes = {
        "patients": 3,
        "seed": 1,
        "difficulty": 0.1,
        "scale": 0.5,
        "malignant_share": 0.2,
        "benign_share": 0.2,
    }
    assert set(changes) == set(default.stamp()) - {"generator_version"}
    names = {PhantomSettings(**{name: value}).folder_name() for name, value in changes.items()}
    assert len(names | {default.folder_name()}) == len(changes) + 1


def test_whole_numbers_are_as_good_as_decimals():
    assert PhantomSettings(scale=1).folder_name() == PhantomSettings(scale=1.0).folder_name()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.45, 0.5]))
def test_any_run_of_patients_has_its_share_of_malignant_ones(seed, share):
    phantom = PhantomSettings(seed=seed, malignant_share=share)
    sides = [draw_patient(phantom, number).malignant_side for number in range(60)]
    assert abs(sum(map(bool, sides)) / 60 - share) < 0.06


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(2, 7))
def test_options_in_turn_show_each_once_in_every_block(seed, what, count):
    phantom = PhantomSettings(seed=seed)
    for block in range(3):
        options = [in_turn(phantom, what, block * count + place, count) for place in range(count)]
        assert sorted(options) == list(range(count))


def test_nothing_but_the_lesion_depends_on_the_label():
    healthy = PhantomSettings(seed=4, malignant_share=0.0, benign_share=0.0)
    ill = PhantomSettings(seed=4, malignant_share=1.0, benign_share=1.0)
    for number in range(20):
        without, with_lesion = draw_patient(healthy, number), draw_patient(ill, number)
        assert without.malignant_side == ""
        assert with_lesion.malignant_side in ("L", "R")
        assert {**vars(without), "malignant_side": ""} == {**vars(with_lesion), "malignant_side": ""}
        assert draw_lesion(healthy, without, "L") is None
        kinds = {side: draw_lesion(ill, with_lesion, side) for side in ("L", "R")}
        malignant = {
            side for side, lesion in kinds.items() if lesion.finding in ("spiculated_mass", "calcification_cluster")
        }
        assert malignant == {with_lesion.malignant_side}
