"""Parse what the plan would start with the parser of a real vLLM; no GPU, no weights.

python3 tests/check_arguments.py          every argv of every sample whose release has this Python's vLLM
python3 tests/check_arguments.py --list   every long option with its choices, as files/options/*.yml has them

The GPU build's parser runs on a machine without GPUs: PYTHONPATH=<its unzipped wheel> VLLM_TARGET_DEVICE=cpu.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
# Where make_arg_parser lives: 0.33, 0.32, 0.24.
PLACES = ("common", "launchers", "openai")


def say(line: str) -> None:
    """One line of output."""
    sys.stdout.write(f"{line}\n")


def real_parser() -> tuple[str, Any, Any]:
    """vLLM's version, its parser and its check of what was parsed. Raises ImportError where there is none."""
    version = importlib.import_module("vllm.version").__version__.split("+")[0]
    utils = importlib.import_module("vllm.utils.argparse_utils")
    for place in PLACES:
        with contextlib.suppress(ModuleNotFoundError):
            found = importlib.import_module(f"vllm.entrypoints.{place}.cli_args")
            return version, found.make_arg_parser(utils.FlexibleArgumentParser()), found.validate_parsed_serve_args
    raise ImportError(f"vLLM {version} keeps make_arg_parser elsewhere: add the place here")


def options_of(parser: Any) -> dict[str, list[str] | None]:
    """{long option with underscores: its choices}."""
    found = {}
    for text, action in parser._option_string_actions.items():
        if text.startswith("--") and text != "--help":
            found[text[2:].replace("-", "_")] = [str(one) for one in action.choices] if action.choices else None
    return dict(sorted(found.items()))


def refusal(parser: Any, validate: Any, argv: list[str]) -> str:
    """Why the parser refuses an engine's words after `serve`; "" when it takes them."""
    known = set(parser._option_string_actions)
    words = [word.partition("=")[0] for word in argv if word.startswith("--")]
    short = [word for word in words if word not in known]
    if short:
        return f"no such option, or an abbreviation: {' '.join(short)}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            validate(parser.parse_args(argv))
    except (SystemExit, Exception) as problem:  # whatever vLLM raises is the answer
        return (said.getvalue().strip().splitlines() or [str(problem)])[-1]
    return ""


def planned() -> list[tuple[str, str, str, list[str]]]:
    """(sample, engine, its release's vLLM, words after `serve`) of every sample's plan."""
    rows = []
    for path in sorted(REPO.glob("tests/golden/*/plan.json")):
        plan = json.loads(path.read_text("utf-8"))
        for one in plan["instances"]:
            words = one["argv"][one["argv"].index("serve") + 1 :]
            rows.append((path.parent.name, one["name"], plan["release"]["vllm"].split()[-1], words))
    return rows


def check(version: str, parser: Any, validate: Any) -> int:
    """Print one line for each sample and each refusal; 1 when there is a refusal."""
    refused, counts = 0, dict.fromkeys(sorted({(sample, wanted) for sample, _name, wanted, _words in planned()}), 0)
    for sample, name, wanted, words in planned():
        if wanted == version:
            counts[sample, wanted] += 1
            why = refusal(parser, validate, words)
            if why:
                refused = 1
                say(f"{sample}: {name}: {why}")
    for (sample, wanted), count in counts.items():
        say(f"{sample}: {f'{count} engines parsed' if count else f'not parsed, its release has vLLM {wanted}'}")
    return refused


def main() -> int:
    """Parse or list."""
    try:
        version, parser, validate = real_parser()
    except ImportError as problem:
        say(f"this Python has no vLLM that works ({problem}): name one, make check-arguments VLLM_PYTHON=<python>")
        return 1
    if sys.argv[1:] == ["--list"]:
        for name, choices in options_of(parser).items():
            say(textwrap.fill(f"{name}: {json.dumps(choices)}", 118, subsequent_indent=" " * len(f"{name}: [")))
        return 0
    say(f"vLLM {version}, {len(options_of(parser))} options")
    return check(version, parser, validate)


if __name__ == "__main__":
    sys.exit(main())
