"""What each check costs, each asked alone: (wall ms, CPU ms). Written by tests/health/measure.py; see docs/health.md."""

COSTS: dict[str, tuple[float, float]] = {}
