"""One host's program: its files, its words, what feeds it, and how fast it may be."""

from __future__ import annotations

import errno
import fcntl
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rackserve.relay.fetch import Parent, Parents, Patience, RelayError
from rackserve.relay.node import LOCK, clear_stray, held
from rackserve.relay.program import main
from rackserve.relay.serve import Limiter
from relay_support import PEERS, TOKEN, Chain


def settings_of(chain: Chain, number: int, **changes: Any) -> dict[str, Any]:
    folder = chain.folder / f"host{number}"
    source = chain.nodes[0]
    return {
        "folder": str(folder),
        "staging": str(folder / "staging"),
        "files": {name: file._asdict() for name, file in chain.files.items()},
        "wanted": list(chain.files),
        "address": PEERS[number],
        "port": 0,
        "peers": PEERS,
        "parents": [{"name": "host0", "address": PEERS[0], "port": source.server.port}],
        "fed": False,
        "streams": 2,
        "limit_mib_s": 0,
        "linger_s": 0.1,
        "patience": {"silence_s": 2, "nobody_s": 2, "join_s": 1},
        **changes,
    }


def run(folder: Path, settings: Any, token: bytes = TOKEN) -> int:
    (folder / "relay.json").write_text(json.dumps(settings))
    (folder / "token").write_bytes(token + b"\n")
    (folder / "state").mkdir(exist_ok=True)
    words = ["--config", folder / "relay.json", "--token", folder / "token", "--state", folder / "state"]
    return main([str(word) for word in words])


def said(folder: Path) -> Any:
    return json.loads((folder / "state/result.json").read_text())


def test_it_brings_everything_says_so_and_ends(chain: Chain, tmp_path: Path) -> None:
    chain.model("host0")
    chain.node(0)
    stray = {"old.bin": b"1", "old.bin.part": b"1", "config.json.part": chain.content["config.json"]}
    chain.write(chain.folder / "host1/staging", stray)
    assert run(tmp_path, settings_of(chain, 1)) == 0
    result = said(tmp_path)["result"]
    assert set(result["proven"]) == set(chain.files)
    assert "config.json" not in result["files"], "all of it was there, and its digest is right"
    lying = {str(one.relative_to(chain.folder / "host1/staging")) for one in (chain.folder / "host1/staging").rglob("*")
             if one.is_file()}  # fmt: skip
    assert lying == {*chain.files, LOCK}


def test_what_goes_wrong_is_a_result_too(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain.model("host0")
    chain.node(0)
    chain.write(chain.folder / "host1/staging", {})
    assert run(tmp_path, settings_of(chain, 1), b"short") == 1
    assert "the token has 5 characters" in said(tmp_path)["error"]
    assert "the token has 5 characters" in capsys.readouterr().err
    assert run(tmp_path, {"folder": "/x"}) == 1
    assert "settings are not readable" in said(tmp_path)["error"]
    assert run(tmp_path, settings_of(chain, 1, parents=[])) == 1
    assert "there is no host to get the weights from" in said(tmp_path)["error"]
    assert run(tmp_path, settings_of(chain, 1, address="192.0.2.1")) == 1
    assert "Cannot assign requested address" in said(tmp_path)["error"]


def test_one_file_system_has_one_writer(chain: Chain, tmp_path: Path) -> None:
    """A unit of a run whose controller was killed goes on; another host must not cut what it writes."""
    chain.model("host0")
    chain.node(0)
    staging = chain.write(chain.folder / "host1/staging", {"model-1.safetensors.part": b"1", "stray": b"1"})
    with held(staging):
        assert run(tmp_path, settings_of(chain, 1)) == 1
        assert f"another host writes to {staging}" in said(tmp_path)["error"]
        assert (staging / "stray").exists()
    assert run(tmp_path, settings_of(chain, 1)) == 0
    assert (staging / "model-1.safetensors").read_bytes() == chain.content["model-1.safetensors"]


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fails := Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with held(tmp_path):
        assert fails.called
    fails.side_effect = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken"), held(tmp_path):
        pass


def test_a_file_is_passed_on_as_soon_as_it_was_brought(
    chain: Chain, until: Callable[[Callable[[], bool]], None]
) -> None:
    folder = chain.write(chain.folder / "host1", {"config.json": b"z" * 321})
    fed = chain.node(1, wanted=list(chain.files), fed=True)
    last = chain.node(2, [fed])
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(chain.bring(fed, last)), daemon=True)
    thread.start()

    def lay(name: str) -> None:
        part = folder / f"{name}.rsync"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(chain.content[name])
        part.replace(folder / name)

    before = fed.shelf.progress
    (folder / ".model-1.safetensors.tmp").write_bytes(b"1")
    until(lambda: fed.shelf.progress > before)
    (folder / ".model-1.safetensors.tmp").unlink()
    lay("config.json")
    lay("model-1.safetensors")
    until(lambda: "model-1.safetensors" in last.shelf.staged())
    assert "model-2.safetensors" in fed.shelf.missing()
    lay("model-2.safetensors")
    lay("sub/tokenizer.json")
    thread.join(20)
    assert not thread.is_alive()
    assert chain.staged(last) == chain.content
    assert set(results[0]["proven"]) == set(chain.files)
    assert results[1]["received"] == {"host0": sum(len(data) for data in chain.content.values())}


def test_stray_files_are_cleared_links_too(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "a.part", "b", "sub/c", "sub/d.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("/etc/hosts")
    assert clear_stray(tmp_path, {"a", "sub/d"}) == ["b", "link", "sub/c"]
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == ["a", "a.part", "sub", "sub/d.part"]


def test_the_limit_is_kept_by_all_connections_together() -> None:
    now = [0.0]
    limit = Limiter(100, lambda: now[0])
    assert [limit.pause_s(100) for _ in range(3)] == [0, 1, 2]
    now[0] = 10.0
    assert limit.pause_s(50) == 0
    assert limit.pause_s(50) == 0.5
    assert Limiter(0).pause_s(10**9) == 0


def test_who_is_asked_and_when_the_next_one_is() -> None:
    now = [0.0]
    one, two = Parent("one", "10.0.0.1", 1), Parent("two", "10.0.0.2", 1)
    patience = Patience(join_s=20, retry_s=3, silence_s=30, nobody_s=120)
    parents = Parents([one, two], patience, lambda: now[0])
    parents.failed(one, "refused")
    assert parents.current() == one, "it may still be starting"
    now[0] = 21
    parents.failed(one, "refused")
    assert (parents.current(), parents.left) == (two, {"one": "refused"})
    parents.failed(one, "a thread that comes late")
    assert parents.current() == two
    parents.met(two)
    parents.failed(two, "it broke off")
    assert parents.current() == one, "it was there and is gone: the next one at once"
    parents.gets_on()
    now[0] = 21 + 120
    parents.failed(one, "refused")
    with pytest.raises(RelayError, match="nobody of one, two has sent anything for 120 s"):
        now[0] += 1
        parents.failed(two, "refused")
