import json
import os
import signal
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException

from lemlight import __version__, cli
from lemlight.cli import explain, quoted

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


COMMANDS = ["train", "evaluate", "localize", "prepare", "report", "export", "download"]
HELP = [*([f"lemlight.{name}", "--help"] for name in COMMANDS), ["lemlight.train", "--cfg", "job"]]
# every call in a child of one process that has imported what all of them share, and nothing heavy
EACH = f"""
import json, os, runpy, sys
import lemlight.cli, lemlight.settings
from hydra.core.plugins import Plugins
Plugins.instance()
for number, call in enumerate(json.loads(sys.argv[1])):
    if os.fork() == 0:
        sys.stdout = sys.stderr = open(f"{{number}}.txt", "w")
        sys.argv, code = call, 0
        try:
            runpy.run_module(call[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], "CODE", code, flush=True)
        os._exit(0)
    os.wait()
"""


def test_help_and_config_answer_without_the_heavy_imports(tmp_path):
    subprocess.run([sys.executable, "-c", EACH, json.dumps(HELP)], cwd=tmp_path, check=True)
    for number, (module, argument, *_) in enumerate(HELP):
        said = (tmp_path / f"{number}.txt").read_text()
        assert said.endswith("HEAVY [] CODE 0\n"), (module, argument, said)
        assert ("Research only" in said) == (argument == "--help")


def test_the_version_and_the_list_of_commands(tmp_path):
    assert command("lemlight.train", "--version", folder=tmp_path).stdout.startswith(f"lemlight {__version__}\n")
    done = command("lemlight", folder=tmp_path)
    assert all(f"python -m lemlight.{name} " in done.stdout for name in COMMANDS)
    assert "HEAVY []" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["lemlight"], ["lemlight.train", "--help"], ["lemlight.report", "--version"]])
def test_a_reader_that_stops_early_is_no_mistake(words, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that has such a disk")
def test_a_full_disk_behind_what_is_printed_is_one_sentence(tmp_path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "lemlight"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
    said = b"lemlight: what is printed cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batchsize=8"], "batchsize: there is no such key (did you mean batch_size?)"),
        (["batch_size=0"], "batch_size=0: must be greater than or equal to 1"),
        (["pooling=mean"], "Could not find 'pooling/mean'"),
        (["dataset=folder"], "dataset.root: a value is needed"),
        (["batch_size=["], "no viable alternative"),
        (["store=new=1"], "store=new=1: mismatched input '='"),
        (["store=new,1"], """needs quotes: "store='new,1'\""""),
    ],
)
def test_a_mistake_ends_with_one_message_and_no_traceback(arguments, message, tmp_path):
    done = command("lemlight.train", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "HEAVY []" in done.stdout


@pytest.mark.parametrize("name", ["pooling=gap,lem+seed=0", "a (1)", "M\u00fcller's", "back\\'s", "~x", "{a}"])
def test_a_path_that_is_there_is_taken_as_it_stands(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    override = OverridesParser.create().parse_override(quoted(f"dataset.root={name}"))
    assert (override.key_or_group, override.value()) == ("dataset.root", name)
    for word in ("-m", "seed=0,1", "runs=a,b", "pooling=gap", "store='a=b'"):
        assert quoted(word) == word


def test_the_search_path_of_this_machine_is_left_out_of_the_message():
    error = ConfigCompositionException("Could not find 'pooling/x'\nConfig search path:\n\tpath=file:///somewhere")
    assert explain(error) == "Could not find 'pooling/x'"


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is asked")
def test_large_arrays_reuse_the_memory_of_those_before():
    count = """
import resource, sys
from lemlight.limits import keep_freed_memory
sys.argv[1:] == ["keep"] and keep_freed_memory()
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(4 * 10**7)  # numpy's arrays have large pages where the system gives any
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - pages)
"""
    each, kept = (int(subprocess.check_output([sys.executable, "-c", count, *word])) for word in ([], ["keep"]))
    assert kept < each / 5


def test_a_signal_that_follows_at_once_says_nothing_new(monkeypatch):
    clock = iter([10.0, 10.5, 10.6, 20.0])
    monkeypatch.setattr(cli, "_last", {})
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))
    with pytest.raises(cli.ToldToEnd, match="143"):
        cli.end(signal.SIGTERM, None)
    cli.end(signal.SIGTERM, None)  # 0.5 s later, to the whole group
    with pytest.raises(KeyboardInterrupt):
        cli.end(signal.SIGINT, None)
    with pytest.raises(cli.ToldToEnd):
        cli.end(signal.SIGTERM, None)
