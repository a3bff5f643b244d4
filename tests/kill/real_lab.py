"""The main lab with its real engines, as far as a test of killed runs needs it. Needs `make demo` before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

import light_tree
from light_lab import MAIN_STATE, LightLab
from rackserve.lab import hosts as lab_hosts
from rackserve.lab.spec import Host, Lab

VICTIM = "node1"


class RealLab(LightLab):
    """The lab of inventories/lab in this repository; `fresh` makes one of its hosts bare."""

    deployment = "tiny-deepseek"
    builds = False

    def __init__(self) -> None:
        super().__init__(4)
        self.place = light_tree.Site(4, "rslab", 77, MAIN_STATE, MAIN_STATE / "images")
        self.management_cidr = light_tree.management_cidr(77)
        self.prefix, self.state_dir, self.tree = "rslab", MAIN_STATE, light_tree.REPOSITORY
        self.inventory = self.tree / "inventories/lab/hosts.yml"

    def copy(self) -> None:
        """The repository itself is used."""

    def down(self) -> None:
        """It stays."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It stays."""

    def fresh(self) -> None:
        """Destroy one host and boot it bare; the others go on."""
        place = self.place
        folder = self.inventory.parent / ".state"
        subnet, uplink = f"10.{place.net}.0.0/24", f"10.{place.net}.1.0/30"
        lab = Lab(self.prefix, (), subnet, uplink, self.state_dir, place.images_dir, folder, Path("~/.ansible/cp"))
        lab_hosts.stop(lab, [VICTIM])
        lab_hosts.unmount(lab, [VICTIM], run_command)
        shutil.rmtree(lab.host_dir(Host(VICTIM, "")))
        for control in Path("~/.ansible/cp").expanduser().glob(f"{self.prefix}-{place.hosts()[VICTIM]}"):
            run_command(["ssh", "-O", "exit", "-S", str(control), control.name])
        self.must("lab-up")


def run_command(command: list[str]) -> tuple[int, str, str]:
    """(exit status, stdout, stderr)."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
