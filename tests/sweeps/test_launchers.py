import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from lemlight.cli import explain
from lemlight.config.conf_dir import conf_dir


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        ("hydra/launcher=ray", "ray"),
        ("hydra/launcher=submitit_slurm", "slurm"),
        ("hydra/launcher=joblib", "joblib"),
        ("hydra/sweeper=optuna", "optuna"),
    ],
)
def test_a_plugin_that_is_not_there_is_named_by_its_extra(choice, extra):
    group, _, name = choice.partition("=")
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        try:
            compose("train", [choice])
        except HydraException as error:
            said = explain(error)
        else:
            pytest.skip("the plugin is installed")
    assert said == f"{group}={name} needs a package: pip install 'lemlight[{extra}]'"


def test_another_launcher_is_an_ordinary_mistake():
    with initialize_config_dir(conf_dir(), version_base="1.3"), pytest.raises(HydraException) as caught:
        compose("train", ["hydra/launcher=rays"])
    assert "Could not find 'hydra/launcher/rays'" in explain(caught.value)
