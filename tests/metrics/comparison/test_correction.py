import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemlight.errors import LemlightError
from lemlight.metrics.comparison import holm

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def test_a_hand_worked_example():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; the last is raised to the one before.
    corrected, rank = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(corrected, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_array_equal(rank, [2, 4, 3, 1])


def test_one_comparison_is_not_corrected_and_none_are_none():
    assert holm([0.04]).p_corrected == pytest.approx([0.04])
    assert holm([]).p_corrected.size == 0


def test_equal_p_values_are_corrected_alike_and_ranked_in_their_order():
    corrected, rank = holm([0.02, 0.5, 0.02])
    np.testing.assert_allclose(corrected, [0.06, 0.5, 0.06])
    np.testing.assert_array_equal(rank, [1, 3, 2])


@given(P_VALUES)
def test_the_correction_rejects_what_the_step_down_procedure_rejects(p_values):
    rejected, order = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
    for step, place in enumerate(order):
        if p_values[place] * (len(p_values) - step) > 0.05:
            break
        rejected.add(place)
    corrected = holm(p_values).p_corrected
    assert set(np.flatnonzero(corrected <= 0.05).tolist()) == rejected
    assert np.all(corrected >= np.array(p_values))
    assert np.all(corrected <= np.minimum(1, np.array(p_values) * len(p_values)))


@pytest.mark.parametrize("wrong", [[0.1, float("nan")], [1.2], [-0.1], [[0.1]]])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(LemlightError, match="p-values"):
        holm(wrong)
