"""Filters for bundles: a release's packages and the files of its engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from rackserve.bundle.collect import engine_files
from rackserve.bundle.manifest import package_sums
from rackserve.plan.sets.packages import all_packages


def release_packages(release: Any, distribution: Any) -> dict[str, str]:
    """Name to exact version of all parts of a release set on a distribution ("" where all get the same)."""
    try:
        return all_packages(json.loads(json.dumps(release)), str(distribution or ""))
    except (ValueError, TypeError, KeyError) as problem:
        raise AnsibleFilterError(f"bundle: {problem}") from None


def bundle_engine_files(release_id: Any, cache: Any) -> list[dict[str, str]]:
    """[{source, path}] of a built engine below the controller's cache."""
    return engine_files(Path(str(cache)), str(release_id))


def bundle_sums(manifest: Any, folder: Any) -> list[str]:
    """What sha256sum compares where a host keeps packages in `<folder>/debs`, from the text of the manifest."""
    try:
        return package_sums(json.loads(str(manifest)), str(folder))
    except (ValueError, TypeError, KeyError) as problem:
        raise AnsibleFilterError(f"bundle: the manifest cannot be read: {problem}") from None


class FilterModule:
    """Name the filters for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "release_packages": release_packages,
            "bundle_engine_files": bundle_engine_files,
            "bundle_sums": bundle_sums,
        }
