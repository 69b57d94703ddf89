"""Which of Lightning's messages and warnings a user is spared."""

import logging
import warnings

NOISE = (
    r".*LeafSpec.*",  # Lightning 2.6 with torch 2.15
    r".*`srun` command is available.*",
    r".*does not have many workers.*",  # the number of workers is config
    r".*exists and is not empty.*",  # a resumed run
    r"Grad strides do not match bucket view strides.*",  # 1x1 weights are both channels-last and not
    r"predict returned None.*",  # predictions are gathered at the end, not returned by batch
)
CHATTER = ("Tip:", "GPU available", "TPU available", "`Trainer(limit_", "to estimate number of stepping batches")


def quiet() -> None:
    """Silence what Lightning says that helps nobody here: advertisements, its own deprecations, hints about srun.

    Called again in every process that is started for a device: filters are not inherited.
    """
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_worth_reading)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _worth_reading(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in CHATTER)
