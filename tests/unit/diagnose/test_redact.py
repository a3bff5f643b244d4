"""Secrets do not leave: by value in every spelling, and by what they look like; words that are none stay."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from rackserve.diagnose.redact import MARK, Redactor, known_here, spellings

KEY = "k3y-0f-the/engine+4711=="
PEM = (
    "-----BEGIN CERTIFICATE-----\nMIIBpublicpublicpublicpublicpublicpublicpublicpublic\n-----END CERTIFICATE-----\n"
    "-----BEGIN PRIVATE KEY-----\n"
    + "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n"
    + "-----END PRIVATE KEY-----\n"
)
PRIVATE_LINE = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"

# What has to go, and what stays of the line.
SECRETS = [
    ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
    ("authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
    ('{"Authorization": "Token 0123456789abcdef"}', "0123456789abcdef"),
    ("VLLM_API_KEY=correct-horse-battery", "correct-horse-battery"),
    ("Environment=HF_TOKEN=abcd1234efgh", "abcd1234efgh"),
    ("python3 -m vllm serve x --api-key s3cretvalue --port 8000", "s3cretvalue"),
    ("--hf-token=abcDEF123456", "abcDEF123456"),
    ('{"api_key": "zzz-123456-yyy", "port": 8000}', "zzz-123456-yyy"),
    ("db_password: 'hunter2hunter2'", "hunter2hunter2"),
    ("aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCY", "wJalrXUtnFEMIK7MDENGbPxRfiCY"),
    ("token hf_AbCdEfGhIjKlMnOpQrStUvWxYz123456 was used", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz123456"),
    ("key sk-proj-abcdefghijklmnop1234 was used", "sk-proj-abcdefghijklmnop1234"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("nvapi-abcdefghijklmnopqrstuvwxyz", "nvapi-abcdefghijklmnopqrstuvwxyz"),
    ("git clone https://joe:pa55word@example.org/x.git", "pa55word"),
    ("http://user:p%40ss@proxy:3128", "p%40ss"),
    ("GET /x?access_token=abc123def&n=1", "abc123def"),
    ("https://s3/x?X-Amz-Signature=deadbeef01&X-Amz-Date=1", "deadbeef01"),
    ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "eyJzdWIiOiIxMjM0NTY3ODkwIn0"),
    (PEM, PRIVATE_LINE),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU"),
]
HARMLESS = [
    "max_num_batched_tokens=8192 max_tokens: 24, num_token=17",
    "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/run/credentials/x/token",
    "api_key_file: /etc/rackserve/gateway/keys.map",
    "INFO 11-26 [core.py:1346] basic checks passed, the bearer of bad news",
    "Unknown vLLM environment variable detected: VLLM_FOO",
    "http://10.77.0.11:8000/v1/completions",
    '"api_key_secret": "/x", "tokens": 5, "api_key": null, "token": true',
    "10.0.0.9:4711 - POST /v1/completions 401",
    "NVRM: Xid (PCI:0000:18:00): 79, pid='<unknown>', name=<unknown>",
    "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168)",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS, ids=[text[:24] for text, _ in SECRETS])
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    redactor = Redactor()
    clean = redactor.text(text)
    assert secret not in clean
    assert MARK in clean and redactor.count
    assert Redactor().text(clean) == clean, "once more changes nothing"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize("spelt", [KEY, json.dumps(KEY), quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode()])
def test_a_known_value_goes_in_every_spelling(spelt: str) -> None:
    clean = Redactor([KEY]).text(f"left {spelt} right")
    assert KEY not in clean and quote(KEY, safe="") not in clean and spelt.rstrip("=") not in clean
    assert clean.startswith("left ") and clean.endswith(" right")


def test_each_line_of_a_private_key_goes_and_its_certificate_stays() -> None:
    assert PRIVATE_LINE in spellings(PEM)
    assert not any("public" in one for one in spellings(PEM))
    assert PRIVATE_LINE not in Redactor([PEM]).text(f"systemd: {PRIVATE_LINE}")


def test_values_too_short_to_be_secrets_tear_nothing_apart() -> None:
    assert Redactor(["x", "lab", ""]).text("the lab is exact") == "the lab is exact"


def test_plain_data_is_cleaned_throughout() -> None:
    given = {"a": ["x", {"api_key": "short", "path_token": "/run/x", KEY: 1}], "n": 5, "none": None, "t": (KEY,)}
    clean = Redactor([KEY]).deep(given)
    assert KEY not in json.dumps(clean)
    assert clean["a"][1]["api_key"] == MARK
    assert clean["a"][1]["path_token"] == "/run/x"
    assert (clean["n"], clean["none"]) == (5, None)


def test_secrets_of_our_own_files_are_known_on_the_host(tmp_path: Path) -> None:
    for name, text in {
        "vllm/a.secret.env": "# no\nVLLM_API_KEY=engine-key-1\n",
        "vllm/a.env": "OMP_NUM_THREADS=12345678\n",
        "gateway/keys.map": "client-key-1 client\n# comment\noperator-key-1 operator\n",
        "gateway/engine-key.map": "engine Bearer engine-key-2\n",
        "gateway/tls.pem": PEM,
        "ray/token": "ray-token-1\n",
    }.items():
        path = tmp_path / "etc/rackserve" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    known = known_here(tmp_path)
    assert {"engine-key-1", "client-key-1", "operator-key-1", "engine-key-2"} <= set(known)
    clean = Redactor(known).text(
        "engine-key-1 client-key-1 operator-key-1 engine-key-2 ray-token-1 12345678 " + PRIVATE_LINE
    )
    assert clean == f"{MARK} {MARK} {MARK} {MARK} {MARK} 12345678 {MARK}"
    assert known_here(tmp_path / "nothing") == []


def test_long_lines_take_no_time() -> None:
    """Backtracking must not grow with the square of a line."""
    text = "a-b." * 500 + "\n" + "x" * 2000 + " token " + "=" * 500
    assert Redactor().text(text)
