from pathlib import Path, PureWindowsPath

from hypothesis import given, settings
from hypothesis import strategies as st

from lemlight.training.privacy import public_config

SECRET = "/data/hospital/Jane Doe"


def test_paths_go_and_choices_stay():
    config = {
        "pooling": {"name": "lem", "k": 0.7},
        "dataset": {"name": "folder", "root": "relative/Jane Doe", "csv": "images.csv", "labels": ["benign", SECRET]},
        "backbone": {"name": "resnet18", "weights_file": "w.pt"},
        "callbacks": {"checkpoint": {"monitor": "val/loss", "mode": "min"}},
        "checkpoint": "outputs/best.ckpt",
        "output": "outputs",
        "store": "stores",
        "resume": None,
        "note": SECRET,
        "windows": "C:\\Jane Doe\\images",
        "home": "~/Jane Doe",
        "url": "file://host/Jane Doe",
        "object": Path("Jane Doe"),
        "mask_paths": ["Jane Doe"],
        "seeds": [0, 1],
        "lr": 2e-5,
    }
    assert public_config(config) == {
        "pooling": {"name": "lem", "k": 0.7},
        "dataset": {"name": "folder", "labels": ["benign"]},
        "backbone": {"name": "resnet18"},
        "callbacks": {"checkpoint": {"monitor": "val/loss", "mode": "min"}},
        "seeds": [0, 1],
        "lr": 2e-5,
    }


SECRETS = st.sampled_from([SECRET, "C:\\Jane Doe", "~/Jane Doe", Path(SECRET), PureWindowsPath("Jane Doe")])
VALUES = st.recursive(
    st.one_of(st.integers(), st.text("abc"), st.none(), SECRETS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("xyz"), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("xyz"), VALUES, max_size=4))
def test_no_absolute_path_survives_at_any_depth(config):
    assert "Jane Doe" not in repr(public_config(config))
