"""What pytest (with nbval) collects here, and the environment in which the cells run."""

import os
from unittest import mock

import pytest
from build import kernel_environment

collect_ignore_glob = ["src/*", "build.py", ".ipynb_checkpoints/*"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """A kernel starts in the set-up of its notebook's first cell, with the environment it finds."""
    with mock.patch.dict(os.environ, kernel_environment(), clear=True):
        return (yield)
