"""The script for a machine with a GPU runs on any, so that it is whole where there is one."""

import pytest
import torch

from tests.bench import gpu
from tests.composing import settings_of


def test_without_a_gpu_nothing_is_measured(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "no GPU here: not run\n"


def test_every_part_of_it_runs_tiny(capsys, monkeypatch):
    for name in gpu.TINY:
        monkeypatch.setattr(gpu, name, getattr(gpu, name))  # put back what it changes
    with monkeypatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        gpu.main(["--tiny"])
    lines = capsys.readouterr().out
    parts = ("resnet18 at 96x64, batch 2: ", "of the bound of", "localize: ", "augmentation against")
    for words in (*parts, "all run, deterministic or not"):
        assert words in lines
    assert "importance 0e+00, cam 0e+00" in lines
    assert "DIFFERS" not in lines


def test_the_commands_that_it_runs_on_a_gpu_are_whole(tmp_path):
    for command, *words in gpu.commands(tmp_path, "cpu").values():
        settings_of(*words, command=command)


@pytest.fixture(autouse=True)
def _threads():
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)
