"""The role's unit, a real vllm-router started with its words, and the real HAProxy in front of it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateway_lab import ENGINE_KEY, KEYS, REPO, Engine, Gateway, running
from rackserve.gateway.servers import Request, apply
from router_lab import SETTINGS, pools, routed, routing, unit_text, words
from test_haproxy import ask
from vllm_router.launch_router import parse_router_args


def answers(gateway: Gateway, count: int = 1, prompt: str = "x") -> list[Any]:
    return [ask(gateway, body={"model": "m", "prompt": f"{prompt}{n}"}) for n in range(count)]


def asked(engine: Engine, path: str = "/v1/completions") -> list[dict[str, Any]]:
    """What clients asked of an engine, without the gateway's probes."""
    return [one for one in engine.seen if one["path"] == path and one["body"].get("prompt") != "1"]


def test_the_router_understands_every_word_of_the_unit(engines: list[Engine]) -> None:
    given = parse_router_args(words(unit_text(routed("m", engines)))[4:])
    assert {name: getattr(given, name) for name in SETTINGS} == SETTINGS
    assert given.host == given.prometheus_host == "127.0.0.1"
    assert given.worker_urls == [f"http://127.0.0.1:{engine.port}" for engine in engines]
    assert (given.health_check_endpoint, given.disable_retries, given.vllm_pd_disaggregation) == (
        "/health",
        True,
        False,
    )
    assert given.request_timeout_secs == 86400, "it cuts a stream that takes longer in all"
    split = parse_router_args(words(unit_text(pools("m", engines[:1], engines[1:])))[4:])
    assert (split.vllm_pd_disaggregation, split.kv_connector) == (True, "nixl")
    assert [url for url, _bootstrap in split.prefill_urls] == [f"http://127.0.0.1:{engines[0].port}"]
    assert split.decode_urls == [f"http://127.0.0.1:{engines[1].port}"]


def test_the_key_is_in_no_unit_and_only_pools_need_it(engines: list[Engine]) -> None:
    plain, split = unit_text(routed("m", engines)), unit_text(pools("m", engines[:1], engines[1:]))
    assert "EnvironmentFile" not in plain and "--api-key" not in plain + split
    assert "EnvironmentFile=/etc/rackserve/router/m.secret.env\n" in split


def test_the_gateway_retries_once_more_than_failures_open_the_breaker() -> None:
    def default(role: str, name: str) -> int:
        return int(yaml.safe_load((REPO / f"roles/{role}/defaults/main.yml").read_text())[name])

    assert default("load_balancer", "load_balancer_router_retries") >= default("router", "router_breaker_failures")


def test_requests_pass_with_the_engines_key_and_prefixes_stay_together(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines)
    with routing(one, tmp_path), running(Gateway(tmp_path, [one])) as gateway:
        gateway.wait_for(lambda: ask(gateway, "/health", key=None)[0] == 200)
        status, headers, content = ask(gateway, body={"model": "m", "prompt": "x", "vendor_field": [1]})
        assert (status, content["choices"][0]["text"]) == (200, "Paris")
        assert not [name for name in headers if name.startswith("access-control")]
        seen = [request for engine in engines for request in asked(engine)]
        assert seen[-1]["headers"]["authorization"] == f"Bearer {ENGINE_KEY}"
        assert seen[-1]["headers"]["x-request-id"] == headers["x-request-id"]
        assert seen[-1]["body"]["vendor_field"] == [1]
        shared = "a long document that many questions are about " * 20
        assert len({ask(gateway, body={"model": "m", "prompt": shared + str(n)})[2]["by"] for n in range(12)}) == 1


def test_a_dead_engine_costs_no_request(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines)
    with routing(one, tmp_path), running(Gateway(tmp_path, [one], max_queue=64)) as gateway:
        gateway.wait_for(lambda: ask(gateway, "/health", key=None)[0] == 200)
        shared = "the same beginning for all of them " * 20
        first = ask(gateway, body={"model": "m", "prompt": shared})[2]["by"]
        next(engine for engine in engines if engine.name == first).close()
        found = [ask(gateway, body={"model": "m", "prompt": f"{shared}{n}"}) for n in range(12)]
        assert [status for status, _headers, _content in found] == [200] * 12
        assert {content["by"] for _status, _headers, content in found} == {"e0", "e1"} - {first}


def test_wrong_requests_and_long_ones_do_not_open_the_breaker(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines)
    with routing(one, tmp_path), running(Gateway(tmp_path, [one])) as gateway:
        gateway.wait_for(lambda: ask(gateway, "/health", key=None)[0] == 200)
        for engine in engines:
            engine.fail_status = 400
        assert [status for status, *_ in answers(gateway, 12)] == [400] * 12
        for engine in engines:
            engine.fail_status, engine.delay_s = 0, 3.0
        assert [status for status, *_ in answers(gateway, 1, "long")] == [200]
        for engine in engines:
            engine.delay_s = 0.0
        assert [status for status, *_ in answers(gateway, 6, "after")] == [200] * 6


