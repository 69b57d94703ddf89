"""The oracle of figures: what fixed commands give, so that a change of the code can be seen to change no figure.

    python -m tests.oracle write FILE      run the commands, keep digests (minutes on two cores)
    python -m tests.oracle compare FILE    run them again and list every digest that differs

Floating-point results depend on the processor and on the version of torch: write and compare on one machine, for two
commits each in its own checkout (`git worktree add DIR COMMIT; PYTHONPATH=DIR/src`). Only digests are kept, no data.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

POOLINGS = ("gap", "gmp", "rgp", "ggp", "lem", "lse", "max_min", "peak", "sparse_mil", "attention_mil")
BACKBONES = ("resnet18", "densenet121")  # beside efficientnet_lite0, which the poolings are run with
LAYOUTS = ("cbis", "cmmd", "inbreast", "mias", "rsna", "vindr")
SHAPE = ["dataset.prepare.height=192", "dataset.prepare.width=128"]
PHANTOM = ["dataset.patients=24", "dataset.scale=0.25", "dataset.root=phantom", "store=store"]
SHORT = [
    "recipe=demo",
    "dataset=phantom",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "batch_size=8",
    "workers=1",
    "bootstrap=200",
]
DATA = [*PHANTOM, *SHAPE, "prepare_workers=1"]
JOBS = 2  # at a time, one thread each
FIGURES = ("auroc", "acc", "sensitivity", "specificity", "f1", "dsc", "lesion_recall", "pointing")


def run(folder, command, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    call = [sys.executable, "-m", f"lemlight.{command}", *words]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(call)}\n{done.stdout}\n{done.stderr}")


def commands(folder):
    """Run everything below `folder`, in an order in which each finds what it needs."""
    run(folder, "prepare", "dataset=phantom", *DATA, "hydra.run.dir=prepare_phantom")
    trainings = [[f"pooling={name}", f"hydra.run.dir=train_{name}"] for name in POOLINGS]
    trainings += [[f"backbone={name}", "backbone.weights=none", f"hydra.run.dir=train_{name}"] for name in BACKBONES]
    mock = ["prepare", *SHAPE, "store=store_mocks", "prepare_workers=1"]
    layouts = [[*mock, f"dataset={n}", f"dataset.root=mock_{n}", f"hydra.run.dir=prepare_{n}"] for n in LAYOUTS]
    sweep = ["-m", "pooling=gap,lem", "seed=0,1", *SHORT, *DATA, "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    trained = "checkpoint=train_lem/checkpoints/best.ckpt"
    evaluate = ["evaluate", trained, "store=store", "bootstrap=200"]
    localize = ["localize", trained, "input=images", "accelerator=cpu"]
    after = [
        [*evaluate, "dataset=phantom", *PHANTOM[:3], "split=val", "hydra.run.dir=evaluate"],
        [*evaluate, "dataset=folder", "dataset.root=images", "split=all", "hydra.run.dir=evaluate_folder"],
        [*localize, "hydra.run.dir=localize"],
        [*localize, "method=grad_cam", "hydra.run.dir=localize_grad_cam"],
        ["report", "runs=sweep", "resamples=1000", "hydra.run.dir=report"],
    ]
    first = [["train", *SHORT, *DATA, *words] for words in trainings] + layouts
    with ThreadPoolExecutor(JOBS) as pool:
        for several in ([*first, ["train", *sweep, "hydra.sweep.subdir=${hydra.job.num}"]], after):
            for one in [pool.submit(run, folder, *words) for words in several]:
                one.result()


def mocks(folder):
    """Write the six layouts, and a folder of a few phantom images with a CSV."""
    import importlib

    for name in LAYOUTS:
        module = importlib.import_module(f"tests.layouts.{name}")
        getattr(module, f"write_{name}")(folder / f"mock_{name}", patients=8, seed=0)


def some_images(folder):
    source = next((folder / "phantom").rglob("images.csv"))
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    first = table.groupby("label", group_keys=False).head(4)
    (folder / "images").mkdir()
    for number, path in enumerate(first["path"]):
        (folder / "images" / f"{number}.dcm").write_bytes((source.parent / path).read_bytes())
    paths = [f"{number}.dcm" for number in range(len(first))]
    first[["label", "patient"]].assign(path=paths).to_csv(folder / "images" / "images.csv", index=False)


def digest(*parts):
    """A short hash of bytes, text or arrays."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(part if isinstance(part, bytes) else str(part).encode())
    return found.hexdigest()


def weights(path):
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return digest(*(part for key in sorted(state) for part in (key, state[key].numpy())))


def columns_of(path, names):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {name: digest(*table[name]) for name in names if name in table}


