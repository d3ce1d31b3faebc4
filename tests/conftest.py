"""What all tiers share."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

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


class TierScheduling(LoadScopeScheduling):
    """With several processes (`-n 2`) a tier stays in one: its lab is started once, its tests keep their order."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("/")[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TierScheduling:
    """Deal tests out by tier."""
    return TierScheduling(config, log)
