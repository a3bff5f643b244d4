"""smoke-test on the lab: a client's way in, and what it says when a door is open or no engine answers."""

from __future__ import annotations

import time

from conftest import Run


def test_the_service_answers_and_refuses_within_a_minute(playbook: Run) -> None:
    begun_s = time.monotonic()
    done = playbook("smoke-test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused: no key, a wrong key, other paths" in done.stdout
    assert "chat_stream" in done.stdout
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert recap.count("changed=0") == recap.count("changed=")
    assert time.monotonic() - begun_s < 120, "it hangs somewhere: a minute is what it is meant to take"


def test_a_key_that_is_no_longer_known_is_told(playbook: Run) -> None:
    done = playbook("smoke-test", "-e", "acceptance_client_key=not-a-key-of-ours-either")
    assert done.returncode == 2
    assert "HTTP 401" in done.stdout
