"""Run folders as trainings with logger=wandb leave them, as far as a dashboard reads them."""

import json

import pandas as pd
import pytest
from omegaconf import OmegaConf

METRICS = ("auroc", "acc", "sensitivity", "specificity", "f1", "brier")


@pytest.fixture
def write_run(tmp_path):
    """Write the folder of a finished training; `config` overrides with dots, `wandb` the project or None."""

    def write(name, pooling="lem", seed=0, wandb="lemlight", pictures=("sheet", "roc", "overlays"), **config):
        folder = tmp_path / "runs" / name
        section = {"project": wandb, "mode": "offline", "group": None, "name": None, "tags": []} if wandb else None
        values = OmegaConf.create(
            {
                "pooling": {"name": pooling, "norm": "l1"},
                "backbone": {"name": "resnet18"},
                "dataset": {"name": "phantom", "root": "/archive/Jane", "split": {"fold": 0}},
                "loss": {"beta": 0.001},
                "trainer": {"max_epochs": 2},
                "seed": seed,
                "workers": 0,
                "logger": {"wandb": section},
                "output": str(folder),
            }
        )
        for key, value in config.items():
            OmegaConf.update(values, key.replace("__", "."), value)
        for part in ("logs", "figures", "wandb"):
            (folder / part).mkdir(parents=True)
        OmegaConf.save(values, folder / "config.yaml")
        summary = {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in METRICS} | {"dsc": {"value": 0.3}}
        (folder / "metrics.json").write_text(json.dumps({"split": "test", "threshold": 0.5, "images": 2, **summary}))
        rows = [("Jane-L", "Jane", 0, 0.2), ("Joe-L", "Joe", 1, 0.7)]
        table = pd.DataFrame(rows, columns=["image_id", "patient_id", "label", "probability"])
        table.to_csv(folder / "predictions.csv", index=False)
        for picture in pictures:
            (folder / "figures" / f"{picture}.png").write_bytes(b"")
        if wandb:
            (folder / "logs" / "wandb_run_id").write_text(f"id-{name}")
            (folder / "wandb" / f"offline-run-20261123-id-{name}").mkdir()
        return folder

    return write
