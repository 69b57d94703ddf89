import pytest

from lemlight.reporting.methods import compare_runs
from lemlight.reporting.runs import find_runs
from tests.layouts.run_folders import write_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """The folder of a sweep over two poolings and two seeds; not to be changed."""
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def compared_sweep(sweep):
    return compare_runs(find_runs(sweep), 1000)
