import resource

import pytest
import torch

from lemlight.errors import LemlightError
from lemlight.training.checkpoint import AtomicCheckpointIO


@pytest.fixture
def _little_room():
    """Files of at most 4 KiB, as on a disk that is full by then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_is_replaced_whole(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for value in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.usefixtures("_little_room")
def test_without_room_the_old_checkpoint_stays_and_nothing_half_written_is_left(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)
    with pytest.raises(LemlightError, match=r"last.ckpt cannot be written: .*make room.*untouched"):
        AtomicCheckpointIO().save_checkpoint({"value": torch.zeros(100_000)}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_cannot_be_saved_is_the_programmers_error_and_leaves_nothing(tmp_path):
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        AtomicCheckpointIO().save_checkpoint({"value": lambda: None}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []
