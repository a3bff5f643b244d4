"""The role's configuration in a real HAProxy: keys, errors, routing, queue, drains, hung engines."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_lab import ENGINE_KEY, KEYS, Engine, Gateway, deployment, running
from rackserve.gateway.runtime import GatewayError, parse_servers_state, socket_command
from rackserve.gateway.servers import Request, apply


def ask(
    gateway: Gateway,
    path: str = "/v1/completions",
    *,
    key: str | None = KEYS["team-a"],
    body: Any = None,
    method: str | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], Any]:
    """One request over its own connection: status, headers in lower case, JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    sent = {"Authorization": f"Bearer {key}"} if key else {}
    sent.update({} if body is None else {"Content-Type": "application/json"})
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    raw = None if body is None else json.dumps(body)
    connection.request(method or ("POST" if body is not None else "GET"), path, raw, sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, json.loads(content or b"null")


def change(gateway: Gateway, **request: Any) -> dict[str, Any]:
    return apply(gateway.command, gateway.state_file, Request(**request), check=False)


def test_keys_paths_and_headers(gateway: Gateway, engines: list[Engine]) -> None:
    for key in (None, "wrong", "empty", ""):
        status, headers, content = ask(gateway, key=key, body={"model": "m"})
        assert (status, content["error"]["code"]) == (401, "invalid_api_key")
        assert headers["content-type"] == "application/json"
    for path in ("/metrics", "/invocations", "/v1/completions/../metrics", "/docs"):
        assert ask(gateway, path)[::2][0] == 404
    status, headers, content = ask(
        gateway, body={"model": "m"}, X_Request_Id="mine", X_Forwarded_For="1.2.3.4", X_Rackserve_Server="r1"
    )
    assert status == 200 and content["choices"][0]["text"] == "Paris"
    assert "x-served-by" not in headers
    seen = next(request for engine in engines for request in engine.seen)["headers"]
    assert seen["authorization"] == f"Bearer {ENGINE_KEY}"
    assert seen["x-request-id"] == headers["x-request-id"] != "mine"
    assert not {"x-forwarded-for", "x-rackserve-server"} & set(seen)


def test_operator_reaches_the_named_server_even_when_it_is_drained(gateway: Gateway) -> None:
    change(gateway, targets=["be_m/r1"], state="drain")
    for slot in ("r0", "r1", "r1", "r0"):
        status, headers, _ = ask(gateway, key=KEYS["operator"], body={"model": "m"}, X_Rackserve_Server=slot)
        assert (status, headers["x-served-by"]) == (200, f"be_m/{slot}")
    assert {ask(gateway, body={"model": "m"})[2]["by"] for _ in range(6)} == {"e0"}


def test_health_and_metrics(gateway: Gateway) -> None:
    assert ask(gateway, "/health", key=None)[0] == 200
    change(gateway, targets=["be_m/r0", "be_m/r1"], state="maint")
    status, headers, content = ask(gateway, "/health", key=None)
    assert (status, headers["retry-after"], content["error"]["code"]) == (503, "5", "unavailable")
    assert ask(gateway, body={"model": "m"})[:1] == (503,)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.metrics_port, timeout=5)
    connection.request("GET", "/metrics")
    assert b"haproxy_server_status" in connection.getresponse().read()
    connection.close()


def test_several_deployments_route_by_model(tmp_path: Path, engines: list[Engine]) -> None:
    two = [deployment("m", [engines[0]]), deployment("n", [engines[1]])]
    with running(Gateway(tmp_path, two, overrides={"load_balancer_buffer_bytes": 32768})) as gateway:
        assert ask(gateway, body={"model": "n"})[2]["by"] == "e1"
        assert ask(gateway, body={"prompt": "x"})[2]["by"] == "e0"
        long = "x" * 60000
        assert ask(gateway, body={"model": "n", "prompt": long})[2]["by"] == "e1"
        status, _, content = ask(gateway, body={"prompt": long, "model": "n"})
        assert (status, content["error"]["message"].split(":")[1]) == (400, " put it first.")
        status, _, content = ask(gateway, body={"model": "other"})
        assert (status, content["error"]["code"]) == (404, "model_not_found")
        assert [row["id"] for row in ask(gateway, "/v1/models")[2]["data"]] == ["m", "n"]


