"""Settings of every test and doctest."""

import os
import signal

import pytest
import torch
from hypothesis import settings
from lightning.pytorch import seed_everything

# Small matrices: threads would only fight, also in processes that tests start. Hypothesis repeats the same examples on
# every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
settings.register_profile("project", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("project")
# A script that starts the tests in the background lets them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("COLUMNS", "200")  # error messages stay on one line


@pytest.fixture(scope="session")
def world():
    """Two processes that talk by gloo, started once."""
    from tests.support.world import World

    processes = World()
    yield processes
    processes.close()


@pytest.fixture
def double_by_default():
    """float64 as torch's default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _seeded():
    seed_everything(0, verbose=False)
