import pytest

from lemlight.metrics.bootstrap import Estimate
from lemlight.metrics.comparison import Difference, p_text, sentence

FOUND = Difference(Estimate(0.05, 0.01, 0.09), 0.0004)
OPEN = Difference(Estimate(0.02, -0.03, 0.07), 0.41)


def test_a_difference_is_claimed_with_interval_and_corrected_p_value():
    assert sentence("auroc", "LEM", "GAP", FOUND, 0.012, 45) == (
        "LEM has a higher AUC than GAP: +0.050 [0.010, 0.090], p = 0.012 after correction for 45 comparisons"
    )


def test_no_difference_shown_is_not_the_same_as_none():
    assert sentence("auroc", "LEM", "GAP", OPEN, 0.41, 1) == (
        "no difference in AUC shown between LEM and GAP: +0.020 [-0.030, 0.070], p = 0.41"
    )


def test_where_the_correction_undoes_a_difference_the_sentence_says_so():
    assert sentence("acc", "LEM", "GAP", FOUND, 0.2, 45) == (
        "no difference in accuracy shown between LEM and GAP: +0.050 [0.010, 0.090], p = 0.20 after correction for "
        "45 comparisons (p < 0.001 before)"
    )


def test_a_lower_brier_score_is_better():
    lower = Difference(Estimate(-0.02, -0.03, -0.0001), 0.01)
    assert sentence("brier", "LEM", "GAP", lower, 0.01, 1) == (
        "LEM has a lower Brier score (better) than GAP: -0.020 [-0.030, 0.000], p = 0.010"
    )
    assert "higher Brier score (worse)" in sentence("brier", "LEM", "GAP", FOUND, 0.0004, 1)


def test_a_method_against_itself_has_no_interval_but_a_sentence():
    same = Difference(Estimate(0.0, reason="every resample gives the same difference"), 1.0)
    assert sentence("f1", "A", "B", same, 1.0, 1) == "no difference in F1 shown between A and B: +0.000, p = 1.00"


def test_what_cannot_be_tested_says_why():
    none = Difference(Estimate(None, reason="no malignant image"), None)
    assert sentence("f1", "A", "B", none, None, 0) == "F1 of A and B cannot be tested: no malignant image"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.00099, "p < 0.001"), (0.001, "p = 0.001"), (0.05, "p = 0.050"), (0.0501, "p > 0.050"), (0.1, "p = 0.10")],
)
def test_a_p_value_is_never_rounded_across_five_percent(p, text):
    assert p_text(p) == text
