"""An outcome as the module returns it; it stays on the controller's side of the package."""

from __future__ import annotations

from typing import Any

from .judge import Difference
from .reading import supported_text
from .session import Outcome, Wanted
from .wanted import value_text


def report(wanted: Wanted, outcome: Outcome | None = None) -> dict[str, Any]:
    """{changes, waiting, notes, supported, diff}; without an outcome the driver could not be asked yet."""
    seen = outcome or Outcome()

    def line(one: Difference) -> str:
        return f"{wanted.noun} {one.gpu.index}: {one}"

    diffs = []
    for one in seen.changed:
        header = f"{wanted.noun} {one.gpu.index}, {one.setting}"
        before, after = (f"{value_text(one.setting, value)}\n" for value in (one.before, one.after))
        diffs.append({"before_header": header, "after_header": header, "before": before, "after": after})
    return {
        "changes": [line(one) for one in seen.changed],
        "waiting": [{"units": units, "what": line(one)} for one, units in seen.waiting],
        "notes": seen.notes,
        "supported": {str(gpu.index): supported_text(gpu) for gpu in seen.gpus},
        "diff": diffs,
    }
