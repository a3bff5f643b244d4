"""docs/cluster.md says what the schema says."""

from __future__ import annotations

import pytest
from rackserve.plan.description import CLUSTER, EXCUSABLE
from rackserve.plan.known import ADVISED_ARGS, ADVISED_ENV, REFUSED_ARGS, REFUSED_ENV
from rackserve.plan.schema import table

from .conftest import REPO

PAGE = (REPO / "docs" / "cluster.md").read_text("utf-8")


def test_every_field_stands_in_the_table_and_no_other() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `cluster.")]
    assert rows == table(CLUSTER, "cluster")


@pytest.mark.parametrize("words", [EXCUSABLE, REFUSED_ARGS, ADVISED_ARGS, REFUSED_ENV, ADVISED_ENV])
def test_every_refusal_is_documented(words: dict[str, object]) -> None:
    assert [word for word in words if f"| `{word}`" not in PAGE] == []
