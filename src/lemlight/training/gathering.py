"""One row per image from what the processes of a distributed run have seen."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors


def gather_rows(index: Tensor, *columns: Tensor) -> list[Tensor]:
    """Gather `index (N,)` and `columns (N, ...)` over all processes, sorted by index, each index once.

    The sampler pads the shards of val and test with images seen elsewhere; only the first row of an index is kept, so
    that what is computed from the rows is the same with any number of processes.
    """
    rows = [index, *columns]
    if distributed.is_available() and distributed.is_initialized():
        rows = [torch.cat(gather_all_tensors(row.contiguous())) for row in rows]
    order = torch.argsort(rows[0], stable=True)
    ordered = [row[order] for row in rows]
    kept = torch.ones_like(ordered[0], dtype=torch.bool)
    kept[1:] = ordered[0][1:] != ordered[0][:-1]
    return [row[kept] for row in ordered]


def concatenate(batches: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Join the columns of a non-empty list of batches, each a tuple of tensors of one length."""
    return [torch.cat(column) for column in zip(*batches, strict=True)]


def leave_process_group() -> None:
    """End what DDP started, once all is done: Lightning leaves it open, and gloo's threads can then crash the exit."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
