import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from lemlight.errors import LemlightError
from lemlight.metrics.classification import METRICS, summarize
from lemlight.metrics.comparison import compare_methods, read_methods, seed_weights
from lemlight.metrics.significance import delong_test, holm

IMAGES, PATIENTS = 120, 60
IDS = np.array([f"image-{number:03}" for number in range(IMAGES)])
OWNERS = np.array([f"patient-{number % PATIENTS:02}" for number in range(IMAGES)])
LABELS = (np.arange(IMAGES) % PATIENTS) // 5 % 2


def run(method, seed, separation, *, repeat="seed", **columns):
    """Predictions of a network that separates the classes that well; its errors depend on method and seed."""
    generator = np.random.default_rng([seed, *method.encode()])
    probability = 1 / (1 + np.exp(-(separation * (LABELS - 0.5) + generator.normal(size=IMAGES))))
    whole = {
        "method": method,
        repeat: seed,
        "image_id": IDS,
        "patient_id": OWNERS,
        "label": LABELS,
        "probability": probability,
        "prediction": (probability > 0.5).astype(int),
    }
    return pd.DataFrame(whole | columns)


def seeds(separations, count=2):
    return pd.concat([run(name, seed, separation) for name, separation in separations.items() for seed in range(count)])


def folds(separations, count=3):
    """Cross-validation: patient k is tested in fold k mod count."""
    fold = (np.arange(IMAGES) % PATIENTS) % count
    return pd.concat([run(name, fold, s, repeat="fold") for name, s in separations.items()])


def pair(comparison, metric, first, second):
    (found,) = [one for one in comparison.pairs if (one.metric, one.first, one.second) == (metric, first, second)]
    return found


def value(comparison, metric, method):
    return comparison.values[method, metric]


@pytest.fixture(scope="module")
def comparison():
    return compare_methods(seeds({"LEM": 4.0, "GAP": 1.0, "MIL": 0.9}), resamples=1000)


def test_all_metrics_of_all_methods_and_all_pairs(comparison):
    assert len(comparison.values) == len(comparison.pairs) == 3 * len(METRICS)
    assert (comparison.images, comparison.patients) == (IMAGES, PATIENTS)
    assert "patients and over seeds" in comparison.rules["interval"]
    auc = value(comparison, "auroc", "GAP")
    alone = [summarize(run("GAP", seed, 1.0).assign(split="test"), resamples=40) for seed in range(2)]
    assert auc.value == pytest.approx(np.mean([one["auroc"]["value"] for one in alone]))
    assert 0 <= auc.low < auc.value < auc.high <= 1
    for one in comparison.pairs:
        first, second = (value(comparison, one.metric, name).value for name in (one.first, one.second))
        assert one.difference.estimate.value == pytest.approx(first - second)


def test_the_correction_goes_over_the_pairs_of_a_metric_and_equals_are_not_told_apart(comparison):
    for metric in METRICS:
        family = [one for one in comparison.pairs if one.metric == metric]
        assert [one.p_corrected for one in family] == holm([one.difference.p for one in family]).tolist()
        assert {one.comparisons for one in family} == {3}
    assert pair(comparison, "auroc", "LEM", "GAP").sentence.startswith("LEM has a higher AUC than GAP: +0.")
    assert "no difference in AUC shown" in pair(comparison, "auroc", "GAP", "MIL").sentence


def test_the_order_of_the_methods_changes_the_sign_only_and_other_methods_nothing(comparison):
    turned = compare_methods(seeds({"GAP": 1.0, "LEM": 4.0}), resamples=1000)
    for metric in METRICS:
        one, other = pair(comparison, metric, "LEM", "GAP").difference, pair(turned, metric, "GAP", "LEM").difference
        assert one.p == other.p
        assert one.estimate.value == pytest.approx(-other.estimate.value)
        assert (one.estimate.low, one.estimate.high) == pytest.approx((-other.estimate.high, -other.estimate.low))


def test_one_seed_has_the_metrics_of_metrics_json():
    single = run("LEM", 3, 1.0)
    compared = compare_methods(single, resamples=300)
    metrics = summarize(single.assign(split="test"), resamples=300)
    for name in METRICS:
        assert value(compared, name, "LEM").to_dict() == pytest.approx(metrics[name])
    assert compared.pairs == ()


