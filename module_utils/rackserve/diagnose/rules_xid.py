"""Xids by their number: what the driver reports in the kernel log. How bad, and what to do, is health/xids.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple

from ..health.kernel import XID
from ..health.xids import OTHER, XIDS
from .case import KERNEL, Case, Line
from .rule import DEGRADED, DOWN, ENGINE_SYMPTOMS, HEALTH, NOTICE, Hit, Rule

_ROLL_HINT = "ansible-playbook -i <inventory> playbooks/prove-driver.yml --limit {host}"
_PROGRAMS = ("xid-13", "xid-31", "xid-43", "xid-45", "xid-8", "xid-32", "xid-69")
_AFTER = (*_PROGRAMS, "xid-154", "xid-other", "nccl-remote-error", "nccl-timeout", "nccl-internal-error", "gpu-oom")


class Meaning(NamedTuple):
    """What a number says; ``hides``: more causes that follow."""

    says: str
    category: str
    impact: str
    confidence: float
    hides: tuple[str, ...] = ()


MEANINGS: dict[int, Meaning] = {
    8: Meaning("a program's work on a GPU took too long", "process", NOTICE, 0.5),
    13: Meaning("a program failed on a GPU (graphics exception)", "process", NOTICE, 0.55, ("xid-43", "xid-45")),
    31: Meaning("a program touched memory of a GPU that is not its own (MMU fault)", "process", NOTICE, 0.6,
                ("xid-43", "xid-45")),
    32: Meaning("a program sent a GPU something invalid", "process", NOTICE, 0.55, ("xid-43", "xid-45")),
    43: Meaning("the driver stopped a program's channel on a GPU", "process", NOTICE, 0.5, ("xid-45",)),
    45: Meaning("the driver cleaned up after a program that ended", "process", NOTICE, 0.4),
    46: Meaning("a GPU stopped processing", "hardware", DOWN, 0.93, (*_AFTER, "xid-62")),
    48: Meaning("a GPU met a memory error that ECC could not correct", "hardware", DOWN, 0.95,
                (*_AFTER, "xid-63", "xid-64", "xid-94", "xid-95")),
    62: Meaning("the controller inside of a GPU stopped", "hardware", DOWN, 0.93, _AFTER),
    63: Meaning("a memory row of a GPU waits to be remapped", "hardware", DEGRADED, 0.9, ("xid-154",)),
    64: Meaning("a memory row of a GPU could not be remapped", "hardware", DOWN, 0.95, (*_AFTER, "xid-63")),
    69: Meaning("a program failed on a GPU (class error)", "process", NOTICE, 0.55, ("xid-43", "xid-45")),
    74: Meaning("an NVLink of a GPU failed", "fabric", DOWN, 0.94, _AFTER),
    79: Meaning("a GPU fell off the bus", "hardware", DOWN, 0.97,
                (*_AFTER, "xid-74", "xid-119", "xid-120", "xid-48", "gpu-no-device")),
    92: Meaning("a GPU corrects many memory errors", "hardware", DEGRADED, 0.85),
    94: Meaning("a memory error of a GPU ended one program", "hardware", DEGRADED, 0.9, _AFTER),
    95: Meaning("a memory error of a GPU could not be contained", "hardware", DOWN, 0.95, (*_AFTER, "xid-94")),
    109: Meaning("a GPU could not switch between programs", "hardware", DOWN, 0.9, _AFTER),
    110: Meaning("a GPU reported a security fault", "hardware", DOWN, 0.9, _AFTER),
    119: Meaning("the system processor of a GPU (GSP) does not answer", "driver", DOWN, 0.94,
                 (*_AFTER, "xid-120", "xid-109")),
    120: Meaning("the system processor of a GPU (GSP) failed", "driver", DOWN, 0.94, _AFTER),
    121: Meaning("the chip-to-chip link of a GPU corrects errors", "hardware", DEGRADED, 0.8),
    136: Meaning("an NVLink could not be trained", "fabric", DOWN, 0.92, (*_AFTER, "xid-74")),
    137: Meaning("a transfer over NVLink failed", "fabric", DEGRADED, 0.8, _AFTER),
    140: Meaning("a GPU met a memory error that cannot be mended", "hardware", DOWN, 0.95, (*_AFTER, "xid-48")),
    143: Meaning("a GPU could not be initialised", "driver", DOWN, 0.93, _AFTER),
    154: Meaning("the driver asks for something to be done with a GPU", "hardware", DOWN, 0.85),
}  # fmt: skip

_BARE = re.compile(r"\bXid\b[^:]*\(PCI:([0-9a-fA-F:.]+)\): (\d+)")


def _parsed(text: str) -> tuple[str, int] | None:
    found = XID.search(text) or _BARE.search(text)
    return (found[1], int(found[2])) if found else None


def _by_number(wanted: int | None) -> Callable[[Case], Iterable[Hit]]:
    def look(case: Case) -> Iterator[Hit]:
        for source in case.sources((KERNEL,)):
            if "Xid" not in source.text:
                continue
            lines: dict[str, list[Line]] = {}
            for line in source.lines():
                parsed = _parsed(line.text)
                if parsed and (parsed[1] == wanted or (wanted is None and parsed[1] not in MEANINGS)):
                    lines.setdefault(parsed[0], []).append(line)
            for slot, mine in lines.items():
                number = _parsed(mine[0].text)
                yield Hit(
                    source.host,
                    [mine[0], *mine[-1:]][: len(mine)],
                    values={"slot": slot, "number": str(number[1] if number else "?")},
                )

    return look


def _fix(number: int) -> str:
    text = XIDS[number].fix if number in XIDS else OTHER.fix
    return text.replace("{gpu}", "the GPU at {slot}").replace("{index}", "{slot}")


RULES = (
    *(
        Rule(
            f"xid-{number}", said.category, said.impact, said.confidence,
            f"{said.says} (Xid {number}, GPU at {{slot}})",
            "NVIDIA's Xid catalogue.", _fix(number), _ROLL_HINT if said.impact == DOWN else HEALTH,
            _by_number(number),
            said.hides + (ENGINE_SYMPTOMS if said.impact == DOWN else ()),
        )
        for number, said in MEANINGS.items()
    ),
    Rule(
        "xid-other", "hardware", NOTICE, 0.5, "the driver reported Xid {number} (GPU at {slot})",
        "No rule here knows this number.", OTHER.fix, HEALTH, _by_number(None),
    ),
)  # fmt: skip
