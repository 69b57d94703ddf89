"""The card that travels in every checkpoint: what was trained is what is deployed."""

import errno
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lemlight.errors import LemlightError
from lemlight.models.exported import is_exported

CARD_KEY = "lemlight"
FORMAT = 1
CARD_FIELDS = {
    "config": dict,
    "label_names": list,
    "preprocessing": dict,
    "versions": dict,
    "trained_on": list,
    "localization": dict,
}


def seal(card: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a card as plain values, with the number of its format.

    A card holds config, label_names, preprocessing, versions, trained_on (fingerprints of the prepared training images)
    and localization (what was chosen on the validation split, by method; empty before that). Raises TypeError for a
    missing or unknown field and for values that are not plain: the mistake of a programmer, who is to see it before the
    training.
    """
    wrong = set(card) ^ set(CARD_FIELDS)
    if wrong:
        raise TypeError(f"a checkpoint's card holds {', '.join(CARD_FIELDS)}: check {', '.join(sorted(wrong))}")
    return {"format": FORMAT, **{name: plain(value) for name, value in card.items()}}


def plain(value: Any) -> Any:
    """Copy `value` into dicts with string keys, lists, strings, numbers, booleans and None; paths become strings.

    Raises TypeError for anything else: `torch.load(weights_only=True)` would refuse it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    raise TypeError(f"a checkpoint's card holds plain values only, not {type(value).__name__}")


PREFIX = "classifier."
COMPILED = "_orig_mod."
SHOWN = 5  # keys listed of each kind of difference


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read; `config` and `preprocessing` are plain data that nothing has acted upon."""

    path: Path
    config: dict[str, Any]
    label_names: list[str]
    preprocessing: dict[str, Any]
    versions: dict[str, str]
    trained_on: list[str]
    localization: dict[str, Any]
    state_dict: dict[str, Tensor]
    epoch: int
    step: int


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code that it may carry.

    Raises LemlightError for a file that is missing, truncated, no checkpoint, of a newer format, without lemlight's
    card, or that holds anything but tensors and plain values.
    """
    content = _read(path)
    if not isinstance(content, dict) or not isinstance(content.get(CARD_KEY), dict):
        raise LemlightError(f"{path} is not a checkpoint of lemlight (no card): give one that lemlight.train wrote")
    card = content[CARD_KEY]
    if not isinstance(card.get("format"), int):
        raise LemlightError(f"{path} is a damaged checkpoint: its card has no format number")
    if card["format"] > FORMAT:
        raise LemlightError(
            f"{path} has checkpoint format {card['format']}, this lemlight reads up to {FORMAT}: upgrade lemlight"
        )
    wrong = [name for name, kind in CARD_FIELDS.items() if not isinstance(card.get(name), kind)]
    weights = content.get("state_dict")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        wrong.append("state_dict")
    wrong += [name for name in ("epoch", "global_step") if not isinstance(content.get(name), int)]
    if wrong or not isinstance(weights, dict):
        raise LemlightError(f"{path} is a damaged checkpoint: {', '.join(wrong)} missing or of a wrong type")
    named = {str(key).replace(COMPILED, ""): value for key, value in weights.items()}
    return Checkpoint(
        path=path,
        **{name: card[name] for name in CARD_FIELDS},
        state_dict={key.removeprefix(PREFIX): value for key, value in named.items() if key.startswith(PREFIX)},
        epoch=content["epoch"],
        step=content["global_step"],
    )


def load_weights(classifier: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the weights of `checkpoint` into `classifier`, all of them or none.

    Raises LemlightError naming keys and shapes that differ when it is the checkpoint of another architecture.
    """
    own = {key.replace(COMPILED, ""): (key, value) for key, value in classifier.state_dict().items()}
    given = checkpoint.state_dict
    shapes = [
        f"{key} is {tuple(given[key].shape)} in the file and {tuple(value.shape)} here"
        for key, (_, value) in own.items()
        if key in given and given[key].shape != value.shape
    ]
    differences = [
        _listed("missing in the file", [key for key in own if key not in given]),
        _listed("unknown here", [key for key in given if key not in own]),
        _listed("other shapes", shapes),
    ]
    if any(differences):
        raise LemlightError(
            f"{checkpoint.path} holds the weights of another network: {'; '.join(filter(None, differences))}. "
            "Use the backbone and the pooling that it was trained with"
        )
    classifier.load_state_dict({key: given[plain] for plain, (key, _) in own.items()}, strict=True)


def _listed(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"


def _read(path: Path) -> Any:
    if not path.is_file():
        raise LemlightError(f"there is no checkpoint at {path}: give the path of a .ckpt file")
    if is_exported(path):
        raise LemlightError(
            f"{path} is an exported network, which only lemlight.localize takes: give the checkpoint (.ckpt) that it "
            "was exported from"
        )
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\x03\x04":  # torch.save writes a zip file; older forms are bare pickles, not even looked into
        raise LemlightError(f"{path} is not a checkpoint: give a .ckpt file that lemlight.train wrote")
    if not zipfile.is_zipfile(path):
        raise LemlightError(f"{path} is truncated (its end is missing): copy it again or use another checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load does not look at the checksums
                raise zipfile.BadZipFile(f"{damaged} is not what was written")
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise LemlightError(
            f"{path} is refused: it holds objects other than tensors and plain values, which could run code on this "
            "machine; use a checkpoint that lemlight.train wrote"
        ) from error
    except Exception as error:  # a damaged or hostile file can make the reader fail in any way
        raise LemlightError(f"{path} cannot be read as a checkpoint, it seems damaged: copy it again") from error


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
