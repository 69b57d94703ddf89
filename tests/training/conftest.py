import importlib.util
import sys
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def tiny():
    """The small training of tiny_training.py, the same code that the subprocess tests run."""
    path = Path(__file__).with_name("tiny_training.py")
    spec = importlib.util.spec_from_file_location("tiny_training", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_training"] = module
    spec.loader.exec_module(module)
    module.FILE = path
    return module


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
