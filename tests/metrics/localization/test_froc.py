import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.metrics import overlap as blocks
from lemlight.metrics.localization import RATES, collect, curve, weighted_sensitivity

scores = st.lists(st.integers(1, 8).map(lambda level: level / 8), max_size=6)
lesion_scores = st.lists(st.one_of(st.just(np.nan), st.integers(1, 8).map(lambda level: level / 8)), max_size=3)
images = st.lists(st.tuples(lesion_scores, scores), min_size=1, max_size=6)


def findings_of(cases):
    return collect(*([np.array(part, float) for part in parts] for parts in zip(*cases, strict=True)))


def naive_curve(cases):
    """Sensitivity and false positives per image at every score, counted anew, from the strictest on."""
    found = [score for lesions, _ in cases for score in lesions if not np.isnan(score)]
    false = [score for _, regions in cases for score in regions]
    lesions = sum(len(lesions) for lesions, _ in cases)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(found + false), reverse=True):
        points.append(
            (
                sum(score >= threshold for score in false) / len(cases),
                sum(score >= threshold for score in found) / lesions,
            )
        )
    return points


def naive_sensitivity(cases, rate):
    points = naive_curve(cases)
    reached = [index for index, (false, _) in enumerate(points) if false <= rate][-1]
    (false, found), following = points[reached], points[reached + 1 : reached + 2]
    return found + sum((rate - false) / (x - false) * (y - found) for x, y in following)


def test_the_drawn_case():
    # 4 images, 4 lesions; by score: lesion 0.9; false 0.8; lesion 0.7 and false 0.7; false 0.5 twice; lesion 0.4
    cases = [([0.9, np.nan], [0.8]), ([0.7], [0.5]), ([], [0.7, 0.5]), ([0.4], [])]
    false_positives, sensitivity = curve(findings_of(cases))
    # false positives per image 0, 0, 1/4, 2/4, 1, 1 with 0, 1, 1, 2, 2, 3 of 4 lesions
    assert false_positives == [0, 0, 0.25, 0.5, 1, 1]
    assert sensitivity == [0, 0.25, 0.25, 0.5, 0.5, 0.75]
    value = weighted_sensitivity(findings_of(cases), np.ones((1, 4)))
    np.testing.assert_allclose(value, [[0.25, 0.5, 0.75, 0.75, 0.75, 0.75]])


@settings(deadline=None, max_examples=100)
@given(images)
def test_sensitivity_agrees_with_counting_at_every_score(cases):
    value = weighted_sensitivity(findings_of(cases), np.ones((1, len(cases))))[0]
    if not any(lesions for lesions, _ in cases):
        assert np.isnan(value).all()
    else:
        np.testing.assert_allclose(value, [naive_sensitivity(cases, rate) for rate in RATES], atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(images)
def test_the_curve_is_the_one_of_every_score_without_the_points_on_straight_lines(cases):
    found = findings_of(cases)
    false_positives, sensitivity = curve(found)
    if not any(lesions for lesions, _ in cases):
        assert false_positives == sensitivity == []
        return
    points = naive_curve(cases)
    kept = list(zip(false_positives, sensitivity, strict=True))
    assert kept[0] == (0, 0)
    assert kept[-1] == pytest.approx(points[-1])
    assert len(kept) <= len(points)
    at = np.interp(RATES, false_positives, sensitivity)
    np.testing.assert_allclose(at, weighted_sensitivity(found, np.ones((1, len(cases))))[0], atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(images, st.integers(0, 1000))
def test_a_weight_repeats_an_image(cases, seed):
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(cases))).astype(float)
    weights[:, 0] += 1
    value = weighted_sensitivity(findings_of(cases), weights)
    for row, expected in zip(weights, value, strict=True):
        repeated = [case for case, times in zip(cases, row, strict=True) for _ in range(int(times))]
        again = weighted_sensitivity(findings_of(repeated), np.ones((1, len(repeated))))[0]
        np.testing.assert_allclose(again, expected, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    cases = [(generator.random(2), generator.random(5)) for _ in range(9)]
    weights = generator.integers(0, 3, (30, 9)).astype(float)
    whole = weighted_sensitivity(findings_of(cases), weights)
    monkeypatch.setattr(blocks, "LARGEST_BLOCK", 200)
    np.testing.assert_array_equal(weighted_sensitivity(findings_of(cases), weights), whole)


def test_no_candidates_find_nothing_and_no_images_define_nothing():
    assert weighted_sensitivity(findings_of([([np.nan], []), ([], [])]), np.ones((1, 2))).tolist() == [[0] * 6]
    assert curve(findings_of([([np.nan], [])])) == ([0], [0])
    nothing = collect([], [])
    assert np.isnan(weighted_sensitivity(nothing, np.ones((1, 0)))).all()
    assert curve(nothing) == ([], [])


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_monai(seed):
    froc = pytest.importorskip("monai.metrics.froc")
    generator = np.random.default_rng(seed)
    cases = []
    for _ in range(8):
        found = np.round(generator.random(generator.integers(0, 4)), 1) + 0.05
        found[generator.random(found.size) < 0.3] = np.nan
        cases.append((found, np.round(generator.random(generator.integers(0, 12)), 1) + 0.05))
    every = np.concatenate([found for found, _ in cases])
    # MONAI leaves out the lowest score, on the view that missed lesions have 0: give it a false positive of score 0.
    false = np.concatenate([*(regions for _, regions in cases), [0.0]])
    false_positives, sensitivity = froc.compute_froc_curve_data(false, np.nan_to_num(every), every.size, len(cases))
    value = weighted_sensitivity(findings_of(cases), np.ones((1, len(cases))))[0]
    np.testing.assert_allclose(value, np.interp(RATES, false_positives[::-1], sensitivity[::-1]), atol=1e-12)
    assert value.mean() == pytest.approx(froc.compute_froc_score(false_positives, sensitivity))
