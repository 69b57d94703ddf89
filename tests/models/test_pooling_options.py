"""What a pooling method refuses."""

import pytest

from lemlight.errors import LemlightError
from tests.parts import build_pooling


def test_unknown_options_are_refused_by_name():
    with pytest.raises(LemlightError, match="RegionGroupMaxPooling: r=2: Unexpected keyword argument"):
        build_pooling("rgp", 4, r=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rgp", {"k": 0.0}),
        ("rgp", {"k": 1.2}),
        ("ggp", {"k": -0.1}),
        ("ggp", {"k": float("nan")}),
        ("lse", {"r": 0.0}),
        ("lse", {"r": float("inf")}),
        ("max_min", {"kmax": 0.0}),
        ("max_min", {"kmin": 2.0}),
        ("max_min", {"alpha": -1.0}),
        ("attention_mil", {"hidden": 0}),
    ],
)
def test_values_outside_their_range_are_refused_by_name(name, options):
    option, value = next(iter(options.items()))
    with pytest.raises(LemlightError, match=f"{option}=-?{abs(value)}: must be"):
        build_pooling(name, 4, **options)
