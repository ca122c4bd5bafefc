"""What all tests share: how hypothesis searches."""

from hypothesis import HealthCheck, settings

# A busy machine is slow to draw examples, which says nothing of the code; the same examples each time do.
settings.register_profile("headrace", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")
