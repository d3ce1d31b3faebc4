"""What all tiers share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A slow machine, or the first draw that builds Unicode's tables, is no failure: no test here measures time.
settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("house")
