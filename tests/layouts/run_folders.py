"""Run folders of lemlight.train without the training: the files that a comparison reads."""

import json

import cv2
import numpy as np
import pandas as pd
import yaml

from lemlight.localization.pooled import Tried, tried_path, write_tried
from lemlight.metrics.classification import summarize
from lemlight.metrics.levels import summarize_levels
from lemlight.metrics.operating import Operating

NAME = "Mueller_Anna"  # in every image and patient id: must never be on a page


def config_of(pooling="lem", seed=0, **changes):
    """A training's configuration; `changes` are sections (merged) or values."""
    config = {
        "choices": {"backbone": "resnet18", "pooling": pooling, "dataset": "folder", "loss": "combined"},
        "backbone": {"_target_": "lemlight.models.backbones.ResNet", "weights_file": f"/data/{NAME}/w.pt"},
        "pooling": {"_target_": f"lemlight.models.pooling.{pooling.title()}"},
        "dataset": {"root": f"/data/{NAME}", "split": {"scheme": "patient", "seed": 0, "fold": 0}},
        "loss": {"_target_": "lemlight.models.losses.CombinedLoss", "beta": 0.001},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "callbacks": {"reseed": {"_target_": "lemlight.training.callbacks.Reseed", "seed": seed}},
        "localization": {"method": "importance"},
        "seed": seed,
        "threshold": 0.5,
        "output": f"/runs/{NAME}",
        "workers": 0,
    }
    if pooling == "lem":
        config["pooling"]["aggregate"] = "mean"
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    return config


def predictions_of(images=80, error=0.3, seed=0, name=NAME):
    """Two images per patient, every second patient malignant; `error` blurs the probabilities."""
    number = np.arange(images)
    label = number // 2 % 2
    blur = np.random.default_rng(seed).normal(0, error, images)
    return pd.DataFrame(
        {
            "image_id": [f"{name}_{i:03}" for i in number],
            "patient_id": [f"{name} {i // 2}" for i in number],
            "split": "test",
            "label": label,
            "probability": np.clip(0.25 + 0.5 * label + blur, 0.001, 0.999),
            "n_maxima": 1,
            "n_minima": 1,
        }
    )


def write_run(folder, *, config=None, predictions=None, dice=None, pictures=0, overrides=()):
    """Write a finished run folder; `dice` is the mean Dice of its malignant images, None leaves none."""
    config = config or config_of()
    predictions = predictions_of() if predictions is None else predictions
    (folder / "logs").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra").mkdir()
    (folder / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    operating = Operating(rule=config["threshold"])
    summary = summarize(predictions, point=operating.point("image"), resamples=100)
    if "laterality" in predictions:  # else it is a run from before there were levels
        levels = summarize_levels(predictions, operating=operating, resamples=100)
        summary |= {"levels": levels, "primary_level": config.get("primary_level", "image")}
    if dice is not None:
        curve = {"false_positives_per_image": [0.0, 0.5, 2.0], "sensitivity": [0.1, dice, 0.9]}
        summary |= {
            "dsc": {"value": dice, "low": None, "high": None},
            "froc": {"mean": {"value": dice}, "curve": curve},
        }
        rows = predictions.assign(dsc=np.where(predictions["label"] == 1, dice, np.nan), method="importance")
        rows = rows.assign(pointing=rows["dsc"].notna().where(rows["dsc"].notna()))
        rows = rows[["image_id", "patient_id", "dsc", "pointing", "method"]]
        rows.to_csv(folder / "localization_images.csv", index=False)
        with_lesion = rows.loc[rows["dsc"].notna(), "image_id"].tolist()
        write_tried({"importance": tried_of(with_lesion, dice)}, tried_path(folder, "test"))
        write_tried({"importance": tried_of([f"{NAME} val {i}" for i in range(9)], dice)}, tried_path(folder, "val"))
    (folder / "metrics.json").write_text(json.dumps(summary))
    predictions.to_csv(folder / "predictions.csv", index=False)
    log = pd.DataFrame({"epoch": [0, 1], "train/loss": [0.7, 0.5], "val/loss": [0.6, 0.5], "val/auroc": [0.7, 0.8]})
    log.to_csv(folder / "logs/metrics.csv", index=False)
    splits = [{"split": "test", "images": 80, "malignant": 40, "patients": 40, "fraction": 1.0}]
    leaks = {"leaking_patients": [f"{NAME} 3"], "leaking_breasts": [], "leaking_files": []}
    leaks |= {"scheme": "patient", "splits": splits, "warnings": [f"{NAME} leaks"]}
    (folder / "leaks.json").write_text(json.dumps(leaks))
    if pictures:
        write_pictures(folder / "examples", predictions[:pictures])
    return folder


def tried_of(image_ids, dice, pairs=((0.5, 8.0), (1.0, 8.0)), cutoffs=(0.25, 0.33, 0.5)):
    """What a run tried: `dice` everywhere, some 0.05 more at the last settings by mass; all points in a lesion."""
    values = np.full((len(image_ids), 2, len(pairs), len(cutoffs)), dice)
    values[:, -1, -1, -1] += 0.05 + 0.001 * np.arange(len(image_ids))
    return Tried(
        np.array(image_ids, dtype=np.str_), np.array(["maximum", "mass"]), np.array(pairs), np.array(cutoffs),
        np.array([0, 0, 1]), values.astype(np.float16), np.ones((len(image_ids), len(pairs)), np.float32),
    )  # fmt: skip


def write_pictures(folder, predictions):
    """Write examples/: a bright square as image, map and lesion, each image of its own size, and a score map."""
    folder.mkdir()
    rows = []
    for number, row in enumerate(predictions.itertuples(), start=1):
        pixels = np.zeros((60 + 10 * number, 40), np.uint8)
        pixels[10:30, 10:25] = 255
        for kind in ("image", "map", "lesions"):
            assert cv2.imwrite(str(folder / f"{number}_{kind}.png"), pixels)
        score_map = np.array([[1, -1], [0, 3]], np.float32)
        np.savez(folder / f"{number}_scores.npz", score_map=score_map, maxima=score_map == 3, minima=score_map == -1)
        rows.append((number, row.image_id, row.probability, "malignant" if row.probability > 0.5 else "benign", 0.5))
    columns = ["number", "image_id", "probability", "prediction", "cutoff"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "examples.csv", index=False)


def write_state(folder, state, error=None, config=None):
    """Write the state.json of a job of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"state": state, "overrides": ["pooling=gap", "seed=1"], "config": config or {}, "started": "2026-01-01"}
    (folder / "state.json").write_text(json.dumps(values | {"ended": None, "error": error, "result": None}))
    return folder


def write_sweep(root, poolings=("lem", "gap"), seeds=(0, 1), pictures=3):
    """Write finished runs of some methods; the first method is clearly the best."""
    for place, pooling in enumerate(poolings):
        for seed in seeds:
            write_run(
                root / f"pooling={pooling}+seed={seed}",
                config=config_of(pooling, seed),
                predictions=predictions_of(error=0.1 + 0.5 * place, seed=17 * seed + place),
                dice=0.6 - 0.1 * place,
                pictures=pictures,
                overrides=[f"pooling={pooling}", f"seed={seed}", f"dataset.root=/data/{NAME}"],
            )
    return root