def test_what_the_router_says_itself_becomes_an_error_in_json(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines[:1])
    one["engines"] = None
    with routing(one, tmp_path), running(Gateway(tmp_path, [one])) as gateway:
        gateway.wait_for(lambda: ask(gateway, "/health", key=None)[0] == 200)
        status, _, content = ask(gateway, body={"model": "m", "prompt": "x"}, Content_Type="text/plain")
        assert (status, content["error"]["type"]) == (400, "invalid_request_error")
        engines[0].close()
        status, headers, content = answers(gateway)[0]
        assert (status, content["error"]["type"]) in {(502, "server_error"), (503, "server_error")}
        assert headers["content-type"] == "application/json" and "127.0.0.1" not in json.dumps(content)


def test_a_router_is_rolled_without_losing_a_request(tmp_path: Path, engines: list[Engine]) -> None:
    """Drained, it finishes its streams; new requests go straight to the engines, and through it again afterwards."""
    one = routed("m", engines)
    stop, outcomes = threading.Event(), []
    with running(Gateway(tmp_path, [one], max_queue=64)) as gateway:

        def client() -> None:
            while not stop.is_set():
                status, headers, _ = ask(gateway, key=KEYS["operator"], body={"model": "m", "prompt": "x"})
                outcomes.append((status, headers.get("x-served-by", "")))
                time.sleep(0.01)

        def state(to: str, **more: Any) -> None:
            apply(gateway.command, gateway.state_file, Request(targets=["be_m/r0"], state=to, **more), check=False)

        def through(before: int) -> bool:
            return any(by == "be_m/r0" for _status, by in outcomes[before:])

        with routing(one, tmp_path):
            gateway.wait_for(lambda: answers(gateway)[0][0] == 200)
            threads = [threading.Thread(target=client) for _ in range(3)]
            for thread in threads:
                thread.start()
            gateway.wait_for(lambda: through(0))
            state("drain", wait_idle_s=5)
        with routing(one, tmp_path):
            state("ready")
            back = len(outcomes)
            gateway.wait_for(lambda: through(back))
            rolled = len(outcomes)
        # One that ends by itself is noticed by the probe.
        gateway.wait_for(lambda: outcomes[-1][1].startswith("be_m-engines/"))
        stop.set()
        for thread in threads:
            thread.join(5)
    assert {status for status, _by in outcomes[:rolled]} == {200}


def test_the_operator_proves_every_engine_behind_a_router(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines)
    with routing(one, tmp_path), running(Gateway(tmp_path, [one])) as gateway:
        gateway.wait_for(lambda: gateway.command("show stat").count("L7OK") >= 3)
        for slot in ("e0", "e1"):
            _, headers, content = ask(gateway, key=KEYS["operator"], body={"model": "m"}, X_Rackserve_Server=slot)
            assert (headers["x-served-by"], content["by"]) == (f"be_m-engines/{slot}", slot)


def test_pools_are_asked_one_after_the_other_with_the_key_of_the_environment(
    tmp_path: Path, engines: list[Engine]
) -> None:
    one = pools("m", engines[:1], engines[1:])
    with routing(one, tmp_path), running(Gateway(tmp_path, [one])) as gateway:
        gateway.wait_for(lambda: ask(gateway, "/health", key=None)[0] == 200)
        assert ask(gateway, body={"model": "m", "prompt": "x", "max_tokens": 5})[2]["by"] == "e1"
    prefill, decode = asked(engines[0])[-1], asked(engines[1])[-1]
    assert (prefill["body"]["max_tokens"], decode["body"]["max_tokens"]) == (1, 5)
    assert prefill["body"]["kv_transfer_params"]["do_remote_decode"] is True
    assert {one["headers"]["authorization"] for one in (prefill, decode)} == {f"Bearer {ENGINE_KEY}"}


def test_the_router_ends_what_is_in_flight_when_it_is_stopped(tmp_path: Path, engines: list[Engine]) -> None:
    one = routed("m", engines)
    engines[0].chunks = engines[1].chunks = 200
    with routing(one, tmp_path) as process:
        connection = http.client.HTTPConnection("127.0.0.1", one["router"]["port"], timeout=10)
        sent = {"Authorization": f"Bearer {ENGINE_KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps({"model": "m", "prompt": "x", "stream": True}), sent)
        response = connection.getresponse()
        process.terminate()
        assert b"[DONE]" in response.read()
        assert process.wait(10) == 0


@pytest.mark.parametrize("setting", ["cache_threshold", "policy"])
def test_a_changed_setting_changes_the_unit_that_waits(engines: list[Engine], setting: str) -> None:
    one = routed("m", engines)
    other = {**one, "router": {**one["router"], setting: {"cache_threshold": 0.2, "policy": "random"}[setting]}}
    assert unit_text(one) != unit_text(other)


def test_the_unit_gives_up_what_it_does_not_need(tmp_path: Path, engines: list[Engine]) -> None:
    for name, one in {"plain": routed("m", engines), "split": pools("m", engines[:1], engines[1:])}.items():
        path = tmp_path / f"{name}.service"
        path.write_text(unit_text(one, __router_release={"path": "/usr"}))
        verify = ["systemd-analyze", "verify", "--recursive-errors=no", str(path)]
        assert subprocess.run(verify, capture_output=True, text=True, check=False).returncode == 0
        rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
        shown = subprocess.run(rate, capture_output=True, text=True, check=True).stdout
        verdict = re.search(r"Overall exposure level for .*: ([\d.]+) ", shown)
        assert verdict and float(verdict[1]) <= 2.0
