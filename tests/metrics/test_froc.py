"""FROC: drawn by hand, against flooding and counting at every score, and against MONAI."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.metrics import overlap
from lemlight.metrics.froc import RATES, Candidates, collect, curve, find_candidates, weighted_sensitivity
from lemlight.metrics.overlap import near_lesions
from tests.metrics.test_overlap import images as maps
from tests.metrics.test_overlap import naive_near, tolerances

scores = st.lists(st.integers(1, 8).map(lambda level: level / 8), max_size=6)
lesion_scores = st.lists(st.one_of(st.just(np.nan), st.integers(1, 8).map(lambda level: level / 8)), max_size=3)
images = st.lists(st.tuples(lesion_scores, scores), min_size=1, max_size=6)


def findings_of(cases):
    return collect([Candidates(*(np.array(part, float) for part in case)) for case in cases])


def naive_curve(cases):
    """Sensitivity and false positives per image at every score, counted anew, from the strictest on."""
    found = [score for lesions, _ in cases for score in lesions if not np.isnan(score)]
    false = [score for _, regions in cases for score in regions]
    lesions = sum(len(lesions) for lesions, _ in cases)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(found + false), reverse=True):
        at = [sum(score >= threshold for score in kind) for kind in (false, found)]
        points.append((at[0] / len(cases), at[1] / lesions))
    return points


def naive_sensitivity(cases, rate):
    points = naive_curve(cases)
    reached = [index for index, (false, _) in enumerate(points) if false <= rate][-1]
    (false, found), following = points[reached], points[reached + 1 : reached + 2]
    return found + sum((rate - false) / (x - false) * (y - found) for x, y in following)


def test_the_drawn_froc():
    # 4 images, 4 lesions; by score: lesion 0.9; false 0.8; lesion 0.7 and false 0.7; false 0.5 twice; lesion 0.4
    cases = [([0.9, np.nan], [0.8]), ([0.7], [0.5]), ([], [0.7, 0.5]), ([0.4], [])]
    # false positives per image 0, 0, 1/4, 2/4, 1, 1 with 0, 1, 1, 2, 2, 3 of 4 lesions
    assert curve(findings_of(cases)) == ([0, 0, 0.25, 0.5, 1, 1], [0, 0.25, 0.25, 0.5, 0.5, 0.75])
    value = weighted_sensitivity(findings_of(cases), np.ones((1, 4)))
    np.testing.assert_allclose(value, [[0.25, 0.5, 0.75, 0.75, 0.75, 0.75]])


@settings(deadline=None, max_examples=100)
@given(images, st.integers(0, 1000))
def test_froc_agrees_with_counting_at_every_score_and_a_weight_repeats_an_image(cases, seed):
    found = findings_of(cases)
    value = weighted_sensitivity(found, np.ones((1, len(cases))))[0]
    false_positives, sensitivity = curve(found)
    if not any(lesions for lesions, _ in cases):
        assert np.isnan(value).all()
        assert false_positives == sensitivity == []
        return
    np.testing.assert_allclose(value, [naive_sensitivity(cases, rate) for rate in RATES], atol=1e-12)
    # the curve is the one of every score without the points on straight lines
    points, kept = naive_curve(cases), list(zip(false_positives, sensitivity, strict=True))
    assert kept[0] == (0, 0)
    assert kept[-1] == pytest.approx(points[-1])
    assert len(kept) <= len(points)
    np.testing.assert_allclose(np.interp(RATES, false_positives, sensitivity), value, atol=1e-12)
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(cases))).astype(float)
    weights[:, 0] += 1
    for row, expected in zip(weights, weighted_sensitivity(found, weights), strict=True):
        repeated = [case for case, times in zip(cases, row, strict=True) for _ in range(int(times))]
        again = weighted_sensitivity(findings_of(repeated), np.ones((1, len(repeated))))[0]
        np.testing.assert_allclose(again, expected, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    cases = [(generator.random(2), generator.random(5)) for _ in range(9)]
    weights = generator.integers(0, 3, (30, 9)).astype(float)
    whole = weighted_sensitivity(findings_of(cases), weights)
    monkeypatch.setattr(overlap, "LARGEST_BLOCK", 200)
    np.testing.assert_array_equal(weighted_sensitivity(findings_of(cases), weights), whole)


def test_no_candidates_find_nothing_and_no_images_define_nothing():
    assert weighted_sensitivity(findings_of([([np.nan], []), ([], [])]), np.ones((1, 2))).tolist() == [[0] * 6]
    assert curve(findings_of([([np.nan], [])])) == ([0], [0])
    assert np.isnan(weighted_sensitivity(collect([]), np.ones((1, 0)))).all()
    assert curve(collect([])) == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_froc_agrees_with_monai(seed):
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


def naive_regions(mask):
    """Regions of 8-connected pixels as sets, by flooding."""
    left = {tuple(point) for point in np.argwhere(mask).tolist()}
    regions = []
    while left:
        region, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            region.add((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= around
            border += around
        regions.append(region)
    return regions


def naive_candidates(strength, cutoff, probability, lesions, tolerance):
    labels = [label for label in range(1, lesions.max() + 1) if (lesions == label).any()]
    near = {label: naive_near(lesions, label, tolerance) for label in labels}
    best, false = dict.fromkeys(labels, np.nan), []
    for region in naive_regions((strength >= np.float32(cutoff)) & (strength > 0)):
        score = probability * max(float(strength[point]) for point in region)
        hit = [label for label in labels if any(near[label][point] for point in region)]
        for label in hit:
            best[label] = np.fmax(best[label], score)
        false += [] if hit else [score]
    return np.array(list(best.values()), float), np.array(sorted(false), float)


@settings(deadline=None, max_examples=80)
@given(maps(), tolerances, st.sampled_from([0, 0.3, 0.5, 1]), st.sampled_from([0, 0.3, 1]))
def test_lesions_found_and_false_positives_agree_with_flooding(image, tolerance, cutoff, probability):
    lesions, strength = image
    found = find_candidates(strength, cutoff, probability, near_lesions(lesions, tolerance))
    scores, false = naive_candidates(strength, cutoff, probability, lesions, tolerance)
    np.testing.assert_allclose(found.lesion_scores, scores)
    np.testing.assert_allclose(np.sort(found.false_positive_scores), false)