def two_runs(size, gain, seed):
    """Two methods of one seed each of which the first is better, on three images per patient."""
    generator = np.random.default_rng(seed)
    label, number = generator.integers(0, 2, size), np.arange(size)
    table = {"seed": 0, "image_id": [f"{k:04}" for k in number], "patient_id": number // 3, "label": label}
    parts = []
    for method, more in (("better", gain), ("other", 0)):
        probability = 1 / (1 + np.exp(0.5 - (1 + more) * label - generator.normal(size=size)))
        columns = {"method": method, "probability": probability, "prediction": probability > 0.5}
        parts.append(pd.DataFrame(table | columns))
    return parts


def test_p_value_and_interval_agree_with_the_normal_approximation_and_a_permutation_test():
    first, second = two_runs(600, 0.25, seed=3)
    found = pair(compare_methods(pd.concat([first, second]), resamples=4000), "acc", "better", "other").difference
    right = (first["prediction"] == first["label"]).astype(float) - (second["prediction"] == second["label"])
    per_patient = right.groupby(first["patient_id"]).sum().to_numpy()
    error = per_patient.std(ddof=1) * per_patient.size**0.5 / right.size
    normal = 2 * norm.sf(abs(right.mean()) / error)
    signs = np.random.default_rng(0).choice([-1, 1], size=(4000, per_patient.size))
    permutation = np.mean(np.abs(signs @ per_patient) >= abs(right.sum()) - 1e-9)
    assert 0.005 < normal < 0.5  # a case in which the p-values have something to disagree about
    assert found.p == pytest.approx(normal, abs=0.03)
    assert found.p == pytest.approx(permutation, abs=0.04)
    reach = 1.96 * error
    bounds = found.estimate.low, found.estimate.high
    assert bounds == pytest.approx((right.mean() - reach, right.mean() + reach), abs=0.1 * reach)


def test_the_auc_of_single_networks_agrees_with_the_clustered_test_of_delong(comparison):
    first, second = two_runs(600, 0.3, seed=5)
    result = compare_methods(pd.concat([first, second]), resamples=4000)
    found = pair(result, "auroc", "better", "other")
    scores = first["probability"].to_numpy(), second["probability"].to_numpy()
    assert found.p_delong == delong_test(first["label"].to_numpy() == 1, *scores, first["patient_id"])
    assert "DeLong" in result.rules["delong"]
    assert pair(result, "acc", "better", "other").p_delong is None
    assert pair(comparison, "auroc", "LEM", "GAP").p_delong is None  # means over seeds
    assert "delong" not in comparison.rules
    assert found.difference.p == pytest.approx(found.p_delong, abs=0.03)


def test_a_method_against_itself_is_no_difference_and_certainty_is_not_claimed():
    result = compare_methods(pd.concat([run("A", 0, 1.0), run("A", 0, 1.0).assign(method="B")]), resamples=200)
    same = pair(result, "auroc", "A", "B").difference
    assert (same.estimate.value, same.p, same.estimate.low) == (0, 1, None)
    right = run("right", 0, 1.0, prediction=LABELS)
    result = compare_methods(pd.concat([right, run("wrong", 0, 1.0, prediction=1 - LABELS)]), resamples=200)
    certain = pair(result, "acc", "right", "wrong").difference
    assert (certain.estimate.value, certain.p, certain.estimate.low) == (1, None, None)
    assert "certain" in certain.estimate.reason


def test_seeds_that_differ_widen_the_interval_and_the_same_network_thrice_does_not():
    def interval(predictions):
        found = value(compare_methods(predictions, resamples=400), "auroc", "LEM")
        return np.array([found.low, found.high])

    alike = interval(pd.concat([run("LEM", 0, 1.5).assign(seed=seed) for seed in range(3)]))
    unlike = interval(pd.concat([run("LEM", seed, separation) for seed, separation in enumerate((0.2, 1.5, 4.0))]))
    np.testing.assert_allclose(alike, interval(run("LEM", 0, 1.5)))
    assert np.ptp(unlike) > 1.5 * np.ptp(alike)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_mean_over_drawn_seeds_varies_like_the_mean_of_so_many_seeds(count):
    values = np.random.default_rng(count).normal(size=count)
    weights = seed_weights(count, 40_000, np.random.default_rng(0))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights @ values).mean() == pytest.approx(values.mean(), abs=0.02)
    assert (weights @ values).std() == pytest.approx(values.std(ddof=1) / count**0.5, rel=0.03)


def test_folds_give_the_mean_over_the_folds_and_no_delong():
    predictions = folds({"LEM": 3.0, "GAP": 1.0})
    result = compare_methods(predictions, resamples=400)
    found = value(result, "acc", "LEM")
    lem = predictions[predictions["method"] == "LEM"]
    right = (lem["label"] == lem["prediction"]).groupby(lem["fold"]).mean()
    assert found.value == pytest.approx(right.mean())
    assert found.low < found.value < found.high
    assert pair(result, "auroc", "LEM", "GAP").p_delong is None
    assert "overlap" in result.rules["interval"]


def test_a_fold_with_one_class_leaves_the_auc_undefined_and_says_which():
    predictions = folds({"LEM": 3.0, "GAP": 1.0})
    predictions.loc[predictions["fold"] == 1, "label"] = 0
    result = compare_methods(predictions, resamples=400)
    assert value(result, "auroc", "LEM").value is None
    untested = pair(result, "auroc", "LEM", "GAP")
    assert (untested.difference.p, untested.p_corrected, untested.comparisons) == (None, None, 0)
    assert "cannot be tested: fold 1: one class only" in untested.sentence
    assert pair(result, "acc", "LEM", "GAP").p_corrected is not None


