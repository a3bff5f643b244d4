"""A chain of hosts on loopback addresses, each with its folders."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path
from typing import Any

from rackserve.progress.report import Report
from rackserve.relay.fetch import Parent, Patience
from rackserve.relay.node import Node, Settings
from rackserve.relay.shelf import File

TOKEN = b"t" * 64
SIZES = {"config.json": 321, "model-1.safetensors": 700_000, "model-2.safetensors": 1_300_001, "sub/tokenizer.json": 0}
PEERS = [f"127.0.0.{number}" for number in range(1, 20)]
FAST = Patience(join_s=1.0, retry_s=0.3, silence_s=2.0, nobody_s=2.0)


class Chain:
    """Content, and nodes made one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = random.Random(7)  # noqa: S311 - content, not a secret
        self.content = {name: source.randbytes(size) for name, size in SIZES.items()}
        self.files = {
            name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(self.content.items())
        }
        self.nodes: list[Node] = []
        self.results: dict[int, Any] = {}

    def model(self, host: str) -> Path:
        """A folder with all of the model."""
        return self.write(self.folder / host, self.content)

    def write(self, folder: Path, content: dict[str, bytes]) -> Path:
        for name, data in content.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def node(self, number: int, parents: list[Node] | None = None, **changes: Any) -> Node:
        """Host ``number``; it lacks everything where it has parents."""
        wanted = list(self.files) if parents is not None else []
        staging = self.folder / f"host{number}/staging" if parents is not None else None
        if staging:
            staging.mkdir(parents=True, exist_ok=True)
        settings = Settings(
            folder=self.folder / f"host{number}",
            staging=staging,
            files=self.files,
            wanted=wanted,
            bind=(PEERS[number], 0),
            peers=PEERS,
            parents=[Parent(f"host{self.nodes.index(one)}", one.settings.bind[0], one.server.port)
                     for one in parents or []],
            fed=False,
            streams=2,
            limit_bytes_s=0,
            linger_s=0.2,
            patience=FAST,
        )  # fmt: skip
        token = changes.pop("token", TOKEN)
        node = Node(settings._replace(**changes), token, Report())
        self.nodes.append(node)
        return node

    def bring(self, *nodes: Node) -> list[Any]:
        """What each of them says, all at work at once; an exception is a result too."""
        said: dict[int, Any] = {}

        def one(number: int, node: Node) -> None:
            try:
                said[number] = node.bring()
            except Exception as problem:  # the test judges it
                said[number] = problem

        threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate(nodes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a host does not come to an end"
        return [said[number] for number in range(len(nodes))]

    def staged(self, node: Node) -> dict[str, bytes]:
        folder = node.settings.staging
        assert folder
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