def of_metrics(path):
    metrics = json.loads(path.read_text())
    figures = {name: (metrics.get(name) or {}).get("value") for name in FIGURES}
    return figures | {f"digest of {key}": digest(json.dumps(value, sort_keys=True)) for key, value in metrics.items()}


def of_pictures(folder):
    found = {}
    for path in sorted(folder.glob("examples/*")):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = digest(*(arrays[key] for key in sorted(arrays)))
        elif path.suffix == ".png":
            found[path.name] = digest(path.read_bytes())
    return found


def of_run(folder):
    """Everything that a training or an evaluation leaves."""
    found = {}
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if checkpoint.is_file():
        found |= {"weights": weights(checkpoint), "last weights": weights(checkpoint.with_name("last.ckpt"))}
        found["epochs"] = digest((folder / "logs" / "metrics.csv").read_text())
    predicted = ("image_id", "label", "probability", "n_maxima", "n_minima")
    found |= {"predictions": columns_of(folder / "predictions.csv", predicted)}
    found |= {"metrics": of_metrics(folder / "metrics.json"), "maps of examples": of_pictures(folder)}
    if (folder / "localization.csv").is_file():
        found["localization"] = digest((folder / "localization.csv").read_text())
    return found


def of_localize(folder):
    table = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    regions = [json.loads(cell) for cell in table["regions"]]
    scores = [[one.pop("score") for one in several] for several in regions]
    for one in (region for several in regions for region in several):
        one.pop("evidence", None)
    maps = {}
    for path in sorted((folder / "maps").glob("*.npz")):
        with np.load(path) as arrays:
            maps[path.name] = {key: digest(arrays[key]) for key in arrays}
    names = ("image_id", "probability", "n_maxima", "n_minima", "lost_importance")
    found = columns_of(folder / "predictions.csv", names)
    both = {"regions": digest(json.dumps(regions)), "scores of regions": digest(json.dumps(scores))}
    return found | both | {"maps": maps}


def of_prepare(folder, root):
    """The image table without its folder, and every prepared pixel."""
    table = (folder / "images.csv").read_text().replace(str(root.resolve()), "")
    found = {"images.csv": digest(table)}
    names = ("images", "used", "left_out", "duplicates", "lesions", "formats", "greys", "sizes", "leaks")
    inventory = json.loads((folder / "inventory.json").read_text())
    return found | {name: digest(json.dumps(inventory[name], sort_keys=True)) for name in names if name in inventory}


def of_stores(folder):
    """Every prepared pixel and mask, by the fingerprints of the images."""
    found = []
    for store in sorted(folder.glob("*/done.jsonl")):
        records = [json.loads(line) for line in store.read_text().splitlines() if line.strip()]
        records.sort(key=lambda record: record["image_id"])
        images, masks = (store.with_name(f"{name}.npy") for name in ("images", "masks"))
        arrays = [np.load(path, mmap_mode="r") for path in (images, masks) if path.is_file()]
        drawn = [np.asarray(array[record["slot"]]) for record in records if "slot" in record for array in arrays]
        found.append(digest(*(record["image_id"] for record in records), *drawn))
    return sorted(found)


def measure():
    """Run everything in a temporary folder and return the digests by command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mocks(folder)
        run(folder, "prepare", "dataset=phantom", *DATA, "hydra.run.dir=first")
        some_images(folder)
        commands(folder)
        found = {path.name: of_run(path) for path in sorted(folder.glob("train_*"))}
        found |= {
            f"sweep/{path.parent.name}": of_run(path.parent) for path in sorted(folder.glob("sweep/*/metrics.json"))
        }
        found |= {name: of_run(folder / name) for name in ("evaluate", "evaluate_folder")}
        found |= {name: of_localize(folder / name) for name in ("localize", "localize_grad_cam")}
        found |= {path.name: of_prepare(path, folder) for path in sorted(folder.glob("prepare_*"))}
        found["stores"] = {name: of_stores(folder / name) for name in ("store", "store_mocks")}
        found["report"] = {
            name: digest((folder / "report" / name).read_text()) for name in ("table.csv", "differences.csv")
        }
        return found


def flat(values, prefix=""):
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        name: one
        for key, value in values.items()
        for name, one in flat(value, f"{prefix} | {key}" if prefix else key).items()
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    found = measure()
    if given.what == "write":
        given.file.write_text(json.dumps(found, indent=1) + "\n")
        return
    before, after = flat(json.loads(given.file.read_text())), flat(found)
    differences = [key for key in before | after if before.get(key) != after.get(key)]
    for key in differences:
        print(f"{key}: {before.get(key)} before, {after.get(key)} now")
    print(f"{len(before)} digests, {len(differences)} differ")
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
