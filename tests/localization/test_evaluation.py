"""Choosing settings and measuring on a split: by name, by several processes as by one, with own methods."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.multiprocessing import start_processes

from lemlight.errors import LemlightError
from lemlight.localization import evaluation
from lemlight.localization.choice import Chosen, RegionSettings, build_settings, candidates, settings_of
from lemlight.localization.evaluation import Localizing, in_turn, locate
from lemlight.models.backbones import Backbone
from lemlight.models.classifier import MammogramClassifier
from lemlight.models.pooling import Scorer
from lemlight.reporting.localization_results import choose_settings, measure_localization
from tests.parts import build_pooling

TARGETS = {
    "importance": {"_target_": "lemlight.localization.attribution.Importance"},
    "cam": {"_target_": "lemlight.localization.baselines.CAM"},
    "grad_cam": {"_target_": "lemlight.localization.baselines.GradCAM"},
}
GIVEN = {"keep": None, "smoothing": None, "cutoff": None}
CONFIG = {
    "methods": TARGETS, "method": "importance", "compare": [], "follow": "predicted", "cutoff_by": "maximum",
    "tolerance": 0.01, **GIVEN,
}  # fmt: skip


class Store:
    """A prepared store in memory: every third image is healthy, of the last one nothing is known."""

    def __init__(self, count=11, shape=(96, 64)):
        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 2**16, (count, *shape)).astype(np.uint16)
        self.images[:, :, 48:] = 0
        self.masks = [np.zeros(shape, np.uint8) for _ in range(count)]
        for number, mask in enumerate(self.masks):
            if number % 3:
                y, x = generator.integers(5, 70), generator.integers(2, 30)
                mask[y : y + 20, x : x + 14] = 1
                self.images[number] = np.where(mask > 0, 2**16 - 1, self.images[number] // 2)

    def index_of(self, image_id):
        return int(image_id)

    def image(self, position):
        return self.images[position]

    def mask(self, position):
        return None if position == len(self.masks) - 1 else self.masks[position]

    def lesion_types(self, position):
        return ("mass",)


def make_place(**options):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 5, 4, 2), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, 4, 1), nn.ReLU()]
    classifier = MammogramClassifier(
        Backbone("tiny", nn.Sequential(*layers, nn.MaxPool2d(2)), (0.4, 0.2)), Scorer(8), build_pooling("lem", 8)
    ).eval()
    nn.init.normal_(classifier.scorer.weight, std=20)
    store = Store()
    with torch.no_grad():
        images = torch.from_numpy(store.images[:, None].astype(np.float32) / 65535)
        classifier.scorer.bias -= classifier(images).logit.median() / 2  # half of them are predicted malignant
    rows = [(str(n), f"p{n // 2}", int(n % 3 > 0), "val") for n in range(len(store.images))]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "label", "split"])
    settings = build_settings(CONFIG | options)
    return Localizing(classifier, torch.device("cpu"), table, store, settings, 0.5, batch_size=2)


def survey(place, name, ids, chosen=None):
    """The survey of one method."""
    return evaluation.survey(place, [name], ids, None if chosen is None else {name: chosen})[name]


def everything(folder=None):
    """What choosing and measuring give with all methods."""
    place = make_place(compare=["cam", "grad_cam"])
    chosen = choose_settings(place, folder)
    results, _ = measure_localization(place, chosen, "val", folder, resamples=40)
    surveys = {
        name: survey(place, name, place.known("val"), RegionSettings(keep=0.5, smoothing=4.0, cutoff=0.3))
        for name in TARGETS
    }
    curves = {name: list(one.dice.values()) for name, one in surveys.items()}
    rows = {name: one.meter.per_image().to_csv() for name, one in surveys.items()}
    summaries = {name: one.meter.summary(resamples=40) for name, one in surveys.items()}
    return {"chosen": chosen, "results": results, "curves": curves, "rows": rows, "summaries": summaries}


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=2)
    found = everything(folder / "run" if rank == 0 else None)
    (folder / f"{rank}.pkl").write_bytes(pickle.dumps(found))
    with pytest.raises(LemlightError, match="image 3 is damaged"):
        list(in_turn(fails_at_three, range(6)))
    torch.distributed.destroy_process_group()


def fails_at_three(number):
    if number == 3:
        raise LemlightError(f"image {number} is damaged")
    return number


def test_two_processes_share_the_images_and_get_what_one_gets(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "run").mkdir()
    alone = everything(tmp_path / "alone")
    assert alone["results"]["dsc"]["value"] > 0
    start_processes(one_of_two, (tmp_path,), nprocs=2, start_method="fork")
    for rank in range(2):
        found = pickle.loads((tmp_path / f"{rank}.pkl").read_bytes())
        for part in ("chosen", "rows", "summaries"):
            assert found[part] == alone[part]
        for name in TARGETS:
            np.testing.assert_array_equal(found["curves"][name], alone["curves"][name])
        assert found["results"] == (alone["results"] if rank == 0 else {})
    for path in (tmp_path / "alone").rglob("*.*"):
        assert (tmp_path / "run" / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes(), path


def test_several_methods_share_a_pass_of_each_batch_and_find_what_they_find_alone():
    place = make_place(compare=["cam", "grad_cam"])
    settings = {name: RegionSettings(keep=0.6, smoothing=4.0, cutoff=0.3) for name in TARGETS}
    ids, passes = place.known("val"), []
    handle = place.classifier.backbone.register_forward_hook(lambda *_: passes.append(1))
    together = evaluation.survey(place, list(TARGETS), ids, settings)
    assert len(passes) == len(place.batches(ids))
    handle.remove()
    for name, found in together.items():
        alone = survey(place, name, ids, settings[name])
        pd.testing.assert_frame_equal(found.meter.per_image(), alone.meter.per_image())
        assert found.meter.summary(resamples=40) == alone.meter.summary(resamples=40)
        assert found.best() == alone.best()
        np.testing.assert_array_equal(found.tried.dice, alone.tried.dice)
        np.testing.assert_array_equal(found.tried.pointing, alone.tried.pointing)


def test_the_chosen_settings_are_the_best_candidates_and_images_of_which_nothing_is_known_are_left_out():
    place = make_place(compare=["cam"])
    assert len(place.known("val")) == 10
    assert len(place.with_a_lesion("val")) == 6
    chosen = choose_settings(place, None)
    assert chosen
    for name, one in chosen.items():
        found = survey(place, name, place.with_a_lesion("val"), one)
        assert found.meter.summary(resamples=40)["dsc"]["value"] == pytest.approx(one.dsc)
        assert max(curve.max() for curve in found.dice.values()) == pytest.approx(one.dsc)
    assert choose_settings(make_place(), None, "test") == {}


def test_what_is_not_shown_to_be_better_than_the_defaults_is_not_chosen():
    place = make_place(compare=["cam"])
    ids = place.with_a_lesion("val")
    found = survey(place, "cam", ids)
    best, dice = found.best()
    curves = [survey(place, "cam", [one]).dice for one in ids]
    gains = np.array(
        [
            own[best.keep, best.smoothing][round(best.cutoff * 1024) - 1] - own[0.0, 0.25 * place.output_stride][337]
            for own in curves
        ]
    )
    assert gains.mean() == pytest.approx(dice - found.default)
    error = gains.std(ddof=1) / len(gains) ** 0.5
    assert found.is_shown() == (gains.mean() > error)
    assert not survey(place, "cam", ids[:1]).is_shown()  # one image shows nothing
    best = survey(make_place(compare=["cam"], cutoff=best.cutoff, smoothing=best.smoothing), "cam", ids).best()
    assert best == (RegionSettings(keep=0.0, smoothing=best[0].smoothing, cutoff=best[0].cutoff), pytest.approx(dice))


def test_a_cutoff_by_mass_is_chosen_measured_and_refused_where_another_rule_is_asked_for():
    place = make_place(cutoff_by="mass")
    ids = place.with_a_lesion("val")
    best, dice = survey(place, "importance", ids).best()
    assert best.cutoff_by == "mass"
    meter = survey(place, "importance", ids, best).meter
    assert meter.summary(resamples=40)["dsc"]["value"] == pytest.approx(dice)
    chosen = {"importance": Chosen(**best.model_dump(), dsc=dice, images=6, split="val")}
    assert settings_of("importance", chosen, GIVEN, 32) == best
    other = settings_of("importance", chosen, GIVEN, 32, "maximum")
    assert (other.cutoff, other.cutoff_by, other.keep) == (0.33, "maximum", best.keep)


def test_located_images_come_one_by_one_with_what_the_network_says():
    place = make_place(follow="maxima")
    found = list(locate(place, ["4", "0", "7"], RegionSettings(keep=0.5, smoothing=0.0, cutoff=0.3)))
    assert [one.image_id for one in found] == ["4", "0", "7"]
    for one in found:
        probability = place.classifier(place.images([one.image_id])).logit.double().sigmoid().item()
        assert one.probability == pytest.approx(probability)
        assert one.strength.max() == 1


def test_what_is_given_comes_before_what_was_chosen_and_that_before_the_defaults():
    chosen = {"cam": Chosen(keep=0.0, smoothing=8.0, cutoff=0.6, dsc=0.3, images=4, split="val")}
    assert settings_of("importance", chosen, GIVEN, 32) == RegionSettings(keep=0.5, smoothing=8.0, cutoff=0.33)
    cam = settings_of("cam", chosen, GIVEN | {"cutoff": 0.2}, 32)
    assert cam == RegionSettings(keep=0.0, smoothing=8.0, cutoff=0.2)
    assert len(candidates(True, GIVEN, 32)) == 16
    assert candidates(False, GIVEN, 16) == [(0.0, 2.0), (0.0, 4.0), (0.0, 8.0), (0.0, 16.0)]
    assert candidates(True, GIVEN | {"keep": 0.7, "smoothing": 3.0}, 32) == [(0.7, 3.0)]


def test_methods_are_built_by_name_and_an_own_one_needs_nothing_but_its_target():
    own = {"own": {"_target_": "tests.localization.test_evaluation.OwnMap", "power": 2}}
    place = make_place(methods=TARGETS | own, method="own", compare=["importance", "own"])
    assert place.settings.names == ["own", "importance"]
    (found,) = locate(place, ["1"], RegionSettings(keep=0.5, smoothing=0.0, cutoff=0.3))
    images = place.images(["1"])[0, 0]
    np.testing.assert_allclose(found.strength, (images / images.max()) ** 2, rtol=1e-6)


class OwnMap:
    def __init__(self, power):
        self.power = power

    def __call__(self, classifier, images, malignant):
        return images[:, 0] ** self.power


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "importence"}, r"method=importence: there is no such method \(did you mean importance\?\); there"),
        ({"compare": ["xyz"]}, "xyz: there is no such method; there are importance, cam, grad_cam, and"),
        ({"keep": 1.5}, "keep=1.5"),
        ({"follow": "all"}, "follow=all"),
        ({"methods": TARGETS | {"own": {"_target_": "nowhere.Map"}}}, "methods.own._target_=nowhere.Map: .*nowhere"),
        (
            {"methods": TARGETS | {"own": {"_target_": "builtins.int"}}},
            "methods.own: builtins.int gives no Callable, but int",
        ),
        (
            {"methods": {"importance": {"_target_": "lemlight.localization.baselines.SmoothGrad", "copies": 0}}},
            "SmoothGrad: copies=0",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(changes, message):
    with pytest.raises(LemlightError, match=message):
        build_settings(CONFIG | changes)
