"""A Python for check.sh whose commands draw and prepare small images: as it stands it takes minutes."""

import os
import sys

arguments = sys.argv[1:]
command = arguments[1] if arguments[:1] == ["-m"] else ""
if command == "lemlight.train":
    arguments += ["dataset.prepare.height=192", "dataset.prepare.width=128"]
if command in ("lemlight.train", "lemlight.evaluate") and "dataset=mine" not in arguments:
    arguments += ["dataset.patients=24", "dataset.scale=0.25"]
os.environ["OMP_NUM_THREADS"] = "1"  # beside other tests two threads wait for each other
os.execv(sys.executable, [sys.executable, *arguments])
