"""The relay on loopback: everybody gets all of it, from the host before, whatever breaks."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rackserve.relay import wire
from rackserve.relay.fetch import RelayError
from rackserve.relay.serve import Server
from rackserve.relay.shelf import Shelf
from relay_support import TOKEN, Chain

TOTAL = 321 + 700_000 + 1_300_001


def test_every_host_gets_everything_and_the_source_sends_once(chain: Chain) -> None:
    chain.model("host0")
    source = chain.node(0)
    hosts = []
    for number in range(1, 5):
        hosts.append(chain.node(number, [*reversed(hosts), source]))
    said = chain.bring(*hosts)
    for number, (node, result) in enumerate(zip(hosts, said)):
        assert chain.staged(node) == chain.content
        assert result["bytes"] == TOTAL
        assert (result["left"], result["resent"]) == ({}, [])
        assert result["received"] == {f"host{number}": TOTAL}
        assert set(result["proven"]) == set(chain.files)
    assert [node.server.sent for node in [source, *hosts]] == [TOTAL] * 4 + [0]


def test_what_is_whole_is_not_sent_again_and_the_rest_goes_on(chain: Chain) -> None:
    chain.model("host0")
    first, second = "model-1.safetensors", "model-2.safetensors"
    partial = {first: chain.content[first], second + ".part": chain.content[second][:1_000_000]}
    chain.write(chain.folder / "host1/staging", partial)
    node = chain.node(1, [chain.node(0)])
    [said] = chain.bring(node)
    assert chain.staged(node) == chain.content
    assert first not in said["files"]
    assert sum(said["received"].values()) == TOTAL - 700_000 - 1_000_000
    assert said["resent"] == []
    assert set(said["proven"]) == set(chain.files)


def test_a_partial_file_with_other_content_is_fetched_anew(chain: Chain) -> None:
    chain.model("host0")
    name = "model-2.safetensors"
    chain.write(chain.folder / "host1/staging", {name + ".part": b"x" * 5000, "model-1.safetensors.part": b""})
    first = chain.node(1, [chain.node(0)])
    second = chain.node(2, [first])
    said = chain.bring(first, second)
    assert said[0]["resent"] == [name]
    assert chain.staged(first) == chain.staged(second) == chain.content


@pytest.mark.parametrize("left", ["model-2.safetensors", "model-2.safetensors.part"])
def test_a_whole_file_of_another_revision_or_with_rot_is_not_taken_over(chain: Chain, left: str) -> None:
    """Same name, same size: only its digest tells."""
    chain.model("host0")
    name = "model-2.safetensors"
    rotten = chain.content[name][:-1] + bytes([chain.content[name][-1] ^ 1])
    chain.write(chain.folder / "host1/staging", {left: rotten, "model-1.safetensors": b"A" * 700_000})
    first = chain.node(1, [chain.node(0)])
    assert first.shelf.staged() == []
    second = chain.node(2, [first])
    said = chain.bring(first, second)
    assert chain.staged(first) == chain.staged(second) == chain.content
    assert said[0]["received"] == {"host0": TOTAL}
    assert {name, "model-1.safetensors"} <= set(said[0]["files"])


def test_whole_files_of_an_earlier_copy_are_passed_on_once_they_are_hashed(chain: Chain) -> None:
    chain.write(chain.folder / "host0", {})
    chain.write(chain.folder / "host1/staging", chain.content)
    first = chain.node(1, [chain.node(0)])
    second = chain.node(2, [first])
    said = chain.bring(first, second)
    assert chain.staged(second) == chain.content
    assert (said[0]["files"], said[0]["bytes"], said[0]["received"]) == ([], 0, {})
    assert set(said[0]["proven"]) == set(chain.files)


def test_more_than_the_file_was_left_behind(chain: Chain) -> None:
    chain.model("host0")
    name = "config.json"
    chain.write(chain.folder / "host1/staging", {name + ".part": chain.content[name] + b"more"})
    node = chain.node(1, [chain.node(0)])
    [said] = chain.bring(node)
    assert (chain.staged(node), said["resent"]) == (chain.content, [])


def test_only_the_damaged_file_is_fetched_and_the_others_are_passed_on(chain: Chain) -> None:
    chain.model("host0")
    chain.model("host1")
    first = chain.node(1, [chain.node(0)], wanted=["config.json"])
    second = chain.node(2, [first])
    said = chain.bring(first, second)
    assert said[0]["received"] == {"host0": 321}
    assert chain.staged(second) == chain.content


def test_the_chain_closes_around_a_host_that_dies(chain: Chain, until: Callable[[Callable[[], bool]], None]) -> None:
    chain.model("host0")
    source = chain.node(0, limit_bytes_s=1_500_000)
    first = chain.node(1, [source])
    # As a host without power: it takes connections no more, and those there are break.
    dead = chain.node(2, [first, source])
    last = chain.node(3, [dead, first, source])
    # A dead host gets nothing itself: only what it has when it dies was passed on.
    cut = threading.Event()

    def die() -> None:
        until(lambda: dead.server.sent > 200_000)
        dead.server.close()
        dead.server._send = broken  # type: ignore[method-assign]
        dead.server._pass_on = broken  # type: ignore[method-assign]
        cut.set()

    def broken(*_: object) -> int:
        raise wire.WireError("no power")

    threading.Thread(target=die, daemon=True).start()
    said = chain.bring(first, dead, last)
    assert cut.is_set()
    assert chain.staged(last) == chain.staged(first) == chain.content
    assert set(said[2]["left"]) == {"host2"}
    assert said[2]["received"]["host2"] > 0
    assert said[2]["received"]["host1"] > 0
    # It went on where it was: the parts of both together are the whole, but for what was in flight.
    assert sum(said[2]["received"].values()) == TOTAL


def test_a_host_that_never_comes_is_left_out(chain: Chain) -> None:
    chain.model("host0")
    source = chain.node(0)
    absent = chain.node(1, [source])
    absent.server.close()
    last = chain.node(2, [absent, source])
    [said] = chain.bring(last)
    assert chain.staged(last) == chain.content
    assert set(said["left"]) == {"host1"}


def test_a_host_that_gets_nothing_itself_is_left(chain: Chain) -> None:
    chain.model("host0")
    source = chain.node(0)
    stuck = chain.node(1, [source])  # listens, and brings nothing
    last = chain.node(2, [stuck, source])
    [said] = chain.bring(last)
    assert chain.staged(last) == chain.content
    assert "it got nothing itself for 2 s" in said["left"]["host1"]


def test_a_source_with_other_content_is_named(chain: Chain) -> None:
    chain.write(chain.folder / "host0", {**chain.content, "config.json": b"y" * 321})
    node = chain.node(1, [chain.node(0)])
    [said] = chain.bring(node)
    assert isinstance(said, RelayError)
    assert "config.json comes with other content" in str(said)
    assert "host0" in str(said)
    assert "config.json" not in chain.staged(node)


def test_nobody_answers(chain: Chain) -> None:
    source = chain.node(0)
    source.server.close()
    node = chain.node(1, [source])
    [said] = chain.bring(node)
    assert isinstance(said, RelayError)
    assert "nobody of host0 has sent anything" in str(said)
    assert "it goes on where it stopped" in str(said)


def test_without_the_token_there_is_nothing(chain: Chain) -> None:
    chain.model("host0")
    node = chain.node(1, [chain.node(0)], token=b"other" * 10)
    [said] = chain.bring(node)
    assert isinstance(said, RelayError)
    assert chain.nodes[0].server.sent == 0
    assert not any(chain.staged(node).values())


def test_an_address_that_takes_no_part_is_dropped(chain: Chain) -> None:
    chain.model("host0")
    node = chain.node(0, peers=["127.0.0.9"])
    with socket.create_connection((node.settings.bind[0], node.server.port), 5, ("127.0.0.8", 0)) as stranger:
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
    with socket.create_connection((node.settings.bind[0], node.server.port), 5, ("127.0.0.9", 0)) as peer:
        wire.introduce(peer, TOKEN)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "READY", "model-1.safetensors.part"])
def test_only_names_of_the_manifest_are_answered(chain: Chain, name: str) -> None:
    chain.model("host0")
    chain.write(chain.folder, {"secret": b"s"})
    chain.write(chain.folder / "host0", {"READY": b"x", "model-1.safetensors.part": b"x"})
    node = chain.node(0)
    with socket.create_connection((node.settings.bind[0], node.server.port), 5, ("127.0.0.2", 0)) as peer:
        wire.introduce(peer, TOKEN)
        wire.ask(peer, name, 0)
        with pytest.raises(wire.WireError, match="is no file of this model"):
            wire.read_frame(peer)


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b'{"file": 1, "from": 0}\n', b'{"file": "a", "from": -1}\n', b"x" * 5000]
)
def test_a_question_that_is_none_ends_the_connection(chain: Chain, line: bytes) -> None:
    node = chain.node(0)
    with socket.create_connection((node.settings.bind[0], node.server.port), 5, ("127.0.0.2", 0)) as peer:
        peer.settimeout(5)
        wire.introduce(peer, TOKEN)
        peer.sendall(line)
        # A reset: it closed with words of ours unread.
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""


def test_a_link_in_the_staging_folder_is_not_followed(chain: Chain) -> None:
    chain.model("host0")
    target = chain.folder / "victim"
    target.write_bytes(b"kept")
    staging = chain.write(chain.folder / "host1/staging", {})
    (staging / "config.json.part").symlink_to(target)
    node = chain.node(1, [chain.node(0)])
    [said] = chain.bring(node)
    assert isinstance(said, OSError)
    assert target.read_bytes() == b"kept"


def test_a_host_ends_when_nobody_needs_it(chain: Chain) -> None:
    chain.model("host0")
    source = chain.node(0)
    node = chain.node(1, [source])
    chain.bring(node)
    source.linger()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((source.settings.bind[0], source.server.port), 1)


def test_the_end_is_not_told_before_the_digest_is_right(chain: Chain) -> None:
    """All bytes of a bad attempt are here, and nobody behind may take them for the file."""
    node = chain.node(1, [])
    path = node.shelf.partial("config.json")
    path.write_bytes(b"y" * 321)
    node.shelf.begin("config.json", path, 321)
    with socket.create_connection((node.settings.bind[0], node.server.port), 5, ("127.0.0.9", 0)) as peer:
        peer.settimeout(5)
        wire.introduce(peer, TOKEN)
        wire.ask(peer, "config.json", 0)
        assert wire.read_frame(peer) == (wire.DATA, 321)
        wire.receive(peer, 321)
        assert wire.read_frame(peer).kind == wire.WAIT
        node.shelf.begin("config.json", path, 0)
        assert wire.read_frame(peer).kind == wire.AGAIN
        path.write_bytes(chain.content["config.json"])
        node.shelf.grow("config.json", 321)
        wire.ask(peer, "config.json", 0)
        assert wire.read_frame(peer) == (wire.DATA, 321)
        assert wire.receive(peer, 321) == chain.content["config.json"]
        node.shelf.approve("config.json")
        while (frame := wire.read_frame(peer)).kind == wire.WAIT:
            continue
        assert frame == (wire.END, 321)


def test_a_slow_link_does_not_cost_a_write_for_each_packet(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []

    def in_packets(_self: Any, connection: socket.socket, descriptor: int, at: int, amount: int) -> int:
        wire.send_frame(connection, wire.DATA, amount)
        for start in range(at, at + amount, 1000):
            connection.sendall(os.pread(descriptor, min(1000, at + amount - start), start))
            os.sched_yield()
        return amount

    grow = Shelf.grow
    monkeypatch.setattr(Server, "_pass_on", in_packets)
    monkeypatch.setattr(Shelf, "grow", lambda self, name, amount: (pieces.append(amount), grow(self, name, amount))[1])
    chain.model("host0")
    last = chain.node(1, [chain.node(0)])
    chain.bring(last)
    assert chain.staged(last) == chain.content
    assert sum(pieces) == TOTAL
    assert len(pieces) < 2 * TOTAL / (1 << 16)