def test_the_dice_is_compared_over_the_images_that_have_one():
    dice = np.where(LABELS == 1, np.linspace(0.2, 0.9, IMAGES), np.nan)
    both = pd.concat([run("LEM", 0, 1.0, dsc=dice), run("GAP", 0, 1.0, dsc=dice**2)])
    result = compare_methods(both, resamples=400)
    assert value(result, "dsc", "LEM").value == pytest.approx(np.nanmean(dice))
    assert "LEM has a higher Dice than GAP" in pair(result, "dsc", "LEM", "GAP").sentence
    point = compare_methods(both.assign(pointing=(both["dsc"] > 0.5).where(both["dsc"].notna())), resamples=400)
    assert value(point, "pointing", "LEM").value == pytest.approx((dice[LABELS == 1] > 0.5).mean())
    assert pair(point, "pointing", "LEM", "GAP").difference.estimate.low > 0
    assert value(point, "dsc", "LEM") == value(result, "dsc", "LEM")
    without = compare_methods(both.assign(dsc=np.nan), resamples=400)
    assert value(without, "dsc", "LEM").reason == "no image with a Dice"


def test_the_level_holds_for_two_like_methods_of_two_seeds():
    # 100 true hypotheses at 5 %: standard error 2.2 %, so at most 11.5 % within three of them. Drawing patients and
    # seeds is cautious (see `compare_methods`), so that no lower bound is asked for.
    rejected = 0
    for number in range(100):
        like = pd.concat([run(f"{name}{number}", seed, 1.0) for name in "AB" for seed in range(2)])
        rejected += compare_methods(like, resamples=99).pairs[0].difference.p <= 0.05
    assert rejected / 100 < 0.115


def rows(method, seed=0, images="cabd", repeat="seed", **columns):
    """What the table holds of one run: patient and label follow from the image."""
    images = list(images)
    probability = np.linspace(0.1, 0.9, len(images))
    whole = {
        "method": method,
        repeat: seed,
        "image_id": images,
        "patient_id": ["p1" if image in "ab" else "p2" for image in images],
        "label": [int(image in "ac") for image in images],
        "probability": probability,
        "prediction": probability > 0.5,
    }
    return pd.DataFrame(whole | columns)


def cross_validated(**methods):
    """The table of methods whose folds have these images."""
    parts = [rows(name, fold, images, "fold") for name, all_of in methods.items() for fold, images in enumerate(all_of)]
    return pd.concat(parts)


def refusal(*parts):
    with pytest.raises(LemlightError) as error:
        read_methods(pd.concat(parts))
    return str(error.value)


def test_all_runs_come_in_one_order_of_the_images():
    shuffled = rows("GAP", 1).sample(frac=1, random_state=3)
    found = read_methods(pd.concat([rows("LEM", 1), rows("LEM", 2, probability=0.3), shuffled]))
    assert (found.repeat, found.patients.tolist()) == ("seed", ["p1", "p1", "p2", "p2"])
    assert {name: list(runs) for name, runs in found.runs.items()} == {"LEM": ["1", "2"], "GAP": ["1"]}
    for one in (found.runs["LEM"]["1"], found.runs["GAP"]["1"]):
        assert one.truth.tolist() == [True, False, True, False]
        np.testing.assert_allclose(one.probability, [0.1 + 0.8 / 3, 0.1 + 1.6 / 3, 0.1, 0.9])
        assert one.predicted.tolist() == [False, True, False, True]
    folded = read_methods(cross_validated(LEM=("ab", "dc"), GAP=("ab", "dc")))
    assert [one.images.tolist() for one in folded.runs["GAP"].values()] == [[0, 1], [2, 3]]
    assert folded.runs["GAP"]["1"].truth.tolist() == [True, False]


def test_everything_that_disagrees_is_said_at_once_in_numbers_without_names():
    said = refusal(rows("LEM"), rows("GAP", 1, "acd"), rows("CAM", images="abce"))
    assert "LEM (seed 0) lacks 1 of 5, GAP (seed 1) lacks 2 of 5, CAM (seed 0) lacks 1 of 5; test them on" in said
    other = rows("GAP", label=[0, 1, 1, 0], patient_id=["p1", "p1", "p1", "p2"])
    assert refusal(rows("LEM"), other, rows("LEM")).partition(": ")[2].split("; ") == [
        "4 images several times in one method and seed",
        "2 images with another label in another method",
        "1 image with another patient_id in another method",
    ]
    different = rows("LEM", dsc=[0.5, np.nan, 0.25, 1]), rows("GAP", dsc=[0.5, 0.1, 0.25, 1])
    assert "1 image with a Dice in some methods only" in refusal(*different)


def test_folds_that_differ_or_share_a_patient_are_refused():
    assert "2 patients are in several folds" in refusal(cross_validated(LEM=("ac", "bd"), GAP=("ac", "bd")))
    moved = refusal(cross_validated(LEM=("ab", "cd"), GAP=("cd", "ab")))
    assert "4 images with another fold" in moved
    assert "several folds" not in moved
    assert "several times" in refusal(cross_validated(LEM=("ab", "ab")))
