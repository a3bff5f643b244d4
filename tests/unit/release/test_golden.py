"""What is recorded from an engine's answers, and what stops a recording."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from rackserve.release import golden_engine
from rackserve.release.golden import CONCURRENCY, MESSAGES, PROMPTS, GoldenRequest, assess, on_loopback, record
from rackserve.release.host import ReleaseError
from rackserve.release.recordings import golden_answers, golden_instances
from rackserve.release.sandbox import Sandbox
from rackserve_release import built_release


def answer(text: str, shift: float = 0.0) -> dict:
    return {"text": text, "token_logprobs": [-2.0 + shift, -1.5], "margins": [2.5, 2.0]}


def answers() -> dict:
    single = [answer(f" text {number}") for number in range(len(PROMPTS))]
    batched = [answer(f" text {number % len(PROMPTS)}", 0.02) for number in range(CONCURRENCY)]
    return {"ready_s": 21.04, "single": single, "batched": batched, "chat": answer("hello")}


@pytest.fixture
def request_(tmp_path: Path) -> GoldenRequest:
    for folder in ("tree", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tree" / "MANIFEST").write_text("m")
    (tmp_path / "model" / "manifest.json").write_text("{}")
    return GoldenRequest(
        "r",
        Sandbox(None, tmp_path / "tree", "/opt/r"),
        "m",
        tmp_path / "model",
        "/srv/m",
        "lab",
        ["/opt/r/bin/python3"],
        {},
        8000,
        tmp_path / "golden" / "r--m--lab.json",
    )


class Engine:
    """A sandboxed engine that gives the prepared answers and counts its starts."""

    def __init__(self, said: dict, status: int = 0) -> None:
        self.said, self.status, self.started = said, status, 0

    def __call__(self, command):
        self.started += 1
        assert "golden_engine.py" in command[-1] and "/srv/m" in command[-1]
        return self.status, "noise\n" + json.dumps(self.said) + "\n", "the engine ended with 1: no such file"


def test_a_recording_says_what_it_is_of_and_is_made_once(request_: GoldenRequest) -> None:
    engine = Engine(answers())
    assert record(request_, engine, check_mode=True) == {"changed": True} and engine.started == 0
    result = record(request_, engine)
    assert result == {
        "changed": True,
        "ready_s": 21.0,
        "lowest_margin": 2.0,
        "batch_difference": 0.02,
        "tolerance": 0.06,
    }
    written = json.loads(request_.output.read_text())
    assert (written["release"], written["hardware_class"], written["min_margin"]) == ("r", "lab", 1.0)
    assert written["cases"][1] == {
        "prompt": PROMPTS[1],
        "text": " text 1",
        "token_logprobs": [-2.0, -1.5],
        "max_tokens": 16,
        "tolerance": 0.06,
    }
    assert written["chat"]["messages"] == list(MESSAGES)
    assert record(request_, engine) == {**result, "changed": False} and engine.started == 1


@pytest.mark.parametrize("what", ["model/manifest.json", "tree/MANIFEST"])
def test_another_model_or_build_is_recorded_again(request_: GoldenRequest, tmp_path: Path, what: str) -> None:
    engine = Engine(answers())
    record(request_, engine)
    (tmp_path / what).write_text("changed")
    record(request_, engine)
    assert engine.started == 2


def test_another_command_and_a_broken_file_are_recorded_again(request_: GoldenRequest) -> None:
    engine = Engine(answers())
    record(request_, engine)
    record(request_._replace(env={"A": "1"}), engine)
    request_.output.write_text("{")
    record(request_, engine)
    assert engine.started == 3


def test_small_differences_keep_the_least_tolerance(request_: GoldenRequest) -> None:
    said = answers()
    for one in said["batched"]:
        one["token_logprobs"][0] = -2.0
    assert assess(said, request_)[1]["tolerance"] == 0.05


@pytest.mark.parametrize(("part", "place"), [("single", 2), ("batched", 5)])
def test_a_close_choice_stops_the_recording(request_: GoldenRequest, part: str, place: int) -> None:
    said = copy.deepcopy(answers())
    said[part][place]["margins"][1] = 0.9
    with pytest.raises(ReleaseError, match=r"margin of 0.900 nats, below 1.0"):
        record(request_, Engine(said))
    assert not request_.output.exists()


def test_a_text_that_batching_changes_stops_the_recording(request_: GoldenRequest) -> None:
    said = answers()
    said["batched"][6]["text"] = " else"
    with pytest.raises(ReleaseError, match="differently among 8"):
        record(request_, Engine(said))


def test_an_engine_that_fails_is_quoted(request_: GoldenRequest) -> None:
    with pytest.raises(
        ReleaseError, match=r"golden completion of m failed in the sandbox \(exit 1\): the engine ended"
    ):
        record(request_, Engine({}, status=1))


def test_a_model_without_manifest_is_named(request_: GoldenRequest) -> None:
    (request_.model_dir / "manifest.json").unlink()
    with pytest.raises(ReleaseError, match=r"manifest\.json is missing"):
        record(request_, Engine(answers()))


def test_addresses_become_loopback_and_nothing_else_changes() -> None:
    argv, env = on_loopback(["serve", "--host", "10.0.0.1", "--port", "1"], {"VLLM_HOST_IP": "10.0.0.1", "A": "b"})
    assert argv == ["serve", "--host", "127.0.0.1", "--port", "1"]
    assert env == {"VLLM_HOST_IP": "127.0.0.1", "A": "b"}
    assert on_loopback(["serve"], {}) == (["serve"], {})


def test_an_engine_of_a_group_is_recorded_without_its_others() -> None:
    copies = ["--data-parallel-size", "2", "--data-parallel-size-local", "1", "--data-parallel-address", "10.0.0.1"]
    hybrid = ["--data-parallel-rpc-port", "29550", "--data-parallel-hybrid-lb", "--data-parallel-start-rank", "0"]
    ranks = ["--nnodes", "2", "--node-rank", "0", "--master-addr", "10.0.0.1", "--master-port", "29501"]
    for others in (copies, copies + hybrid, ["--data-parallel-rank", "0"], ranks):
        argv, _env = on_loopback(["serve", "--tensor-parallel-size", "2", *others, "--seed", "0"], {})
        assert argv == ["serve", "--tensor-parallel-size", "2", "--seed", "0"]


SERVER = textwrap.dedent(
    """
    import http.server, json, sys, time
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args): pass
        def do_GET(self): self.answer(200, {})
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "broken" in sys.argv: return self.answer(500, {})
            if "messages" in body:
                step = {"logprob": -1.0, "top_logprobs": [{"logprob": -1.0}, {"logprob": -3.0}]}
                return self.answer(200, {"choices": [{"message": {"content": "hi"}, "logprobs": {"content": [step]}}]})
            logprobs = {"token_logprobs": [-1.0], "top_logprobs": [{"a": -3.5, "b": -1.0}]}
            self.answer(200, {"choices": [{"text": body["prompt"] + "!", "logprobs": logprobs}]})
        def answer(self, status, body):
            self.send_response(status); self.end_headers(); self.wfile.write(json.dumps(body).encode())
    print("(Worker pid=1) SomeError: it broke", flush=True)
    if "exit" in sys.argv: sys.exit(7)
    if "silent" in sys.argv: time.sleep(60)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
)


