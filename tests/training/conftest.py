import pytest
import torch


@pytest.fixture(scope="session")
def tiny():
    """The small training of tiny_training.py, the same code that the subprocess tests run."""
    from tests.training import tiny_training

    return tiny_training


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
