import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.sweeps.names import LONGEST, Sweep, file_name, is_axis, job_name, labels_of, sweep_name

ALLOWED = re.compile(r"[A-Za-z0-9_.@+-]+")
overrides = st.builds(
    lambda key, value: f"{key}={value}",
    st.from_regex(r"[a-z_]{1,12}(\.[a-z_]{1,12}){0,2}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60),
)
jobs = st.lists(overrides, min_size=1, max_size=6, unique_by=lambda override: override.partition("=")[0])
AXES = ("pooling", "seed")
SWEEP = Sweep(["pooling=gap,lem", "seed=0,1", "loss.beta=0,0.001", "trainer=cpu"])
JOB = ["pooling=lem", "seed=1", "loss.beta=0.001", "trainer=cpu"]


@settings(max_examples=50)
@given(jobs, jobs, st.randoms())
def test_a_name_is_one_short_folder_on_every_file_system_and_no_others(one, other, random):
    name = job_name(one, [])
    assert ALLOWED.fullmatch(name)
    assert len(name) <= LONGEST
    assert name not in (".", "..")
    assert (name == job_name(other, [])) == (sorted(one) == sorted(other))
    assert name == job_name(random.sample(one, len(one)), [])


@given(st.text("ab/+=-,@", max_size=120), st.text("ab/+=-,@", max_size=120))
def test_what_looks_alike_once_cleaned_is_told_apart(one, other):
    assert (file_name([f"k={one}"]) == file_name([f"k={other}"])) == (one == other)


def test_names_are_readable():
    command = ["pooling=gap,lem", "seed=0,1", "batch_size=4", "workers=8", "trainer.enable_progress_bar=false"]
    assert sweep_name(command) == "pooling-gap@lem+seed-0@1+batch_size-4"
    assert job_name(["seed=1", "pooling=gap", "batch_size=4", "workers=8"], command) == "pooling-gap+seed-1"
    assert sweep_name(["dataset.root=/data/cbis", "seed=0,1"]).startswith("seed-0@1+dataset.root-data-cbis-")
    assert sweep_name([]) == "defaults"
    assert job_name(["seed=3"], ["seed=3"]) == "only"
    again = job_name(["seed=0", "trainer.deterministic=False"], ["seed=0,1", "trainer.deterministic=false"])
    assert again == "seed-0"  # Hydra writes a fixed value in another way
    for command in (["experiment=pooling", "seed=0"], ["experiment=pooling"]):
        assert job_name(["pooling=gap", "seed=0", "experiment=pooling"], command, AXES) == "pooling-gap+seed-0"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["experiment=pooling"], "pooling"),
        (["experiment=pooling", "+scale=small"], "pooling+scale-small"),
        (["+scale=small", "experiment=pooling", "seed=0,1,2,3"], "pooling+scale-small"),
        (["experiment=pooling", "pooling=lem", "seed=0"], "pooling"),
        (["experiment=pooling", "loss.beta=0,1"], "pooling"),
        (["experiment=pooling", "loss.beta=0"], "pooling+loss.beta-0"),
        (["experiment=pooling", "workers=0", "logger=wandb"], "pooling"),
    ],
)
def test_another_value_on_an_axis_of_an_experiment_stays_in_its_folder(command, name):
    assert sweep_name(command, AXES) == name


def test_an_axis_is_known():
    assert all(map(is_axis, ["seed=0,1", "seed=range(0,3)", "pooling=choice(gap,lem)", "pooling=glob(*)"]))
    assert not any(map(is_axis, ["seed=0", "a.compare=[cam,grad_cam]", "label_names='a,b'", "+scale=small"]))


def labels(overrides=(), sweep=None):
    return labels_of("lem-resnet18-seed1", {"choices": {"dataset": "cbis"}}, overrides, sweep)


def test_the_name_of_a_run_holds_what_tells_it_from_the_others_of_its_sweep():
    assert labels(JOB)["label"] == "lem-resnet18-seed1"
    for sweep in (SWEEP, Sweep(["experiment=sparse_loss"], ["loss.beta", "seed"])):
        assert labels(JOB, sweep)["label"] == "lem-resnet18-seed1+loss.beta-0.001"


def test_all_jobs_of_a_sweep_are_one_group_and_a_run_of_its_own_has_none():
    groups = {labels([f"seed={seed}", *JOB[2:]], SWEEP)["sweep_group"] for seed in (0, 1)}
    assert groups == {"loss.beta-0@0.001+pooling-gap@lem+seed-0@1+trainer-cpu"}
    assert labels(JOB) == {"label": "lem-resnet18-seed1", "sweep_group": None, "labels": ["cbis"]}
    long = [f"optimizer.key{number}={number},{number + 1}" for number in range(30)]
    assert len(labels((), Sweep(long))["sweep_group"]) <= 128  # as W&B takes it


def test_an_experiment_is_a_label_and_names_the_group_also_of_a_single_run():
    command = ["experiment=pooling", "seed=3"]
    for sweep in (None, Sweep(command, ["seed"])):
        found = labels(command, sweep)
        assert (found["sweep_group"], found["labels"]) == ("pooling", ["cbis", "pooling"])


@pytest.mark.parametrize(
    "private",
    ["dataset.root=/archive/Jane", "dataset.csv=Jane.csv", "dataset.tables=Jane", "+dataset.note='/archive/Jane'",
     "label_names=[/archive/Jane,b]", "backbone.weights_file=Jane.pt", "dataset.root='C:\\Jane'", "store='~/Jane'",
     "dataset.root=/a/Jane,/b/Jane", "experiment=/archive/Jane"],
)  # fmt: skip
def test_no_path_is_in_a_label(private):
    key = private.partition("=")[0].lstrip("+")
    for sweep in (None, Sweep(["pooling=gap,lem", private]), Sweep([f"{key}=1,2"])):
        assert "Jane" not in str(labels([private.partition(",/b")[0]], sweep))
