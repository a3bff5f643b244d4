"""What each check costs, asked alone on a simulated host: writes module_utils/rackserve/health/costs.py.

python tests/health/measure.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO / place) for place in ("tests/unit/health", "tests/unit/simulated", "module_utils")]

from health_support import HealthHost
from rackserve.health.catalogue import CHECKS
from rackserve.health.check import FAST

HEAD = '"""What each check costs, each asked alone: (wall ms, CPU ms). tests/health/measure.py writes it."""\n'


def main() -> None:
    """Measure, and write the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        host = HealthHost(Path(folder))
        os.environ["RACKSERVE_SIMULATED_ROOT"] = str(host.root)
        lines = []
        for check in CHECKS:
            if check.level == FAST:
                runs = [host.check(only=[check.id])["checks"][0] for _ in range(rounds)]
                wall, cpu = (statistics.median(run[name] for run in runs) for name in ("wall_ms", "cpu_ms"))
                lines.append(f'    "{check.id}": ({wall:.1f}, {cpu:.1f}),\n')
    head = f"{HEAD}\nfrom __future__ import annotations\n\nCOSTS: dict[str, tuple[float, float]] = {{\n"
    text = f"{head}{''.join(lines)}}}\n"
    (REPO / "module_utils/rackserve/health/costs.py").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
