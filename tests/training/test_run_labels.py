import pytest

from lemlight.sweeps.names import Sweep, experiment, group_label, run_label, tag_labels

SWEEP = Sweep(["pooling=gap,lem", "seed=0,1", "loss.beta=0,0.001", "trainer=cpu"])
JOB = ["pooling=lem", "seed=1", "loss.beta=0.001", "trainer=cpu"]


def test_a_training_of_its_own_has_no_group_and_its_own_name():
    assert run_label("lem-resnet18-seed1", JOB, None) == "lem-resnet18-seed1"
    assert group_label(JOB, None) is None


def test_an_experiment_names_the_group_also_of_a_single_run():
    assert group_label(["experiment=pooling", "seed=3"], None) == "pooling"
    assert group_label(["experiment=pooling", "seed=3"], Sweep(["experiment=pooling", "seed=3"], ["seed"])) == "pooling"


def test_all_jobs_of_a_sweep_are_one_group():
    groups = {group_label([f"seed={seed}", *JOB[2:]], SWEEP) for seed in (0, 1)}
    assert groups == {"loss.beta=0,0.001+pooling=gap,lem+seed=0,1+trainer=cpu"}


def test_the_name_of_a_job_holds_what_tells_it_from_the_others():
    assert run_label("lem-resnet18-seed1", JOB, SWEEP) == "lem-resnet18-seed1+loss.beta=0.001"
    with_axes = Sweep(["experiment=sparse_loss"], ["loss.beta", "seed"])
    assert (
        run_label("lem-resnet18-seed1", ["loss.beta=0.01", "seed=1"], with_axes) == "lem-resnet18-seed1+loss.beta=0.01"
    )


@pytest.mark.parametrize(
    "private",
    ["dataset.root=/archive/Jane", "dataset.csv=Jane.csv", "dataset.tables=Jane", "+dataset.note='/archive/Jane'",
     "label_names=[/archive/Jane,b]", "backbone.weights_file=Jane.pt", "dataset.root='C:\\Jane'", "store=~/Jane",
     "dataset.root=/a/Jane,/b/Jane"],
)  # fmt: skip
def test_no_path_is_in_a_label(private):
    sweep = Sweep(["pooling=gap,lem", private])
    assert group_label([], sweep) == group_label([], Sweep(["pooling=gap,lem"]))
    swept = Sweep([f"{private.partition('=')[0].lstrip('+')}=1,2"])
    assert run_label("gap-resnet18-seed0", [private.partition(",/b")[0]], swept) == "gap-resnet18-seed0"


def test_labels_fit_what_wandb_takes():
    long = [f"optimizer.key{number}={number},{number + 1}" for number in range(30)]
    assert len(group_label([], Sweep(long))) <= 128
    assert all(1 <= len(tag) <= 64 for tag in tag_labels(["experiment=pooling"], ["x" * 100, "phantom"]))


def test_tags_are_the_users_the_data_set_and_the_experiment():
    assert tag_labels(["experiment=pooling", "seed=1"], ["mine", "cbis"]) == ["mine", "cbis", "pooling"]
    assert tag_labels([], ["phantom", "phantom"]) == ["phantom"]


def test_a_path_is_no_experiment():
    assert experiment(["experiment=/archive/Jane"]) is None
