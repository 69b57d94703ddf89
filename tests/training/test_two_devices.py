import csv
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from lemlight.training.checkpoint import load_checkpoint, load_weights
from lemlight.training.module import predict


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_two_devices_give_the_metrics_and_predictions_of_one(tiny, tmp_path, strategy):
    two = tmp_path / "two"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "LOCAL_RANK"))}
    environment["GLOO_SOCKET_IFNAME"] = "lo"  # a machine may not know its own name
    command = [sys.executable, tiny.FILE, two, json.dumps({"what": "two", "strategy": strategy})]
    run = subprocess.run(command, capture_output=True, timeout=200, env=environment)
    assert run.returncode == 0, run.stderr.decode()
    assert "arn" not in run.stderr.decode()  # nothing to warn of

    module, data = tiny.make_module(), tiny.make_data()
    load_weights(module.classifier, load_checkpoint(two / "checkpoints" / "last.ckpt"))
    trainer = tiny.make_trainer(tmp_path / "one")
    alone = trainer.validate(module, data, verbose=False)[0]
    with (two / "logs" / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    both = {name: float(last[name]) for name in alone}
    assert both == pytest.approx(alone, rel=1e-6)
    assert (both["val/auroc"], both["val/acc"]) == pytest.approx((alone["val/auroc"], alone["val/acc"]), abs=1e-9)

    table = predict(trainer, module, data.test_dataloader())
    assert len(data.test_dataloader().dataset) % 2 == 1
    assert list(table["index"]) == list(range(31, 38))
    pd.testing.assert_frame_equal(pd.read_csv(two / "predictions.csv"), table, rtol=1e-6)
