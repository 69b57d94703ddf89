"""What a user brings from outside, with the real commands; a copy of the script that says how little it may take."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "extension" / "check.sh"


def test_own_parts_work_from_outside(own_environment, tmp_path):
    source = str(Path(__file__).parents[2] / "src")
    call = ["bash", str(SCRIPT), sys.executable, str(tmp_path / "user")]
    done = subprocess.run(
        call, env=own_environment | {"PYTHONPATH": source}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all of it works from outside"
