import subprocess
import sys

import pytest
from hydra.errors import ConfigCompositionException

from lemlight.cli import explain

HEAVY = ("torch", "pytorch_lightning", "pandas", "albumentations", "wandb", "pydicom")
# the command as `python -m` runs it; afterwards the heavy packages that were imported all the same
RUN = f"""
import atexit, runpy, sys
atexit.register(lambda: print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules]))
sys.argv = [sys.argv[1], *sys.argv[2:]]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command(module, *arguments, folder):
    call = [sys.executable, "-c", RUN, module, *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


COMMANDS = ["train", "evaluate", "localize", "prepare", "report", "export"]


@pytest.mark.parametrize(
    ("name", "arguments"), [*((name, ["--help"]) for name in COMMANDS), ("train", ["--cfg", "job"])]
)
def test_help_and_config_answer_without_the_heavy_imports(name, arguments, tmp_path):
    done = command(f"lemlight.{name}", *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert ("Research only" in done.stdout) == (arguments == ["--help"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batchsize=8"], "batchsize: there is no such key; did you mean batch_size?"),
        (["batch_size=0"], "batch_size=0: must be greater than or equal to 1"),
        (["pooling=mean"], "Could not find 'pooling/mean'"),
        (["dataset=folder"], "dataset.root: a value is needed"),
        (["batch_size=["], "no viable alternative"),
    ],
)
def test_a_mistake_ends_with_one_message_and_no_traceback(arguments, message, tmp_path):
    done = command("lemlight.train", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "HEAVY []" in done.stdout


def test_the_search_path_of_this_machine_is_left_out_of_the_message():
    error = ConfigCompositionException("Could not find 'pooling/x'\nConfig search path:\n\tpath=file:///somewhere")
    assert explain(error) == "Could not find 'pooling/x'"
