"""Lookup: what roles want of a host, as desired-state documents.

Ansible evaluates each variable and each template anew, in every process of a run, after it has copied all variables of
the host: for the documents of one host that was half a second. Here each process inherits what is compiled, a variable
is evaluated once, and variables of roles are read without loading the roles. What a site sets is Ansible's to evaluate.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import traceback
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any

import jinja2
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import filter_loader, test_loader
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__ as ansible_version
from jinja2 import nodes
from jinja2.environment import TemplateExpression
from jinja2.runtime import Context, missing

DOCUMENTATION = r"""
name: rackserve_document
short_description: Desired-state documents of roles
description:
  - A role's document is its template C(desired.yml.j2), with the items of its variable C(<role>_items_extra) added and
    those of C(<role>_items_override) laid over; see docs/converge.md.
  - Defaults and variables of the roles count as if the roles were imported, but for one thing - what a role's C(vars)
    set is not overridden by C(-e) either.
  - A template may include others of its own folder. It has all filters and tests, and no lookups.
  - Documents of several roles cost less in one call than in several. Without a role, everything is compiled and nothing
    returned, for a play's C(hosts) - Ansible evaluates it in its main process, from which all others inherit.
options:
  _terms:
    description: Names of roles.
    type: list
    elements: str
  template:
    description: Return the text of this template of each role instead.
    type: str
  json:
    description: Return one text, the list of documents as JSON. Ansible evaluates every value of a list anew.
    type: bool
    default: false
author: rackserve
"""

EXAMPLES = r"""
- name: Compare the host with what two roles want
  converge:
    documents: "{{ query('rackserve_document', 'host_baseline', 'vllm') }}"
  check_mode: true

- name: Show the packet filter's rules
  ansible.builtin.debug:
    msg: "{{ lookup('rackserve_document', 'firewall', template='rackserve.nft.j2') }}"
"""

RETURN = r"""
_raw:
  description: The documents, as the module M(converge) takes them, or texts.
  type: list
  elements: raw
