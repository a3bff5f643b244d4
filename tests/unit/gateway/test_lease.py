"""One change at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rackserve.lease import Lease, LeaseError, acquire, read, release


def lease(owner: str, start_s: int = 1000, ttl_s: int = 60) -> Lease:
    return Lease(owner, "abcdef0123456789", "roll-serving", start_s, start_s + ttl_s)


def test_taken_renewed_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lease.json"
    assert acquire(path, lease("alice"), now_s=1000)["changed"]
    renewed = acquire(path, lease("alice", 1030), now_s=1030)
    assert renewed["holder"]["acquired_at"] == 1000 and renewed["holder"]["expires_at"] == 1090
    assert release(path, "alice", now_s=1040)["changed"]
    assert release(path, "alice", now_s=1040)["changed"] is False
    assert read(path) is None


def test_another_owner_is_told_who_what_when_and_how(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    acquire(path, lease("alice"), now_s=1000)
    with pytest.raises(LeaseError) as refusal:
        acquire(path, lease("bob"), now_s=1001)
    text = str(refusal.value)
    for part in ("alice", "roll-serving", "1970-01-01 00:16:40Z", "1970-01-01 00:17:40Z", "-e break_lock=alice"):
        assert part in text
    assert "\n" not in text
    with pytest.raises(LeaseError, match="alice holds"):
        release(path, "bob", now_s=1001)
    with pytest.raises(LeaseError, match="does not name the holder"):
        acquire(path, lease("bob"), "carol", now_s=1001)
    assert read(path) == lease("alice")


def test_broken_by_name_or_expired(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    acquire(path, lease("alice"), now_s=1000)
    assert acquire(path, lease("bob", 1001), "alice", now_s=1001)["note"].startswith("broke the lease of alice")
    assert "expired" in acquire(path, lease("carol", 1061), now_s=1061)["note"]
    assert read(path) == lease("carol", 1061)


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "lease.json"
    assert acquire(path, lease("alice"), check=True, now_s=1000)["changed"]
    assert not path.parent.exists()
    acquire(path, lease("alice"), now_s=1000)
    assert release(path, "alice", check=True, now_s=1001)["changed"] and read(path)
    with pytest.raises(LeaseError):
        acquire(path, lease("bob"), check=True, now_s=1001)


@pytest.mark.parametrize("text", ["", "[]", '{"owner": "a"}', "{"])
def test_a_damaged_lease_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text)
    with pytest.raises(LeaseError, match="look at it"):
        acquire(path, lease("alice"), now_s=1)
    assert path.read_text() == text


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeaseError, match="cannot lock"):
        acquire(tmp_path / "file" / "lease.json", lease("alice"), now_s=1)


def test_of_many_at_once_exactly_one_wins(tmp_path: Path) -> None:
    path, won, start = tmp_path / "lease.json", [], threading.Barrier(8)

    def run(owner: str) -> None:
        start.wait()
        try:
            acquire(path, lease(owner), now_s=1000)
            won.append(owner)
        except LeaseError:
            return

    threads = [threading.Thread(target=run, args=(f"o{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = read(path)
    assert held is not None and won == [held.owner]


steps = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 100), st.sampled_from(["take", "give"]))


@given(st.lists(steps, max_size=20))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_valid_lease_never_changes_hands_unasked(tmp_path: Path, events: list[tuple[str, int, str]]) -> None:
    path, now_s = tmp_path / "lease.json", 0
    path.unlink(missing_ok=True)
    for owner, wait_s, what in events:
        now_s += wait_s
        held = read(path)
        try:
            if what == "take":
                acquire(path, lease(owner, now_s), now_s=now_s)
            else:
                release(path, owner, now_s=now_s)
            assert held is None or held.owner == owner or held.expires_at <= now_s
        except LeaseError:
            assert held is not None and held.owner != owner and held.expires_at > now_s
            assert read(path) == held