def write_job(tmp_path: Path, port: int, *mode: str, ready_timeout_s: float = 20) -> str:
    job = {
        "argv": [sys.executable, "-c", SERVER, str(port), *mode],
        "env": {},
        "model": "m",
        "port": port,
        "prompts": ["a", "b"],
        "messages": [],
        "max_tokens": 1,
        "concurrency": 3,
        "ready_timeout_s": ready_timeout_s,
        "log": str(tmp_path / "log"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    return str(tmp_path / "job.json")


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def judge(said: dict[str, Any]) -> None:
    assert [one["text"] for one in said["single"]] == ["a!", "b!"]
    assert [one["text"] for one in said["batched"]] == ["a!", "b!", "a!"]
    assert said["single"][0] == {"text": "a!", "token_logprobs": [-1.0], "margins": [2.5]}
    assert said["chat"] == {"text": "hi", "token_logprobs": [-1.0], "margins": [2.0]}


def test_the_driver_asks_alone_together_and_by_chat(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["golden_engine.py", write_job(tmp_path, port)])
    assert golden_engine.main() == 0
    judge(json.loads(capsys.readouterr().out))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_the_driver_stands_alone(tmp_path: Path, port: int) -> None:
    alone = tmp_path / "golden_engine.py"
    alone.write_text(Path(golden_engine.__file__).read_text())
    command = [sys.executable, "-I", str(alone), write_job(tmp_path, port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    judge(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("mode", "said"), [("broken", "HTTP Error 500"), ("exit", "ended with 7"), ("silent", "is not ready")]
)
def test_the_driver_quotes_the_log_of_an_engine_that_fails(
    tmp_path: Path, port: int, mode: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path, port, mode, ready_timeout_s=1 if mode == "silent" else 20)
    monkeypatch.setattr(sys, "argv", ["golden_engine.py", job])
    with pytest.raises(SystemExit) as stopped:
        golden_engine.main()
    assert said in str(stopped.value)
    assert "SomeError: it broke" in str(stopped.value)


def test_without_a_named_error_the_last_lines_are_quoted(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f" line {number} \n" for number in range(9)))
    assert golden_engine.causes(tmp_path / "log") == "line 3 | line 4 | line 5 | line 6 | line 7 | line 8"


def test_one_engine_of_each_deployment_is_recorded() -> None:
    def instance(name: str, deployment: str, path: str) -> dict:
        return {"name": name, "deployment": deployment, "host": "h", "model_path": path}

    plan = {
        "instances": [instance("a-0", "a", "/m/a"), instance("a-1", "a", "/m/a"), instance("b-0", "b", "/m/b")],
        "slices": {"h": {"models": [{"name": "card-b", "path": "/m/b"}, {"name": "card-a", "path": "/m/a"}]}},
    }
    assert [(one["card"], one["instance"]["name"]) for one in golden_instances(plan)] == [
        ("card-a", "a-0"),
        ("card-b", "b-0"),
    ]
    plan["instances"].append(instance("c-0", "c", "/m/c"))
    with pytest.raises(ValueError, match="c-0 serves /m/c"):
        golden_instances(plan)


def test_recorded_answers_are_found_by_deployment(tmp_path: Path) -> None:
    plan = {
        "release": {"id": "r"},
        "hardware": {"id": "h20-8", "golden_class": "lab"},
        "instances": [
            {"name": "a-0", "deployment": "a", "host": "h", "model_path": "/m/a"},
            {"name": "b-0", "deployment": "b", "host": "h", "model_path": "/m/b"},
        ],
        "slices": {"h": {"models": [{"name": "card-b", "path": "/m/b"}, {"name": "card-a", "path": "/m/a"}]}},
    }
    (tmp_path / "r--card-a--lab.json").write_text('{"cases": []}')
    assert golden_answers(plan, tmp_path) == {"a": {"cases": []}}


def test_what_was_built_is_read_or_the_build_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"archive": "r.tar"}')
    (tmp_path / "torn.json").write_text('{"archive"')
    assert built_release(str(tmp_path / "r.json"), "build it") == {"archive": "r.tar"}
    with pytest.raises(AnsibleFilterError, match=r"^release r is not built here: run x$"):
        built_release(str(tmp_path / "none.json"), "release r is not built here: run x")
    with pytest.raises(AnsibleFilterError, match=r"torn\.json: "):
        built_release(str(tmp_path / "torn.json"), "build it")