def test_a_full_queue_is_429_and_a_long_wait_503(tmp_path: Path, engines: list[Engine]) -> None:
    """2 servers x 2 in flight + 4 queued: of 14 at once 4 are served, 4 wait too long, 6 are refused."""
    for engine in engines:
        engine.delay_s = 2.0
    with running(
        Gateway(tmp_path, [deployment("m", list(engines))], overrides={"load_balancer_retry_after_s": 7})
    ) as g:
        seen: list[tuple[int, dict[str, str], Any]] = []
        threads = []
        for _ in range(14):
            threads.append(threading.Thread(target=lambda: seen.append(ask(g, body={"model": "m"}))))
            threads[-1].start()
            time.sleep(0.02)
        for thread in threads:
            thread.join(10)
    statuses = sorted(status for status, _, _ in seen)
    assert statuses == [200] * 4 + [429] * 6 + [503] * 4
    assert {headers.get("retry-after") for status, headers, _ in seen if status != 200} == {"7"}
    assert {content["error"]["code"] for status, _, content in seen if status == 429} == {"queue_full"}


def test_without_a_queue_only_free_engines_take_requests(tmp_path: Path, engines: list[Engine]) -> None:
    engines[0].delay_s = 0.5
    one = [deployment("m", [engines[0]], max_inflight_per_server=1)]
    with running(Gateway(tmp_path, one, max_queue=0)) as gateway:
        first: list[int] = []
        thread = threading.Thread(target=lambda: first.append(ask(gateway, body={"model": "m"})[0]))
        thread.start()
        time.sleep(0.15)
        assert ask(gateway, body={"model": "m"})[0] == 429
        thread.join(5)
        assert first == [200]
        assert ask(gateway, body={"model": "m"})[0] == 200


def test_a_refused_or_dead_engine_is_retried_elsewhere(gateway: Gateway, engines: list[Engine]) -> None:
    engines[0].fail_status = 503
    assert [ask(gateway, body={"model": "m"})[0] for _ in range(6)] == [200] * 6
    engines[0].close()
    assert [ask(gateway, body={"model": "m", "prompt": "x" * 40000})[0] for _ in range(6)] == [200] * 6
    engines[1].fail_status = 500
    gateway.wait_for(lambda: "DOWN" in gateway.command("show stat"))
    before = len(engines[1].seen)
    assert ask(gateway, body={"model": "m"})[0] == 500
    assert len(engines[1].seen) == before + 1, "a request that an engine failed on must not travel"


def test_what_an_engine_fails_on_meets_one_more_engine_and_never_again_two(
    gateway: Gateway, engines: list[Engine]
) -> None:
    gateway.wait_for(lambda: gateway.command("show stat").count("L7OK") >= 2)
    engines[0].fail_status = 500
    assert [ask(gateway, body={"model": "m", "prompt": str(n)})[0] for n in range(8)] == [200] * 8
    assert engines[0].seen, "none of them went to the failing engine first"
    engines[1].fail_status = 500

    def tried() -> int:
        before = len(engines[0].seen) + len(engines[1].seen)
        assert ask(gateway, body={"model": "m", "prompt": "poison"})[0] == 500
        return len(engines[0].seen) + len(engines[1].seen) - before

    assert [tried(), tried(), tried()] == [2, 1, 1]


