"""The one door for clients."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from conftest import STATE
from openai import OpenAI

Module = Callable[..., dict[str, Any]]
PROMPT = "The operator drains"


@pytest.fixture
def client(base_url: str, secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> OpenAI:
    """The unmodified openai client."""
    monkeypatch.setenv("SSL_CERT_FILE", str(STATE / "gateway-ca.pem"))
    return OpenAI(base_url=f"{base_url}/v1", api_key=secrets["api_key_client"], max_retries=0, timeout=60)


def test_openai_client(client: OpenAI) -> None:
    whole = client.completions.create(model="tiny-deepseek", prompt=PROMPT, max_tokens=16, temperature=0)
    chunks = client.completions.create(model="tiny-deepseek", prompt=PROMPT, max_tokens=16, temperature=0, stream=True)
    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_openai_client_chats(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What does the gateway record?"}]
    whole = client.chat.completions.create(model="tiny-deepseek", messages=messages, max_tokens=16, temperature=0)
    assert whole.choices[0].message.content


def ask(url: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url, headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    )
    request.data = json.dumps(body).encode() if body else None
    trusted = ssl.create_default_context(cafile=str(STATE / "gateway-ca.pem"))
    try:
        with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read())


REQUEST = {"model": "tiny-deepseek", "prompt": "x"}


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/models", "api_key_client", 200),
        ("/v1/models", "wrong", 401),
        ("/v1/models", "engine_api_key", 401),
        ("/tokenize", "api_key_client", 404),
        ("/invocations", "api_key_client", 404),
        ("/metrics", "api_key_client", 404),
    ],
)
def test_door_policy(path: str, key: str, status: int, base_url: str, secrets: dict[str, str]) -> None:
    body = None if path == "/v1/models" else REQUEST
    code, answer = ask(base_url + path, secrets.get(key, "wrong"), body)
    assert code == status
    assert ("error" in answer) == (status != 200)


def admin_state(module: Module, plan: dict[str, Any], target: str, **options: Any) -> str:
    gateway = plan["gateway"]
    result = module(
        "gw",
        "gateway_servers",
        socket=gateway["stats_socket"],
        state_file=gateway["server_state_file"],
        targets=[target],
        **options,
    )
    state: str = result["servers"][0]["admin"]
    return state


def test_a_drain_survives_reload_and_restart(
    plan: dict[str, Any], module: Module, shell: Callable[[str, str], str]
) -> None:
    target = plan["instances"][1]["gateway_target"]
    try:
        assert admin_state(module, plan, target, state="drain", wait_idle_s=20) == "drain"
        shell("gw", "systemctl reload rackserve-gateway.service")
        assert admin_state(module, plan, target) == "drain"
        shell("gw", "systemctl restart rackserve-gateway.service")
        assert admin_state(module, plan, target) == "drain"
    finally:
        assert admin_state(module, plan, target, state="ready") == "ready"
