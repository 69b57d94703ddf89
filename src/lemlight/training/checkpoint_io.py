"""Writing checkpoints so that a kill or a full disk never costs the one before."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lemlight.errors import LemlightError
from lemlight.training.card import CARD_KEY, plain


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write aside in the same folder, flush to the disk, then rename over the old file.

    Lightning's own writer goes through the system's temporary folder, often another disk, from where the file is
    copied: a kill in the middle of that leaves half a checkpoint in place of a whole one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`; raises LemlightError when the disk is full, the old file left as it was."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        except OSError as error:
            raise self._explained(target, error) from error
        except RuntimeError as error:  # torch reports a failed write as one, with the cause behind it
            cause = error.__context__
            if isinstance(cause, OSError):
                raise self._explained(target, cause) from error
            raise
        finally:
            aside.unlink(missing_ok=True)

    @staticmethod
    def _explained(target: Path, error: OSError) -> LemlightError:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        return LemlightError(
            f"the checkpoint {target} cannot be written: {why}; make room or choose another output folder, then go on "
            "with resume= from the last checkpoint, which is untouched"
        )


def add_to_card(path: Path, **fields: Any) -> None:
    """Write plain values into the card of a checkpoint of ours, the rest of the file as it was."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    content[CARD_KEY] |= {name: plain(value) for name, value in fields.items()}
    AtomicCheckpointIO().save_checkpoint(content, path)