"""

ROLES = Path(__file__).resolve().parents[1] / "roles"
DOCUMENT = "desired.yml.j2"
_COMPILED = ROLES.parent / ".cache/templates"
_RESOLVE = "variables of the host"
_TEMPLATE = re.compile(r"\{[{%]")
# One expression and nothing else. What does not look like one at first sight is parsed.
_EXPRESSION = re.compile(r"\s*\{\{-?((?:(?!\{[{%#]|[-%]?\}\}|%\}|#\}).)*)\}\}\s*", re.DOTALL)
_INLINE = "value of a variable: "
_ANSIBLES = re.compile(r"\b(?:lookup|query|q|undef|now)\(|\b(?:omit|hostvars|vars)\b")
# A text of a role among its variables, which a lookup of Ansible's would render with all variables evaluated anew.
_OWN_TEXT = re.compile(r"\{\{ lookup\('rackserve_document', '(\w+)', template='([\w.-]+)'\) \}\}")
Resolve = Callable[[str], Any]


def _as_ansible(function: Callable[..., Any], takes_undefined: bool) -> Callable[..., Any]:
    """What is made of an undefined value is undefined too. An iterator becomes a list: it is false when empty."""

    @wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        if not takes_undefined:
            for value in (*arguments, *named.values()):
                if isinstance(value, jinja2.Undefined):
                    return value
        result = function(*arguments, **named)
        return list(result) if isinstance(result, Iterator) else result

    return wrapper


class _Plugins(dict[str, Callable[..., Any]]):
    """Ansible's filters or tests by name, else Jinja's; Jinja's too where Ansible's know Ansible's undefined values."""

    def __init__(self, loader: Any, own: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        self._loader, self._own = loader, own

    def __missing__(self, name: str) -> Callable[..., Any]:
        try:
            found = self._loader.get(name)
        except KeyError:
            found = None
        takes_undefined = found is not None and found.accept_args_markers
        jinjas = found is None or (takes_undefined and name in self._own)
        self[name] = _as_ansible(self._own[name] if jinjas else found.j2_function, takes_undefined)
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        """What the compiler asks for."""
        try:
            return self[name]
        except KeyError:
            return default


class _Variables(Context):
    """Asks for the variables of the host."""

    def resolve_or_missing(self, key: str) -> Any:
        """See Context: a name's value, or jinja2.runtime.missing."""
        value = super().resolve_or_missing(key)
        if value is missing and _RESOLVE in self.parent:
            return self.parent[_RESOLVE](key)
        return value


class _Undefined(jinja2.StrictUndefined):
    """As Ansible has it: what is below an undefined value is undefined too, and has a default like it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self


class _Environment(jinja2.Environment):
    context_class = _Variables

    def join_path(self, template: str, parent: str) -> str:
        """A template includes others of its folder."""
        return posixpath.join(posixpath.dirname(parent), template)


@cache
def _environment() -> jinja2.Environment:
    environment = _Environment(
        loader=jinja2.ChoiceLoader([jinja2.FunctionLoader(_inline), jinja2.FileSystemLoader(ROLES)]),
        trim_blocks=True,
        undefined=_Undefined,
        finalize=lambda value: "" if value is None else value,
        bytecode_cache=_compiled(),
        auto_reload=False,
    )
    environment.filters = _Plugins(filter_loader, environment.filters)
    environment.tests = _Plugins(test_loader, environment.tests)
    return environment


def _inline(name: str) -> str | None:
    return name[len(_INLINE) :] if name.startswith(_INLINE) else None


def _compiled() -> jinja2.BytecodeCache | None:
    """Where compiled templates are kept, unless this user may not write there.

    Jinja tells by digest which templates have changed. What else the code depends on is in the folder's name: how Jinja
    writes it, how Ansible's filters want to be called, and how this file sets Jinja up.
    """
    ours = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = _COMPILED / f"jinja2-{jinja2.__version__}-ansible-{ansible_version}-{ours}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "used").touch()
    except OSError:
        return None
    return jinja2.FileSystemBytecodeCache(str(folder))


@cache
def _evaluator(text: str) -> Callable[[Resolve], Any] | None:
    """What evaluates a value of a variables file, to any type or to text; None where only Ansible can."""
    if _ANSIBLES.search(text):
        return None
    # YAML has read the backslashes already, as Ansible has it too.
    escaped = text.strip().replace("\\", "\\\\")
    expression = _expression(escaped)
    if expression is not None:
        # What Jinja compiles an expression to, under a name, so that it is kept like other templates.
        template = _environment().get_template(f"{_INLINE}{{% set result = {expression} %}}")
        compiled = TemplateExpression(template, undefined_to_none=False)
        return lambda resolve: compiled({_RESOLVE: resolve})
    if "\\" in text:
        return None
    template = _environment().get_template(_INLINE + text)
    return lambda resolve: template.render({_RESOLVE: resolve})


def _expression(text: str) -> str | None:
    """What stands between the braces of a text that is one expression."""
    plain = _EXPRESSION.fullmatch(text)
    if plain is not None:
        return plain[1]
    parts = [part for node in _environment().parse(text).body for part in getattr(node, "nodes", [node])]
    return text[2:-2] if len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData) else None


@cache
def _written(loader: Any, role: str, kind: str) -> dict[str, Any]:
    """The variables of a role's file, as they are written."""
    path = ROLES / role / kind / "main.yml"
    if not path.is_file():
        raise AnsibleLookupError(f"rackserve_document: {path} is not there, so {role} is no role with a document")
    return dict(loader.load_from_file(str(path), cache="none", trusted_as_template=True) or {})


def _plain(value: Any) -> Any:
    """Plain containers: those of Ansible evaluate what they hold at each access."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class _Host:
    """Variables of a host, each evaluated once: those of roles here, all others by Ansible."""

    def __init__(self, templar: Any, loader: Any, roles: list[str]) -> None:
        self._roles = roles
        self._variables = _merged(loader, roles, "vars")
        self._defaults = _merged(loader, roles, "defaults")
        self._given = templar.available_variables
        everything = ChainMap(self._variables, self._given, self._defaults)
        self._templar = templar.copy_with_new_env(available_variables=everything)
        self._known: dict[str, Any] = {}

    def resolve(self, name: str) -> Any:
        """A variable's value, an undefined one where it cannot be evaluated, or jinja2.runtime.missing."""
        if name not in self._known:
            try:
                self._known[name] = self._find(name)
            except Exception as problem:
                # A template asks for all its names when it begins, those of branches it will not take included.
                self._known[name] = _Undefined(hint=f"{name}: {problem}")
        return self._known[name]

    def _find(self, name: str) -> Any:
        if name in self._variables:
            return self._evaluate(self._variables[name])
        if name in self._given:
            return _plain(self._templar.template(self._given[name]))
        return self._evaluate(self._defaults[name]) if name in self._defaults else missing

    def _evaluate(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._evaluate(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._evaluate(item) for item in value]
        if not isinstance(value, str) or not _TEMPLATE.search(value):
            return value
        own = _OWN_TEXT.fullmatch(value)
        if own is not None and own[1] in self._roles:
            return _render(own[1], own[2], self.resolve)
        evaluate = _evaluator(value)
        return _plain(self._templar.template(value)) if evaluate is None else evaluate(self.resolve)


def _merged(loader: Any, roles: list[str], kind: str) -> dict[str, Any]:
    return {name: value for role in roles for name, value in _written(loader, role, kind).items()}


def _render(role: str, name: str, resolve: Resolve) -> str:
    path = ROLES / role / "templates" / name
    try:
        text = _environment().get_template(f"{role}/templates/{name}").render({_RESOLVE: resolve})
        # As Ansible does it: a text ends as its template does; what is included loses its last newline.
        return text if text.endswith("\n") or not path.read_text().endswith("\n") else text + "\n"
    except jinja2.TemplateNotFound as problem:
        raise AnsibleLookupError(f"rackserve_document: roles/{problem.name} is not there") from None
    except jinja2.TemplateSyntaxError as problem:
        raise AnsibleLookupError(f"rackserve_document: {problem.filename}:{problem.lineno}: {problem}") from None
    except Exception as problem:
        frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename.endswith(".j2")]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)
        raise AnsibleLookupError(f"rackserve_document: {where}: {problem}") from problem


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[Any]:
        """Each role's document, or text; AnsibleLookupError or AnsibleFilterError says what is wrong where."""
        self.set_options(var_options=variables, direct=kwargs)
        roles, name = [str(term) for term in terms], self.get_option("template") or DOCUMENT
        if not roles:
            self._compile_all()
            return []
        host = _Host(self._templar, self._loader, roles)
        texts = [_render(role, name, host.resolve) for role in roles]
        if name != DOCUMENT:
            return texts
        document = filter_loader.get("desired_document").j2_function
        documents = [
            document(text, role, host.resolve(f"{role}_items_extra"), host.resolve(f"{role}_items_override"))
            for role, text in zip(roles, texts)
        ]
        return [json.dumps(documents)] if self.get_option("json") else documents

    def _compile_all(self) -> None:
        for role in sorted(path.parents[1].name for path in ROLES.glob(f"*/templates/{DOCUMENT}")):
            for template in sorted((ROLES / role / "templates").glob("*.j2")):
                _environment().get_template(f"{role}/templates/{template.name}")
            for kind in ("vars", "defaults"):
                for value in _written(self._loader, role, kind).values():
                    if isinstance(value, str) and _TEMPLATE.search(value):
                        _evaluator(value)
