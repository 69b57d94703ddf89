import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built wheel, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


def run(call, site, folder):
    environment = {**os.environ, "PYTHONPATH": str(site)}  # before the editable install of the checkout
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_finds_its_own_configs_in_another_folder(site, tmp_path):
    show = "import lemlight.cli as c; print(c.conf_dir())"
    done = run([sys.executable, "-c", show], site, tmp_path)
    assert Path(done.stdout.strip()) == site / "lemlight" / "conf", done.stderr


@pytest.mark.parametrize("start", [["-m", "lemlight.train"], ["bin/lemlight-train"]])
def test_the_installed_commands_compose(site, tmp_path, start):
    start = [str(site / part) if part.startswith("bin/") else part for part in start]
    done = run([sys.executable, *start, "--cfg", "job", "pooling=rgp"], site, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "k: 0.7" in done.stdout


def test_the_wheel_carries_every_config_and_template(site):
    packed = {file.relative_to(site / "lemlight") for file in (site / "lemlight").rglob("*") if file.is_file()}
    wanted = {file.relative_to(ROOT) for file in (ROOT / "conf").rglob("*.yaml")}
    for ending in ("*.j2", "*.js"):
        wanted |= {file.relative_to(ROOT / "src/lemlight") for file in (ROOT / "src/lemlight").rglob(ending)}
    assert wanted <= packed
