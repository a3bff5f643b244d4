"""A lab under a temporary folder, and commands answered from a table."""

from __future__ import annotations

import json
from pathlib import Path

from rackserve.lab.spec import Host, Lab, Result

HOST_KEY = "ssh-ed25519 AAAAhost root@host\n"
CLIENT_KEY = "ssh-ed25519 AAAAclient rackserve-lab\n"


def make_lab(folder: Path, **changes: object) -> Lab:
    """Two hosts; every path below `folder`."""
    fields: dict[str, object] = {
        "prefix": "tlab",
        "hosts": (Host("gw", "10.99.0.10"), Host("node1", "10.99.0.11")),
        "subnet": "10.99.0.0/24",
        "uplink": "10.99.1.0/30",
        "state_dir": folder / "state",
        "image_dir": folder / "state/images/abc",
        "client_dir": folder / "client",
        "control_dir": folder / "cp",
    }
    return Lab(**(fields | changes))  # type: ignore[arg-type]


def link_list(*names: str) -> str:
    """What `ip -json link show` prints for these links."""
    return json.dumps([{"ifname": name} for name in names])


class Commands:
    """Answers commands by their longest known beginning; an unknown one fails the test, `calls` keeps the order."""

    def __init__(self, table: dict[str, Result | str] | None = None, keygen: bool = False) -> None:
        self.table = table or {}
        self.keygen = keygen
        self.calls: list[str] = []

    def __call__(self, command: list[str]) -> Result:
        line = " ".join(command)
        self.calls.append(line)
        if self.keygen and command[0] == "ssh-keygen":
            key = Path(command[command.index("-f") + 1])
            key.write_text(f"private {key.name}\n")
            key.with_suffix(".pub").write_text(CLIENT_KEY if key.name == "id_ed25519" else HOST_KEY)
            return 0, "", ""
        known = [start for start in self.table if line == start or line.startswith(f"{start} ")]
        assert known, f"unexpected command: {line}"
        answer = self.table[max(known, key=len)]
        return (0, answer, "") if isinstance(answer, str) else answer

    def changing(self) -> list[str]:
        """The calls that are more than a question."""
        return [call for call in self.calls if not call.endswith(("link show", "table all"))]
