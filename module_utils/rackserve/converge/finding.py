"""What a comparison may look at, and what it says of an item that differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .contents import Contents
from .document import Item
from .host import Host


class Finding(NamedTuple):
    """One item that differs. `refusal`: why converge will not put it right; `gates`: the running unit would notice."""

    item: Item
    why: str
    before: str = ""
    after: str = ""
    refusal: str | None = None
    gates: bool = False
    content: bool = False


class Seen(NamedTuple):
    """What a comparison may look at."""

    host: Host
    contents: Contents
    secrets: Mapping[str, str]