def test_a_hung_engine_is_taken_out_although_health_answers(gateway: Gateway, engines: list[Engine]) -> None:
    gateway.wait_for(lambda: gateway.command("show stat").count("L7OK") >= 2)
    engines[0].thaw.clear()
    down = gateway.wait_for(lambda: "be_m,r0" in gateway.command("show stat") and status(gateway, "r0") == "DOWN")
    assert 1.0 < down < 6.0
    assert {ask(gateway, body={"model": "m"})[2]["by"] for _ in range(3)} == {"e1"}
    engines[0].thaw.set()
    gateway.wait_for(lambda: status(gateway, "r0") == "UP")


def status(gateway: Gateway, slot: str) -> str:
    row = next(line for line in gateway.command("show stat").splitlines() if line.startswith(f"be_m,{slot},"))
    return row.split(",")[17].split()[0]


def test_a_drain_outlives_reload_and_restart(gateway: Gateway) -> None:
    change(gateway, slots=gateway.slots(), targets=["be_m/r0"], state="drain")
    gateway.reload()
    assert parse_servers_state(gateway.command("show servers state"))["be_m/r0"].admin == "drain"
    gateway.stop()
    gateway.start()
    servers = parse_servers_state(gateway.command("show servers state"))
    assert {key: server.admin for key, server in servers.items() if key.startswith("be_")} == {
        "be_m/r0": "drain",
        "be_m/r1": "ready",
        "be_m/r2": "maint",
    }
    assert {ask(gateway, body={"model": "m"})[2]["by"] for _ in range(4)} == {"e1"}
    change(gateway, targets=["be_m/r0"], state="ready")
    gateway.stop()
    gateway.start()
    assert parse_servers_state(gateway.command("show servers state"))["be_m/r0"].admin == "ready"


def test_no_request_is_lost_while_engines_are_drained_in_turn(gateway: Gateway, engines: list[Engine]) -> None:
    for engine in engines:
        engine.delay_s = 0.01
    stop, outcomes = threading.Event(), []

    def client() -> None:
        while not stop.is_set():
            outcomes.append(ask(gateway, body={"model": "m"})[0])

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for target in ("be_m/r0", "be_m/r1"):
        result = change(gateway, targets=[target], state="drain", wait_idle_s=5)
        assert result["servers"][0]["sessions"] == 0
        served = len(engines[int(target[-1])].seen)
        time.sleep(0.1)
        assert len(engines[int(target[-1])].seen) == served
        change(gateway, targets=[target], state="ready")
    stop.set()
    for thread in threads:
        thread.join(5)
    assert len(outcomes) > 20 and set(outcomes) == {200}


def test_a_slot_is_filled_at_run_time_and_serves_after_its_first_check(gateway: Gateway, engines: list[Engine]) -> None:
    late = Engine("e2")
    try:
        gateway.slice["deployments"][0] = deployment("m", [*engines, late])
        result = change(gateway, slots=gateway.slots())
        assert result["diff"]["before"]["be_m/r2"] == "empty" and result["changed"]
        assert change(gateway, slots=gateway.slots())["changed"] is False
        gateway.wait_for(lambda: status(gateway, "r2") == "UP")
        gateway.wait_for(lambda: ask(gateway, body={"model": "m"})[2]["by"] == "e2")
        change(gateway, targets=["be_m/r0"], state="drain")
        gateway.slice["deployments"][0] = deployment("m", [*engines, None])
        assert change(gateway, slots=gateway.slots())["diff"]["after"]["be_m/r2"] == "empty"
        assert parse_servers_state(gateway.command("show servers state"))["be_m/r0"].admin == "drain"
        assert change(gateway, slots=gateway.slots())["changed"] is False
    finally:
        late.close()


def test_streams_pass_unbuffered(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    body = json.dumps({"model": "m", "stream": True})
    connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {KEYS['team-a']}"})
    response = connection.getresponse()
    times = [time.monotonic() for line in iter(response.readline, b"") if line.startswith(b"data:")]
    connection.close()
    assert len(times) == 4
    assert times[-1] - times[0] > 0.01


def test_an_unreachable_socket_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"is rackserve-gateway\.service active"):
        socket_command(tmp_path / "none.sock")("show info")
