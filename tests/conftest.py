"""What all tiers share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A slow machine, or the first draw that builds Unicode's tables, is no failure: no test here measures time.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Importing AiiDA makes a configuration directory: not in the home of whoever tests."""
    directory = tempfile.mkdtemp(prefix="byoc-aiida-")
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    os.environ["AIIDA_PATH"] = directory


@pytest.hookimpl(tryfirst=True)  # the plugin reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`-n 2 --dist loadgroup`) a tier stays in one: its lab is started once."""
    here = Path(__file__).parent
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.relative_to(here).parts[0]))
