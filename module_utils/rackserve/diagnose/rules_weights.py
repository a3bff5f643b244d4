"""Weights and downloads: what is missing, what differs from what was proven, why a download fails."""

from __future__ import annotations

from collections.abc import Iterator

from .case import ENGINE, TOOL, UNIT, Case
from .rule import DOWN, ENGINE_SYMPTOMS, PLAY, SITE, Hit, Rule, either, said

_DOWNLOAD = (ENGINE, UNIT, TOOL)
_MODEL_SYMPTOMS = ("unit-assert", "engine-config-invalid", "engine-model-path", *ENGINE_SYMPTOMS)


def _changed(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for model in host.reading("weights", []):
            for what in model.get("changed") or []:
                # By its date alone it is a suspicion.
                sure = 0.0 if "too large to be hashed" not in what else 0.6
                path = str(model.get("path"))
                yield Hit(host.name, [host.line(path, what)], values={"path": path}, confidence=sure)


def _unready(case: Case) -> Iterator[Hit]:
    for host in case.hosts.values():
        for model in host.reading("weights", []):
            if model.get("ready") is False and not model.get("changed"):
                why = "there is no such folder" if model.get("present") is False else "READY is missing"
                yield Hit(host.name, [host.line(str(model.get("path")), why)], values={"path": str(model.get("path"))})


RULES = (
    Rule(
        "weights-changed", "weights", DOWN, 0.97,
        "weights on disk are not those that were proven",
        "A file was overwritten, cut or damaged; an engine must not serve it.",
        "site.yml proves the model, copies what is corrupt and starts the engine; a second time points to the disk",
        SITE + " --limit {host},gateway",
        either(
            _changed,
            said(r"is not what was proven: (?P<what>.*)", kinds=(ENGINE, UNIT)),
            said(r"SafetensorError|Error while deserializing header", r"(?:sha256|checksum|hash) mismatch",
                 r"[Cc]onsistency check failed: file should be of size", kinds=_DOWNLOAD),
        ),
        (*_MODEL_SYMPTOMS, "weights-not-ready", "engine-import"),
    ),
    Rule(
        "weights-not-ready", "weights", DOWN, 0.9,
        "the model is not on the host, or was not proven",
        "READY stands beside weights only after they were compared with their manifest.",
        "site.yml copies and proves what is missing, then starts the engine",
        SITE + " --limit {host},gateway",
        _unready,
        _MODEL_SYMPTOMS,
    ),
    Rule(
        "download-401", "permissions", DOWN, 0.95,
        "a download was refused: the token is missing, wrong or expired (401)",
        "The model's repository wants to know who asks.",
        "put a valid token into the site's vault; hosts need none: the model is copied from the controller",
        PLAY + "check-description.yml",
        said(r"401 Client Error", r"HTTP(?:/\S+)? 401\b.*(?:huggingface|modelscope|resolve)",
             r"Invalid (?:user|username)"
             r"(?: or password| token)", r"RepositoryNotFoundError: 401", kinds=_DOWNLOAD),
        ("download-404", *_MODEL_SYMPTOMS),
    ),
    Rule(
        "download-403", "permissions", DOWN, 0.95,
        "a download was refused: the account may not have this model (403)",
        "A gated model whose licence the account did not accept, or a token without the right to read it.",
        "accept the licence on the model's page with the account of the token",
        PLAY + "check-description.yml",
        said(r"403 Client Error", r"GatedRepoError", r"Access to model \S+ is restricted",
             r"you are not in the authorized list", kinds=_DOWNLOAD),
        ("download-401", "download-404", *_MODEL_SYMPTOMS),
    ),
    Rule(
        "download-404", "configuration", DOWN, 0.93,
        "what should be downloaded is not there (404)",
        "The name, the revision or the file is misspelt, or was taken away.",
        "correct model.source and model.revision in the description",
        PLAY + "check-description.yml",
        said(r"404 Client Error", r"RevisionNotFoundError", r"EntryNotFoundError", r"RepositoryNotFoundError: 404",
             kinds=_DOWNLOAD),
        _MODEL_SYMPTOMS,
    ),
    Rule(
        "download-timeout", "network", DOWN, 0.88,
        "a download found no answer",
        "No route to the internet, a proxy that is not set, or a name that does not resolve; serving hosts need none.",
        "HF_HUB_OFFLINE=1 belongs into the engine's environment; download on the builder or from a bundle",
        PLAY + "check-description.yml",
        said(r"HTTPSConnectionPool\(host='(?P<peer>[^']+)'.*(?:Read timed out|Max retries exceeded|ConnectTimeout)",
             r"LocalEntryNotFoundError", r"Cannot reach https?://\S+: offline mode is enabled",
             r"OfflineModeIsEnabled", r"We couldn't connect to 'https://huggingface\.co'", kinds=_DOWNLOAD),
        _MODEL_SYMPTOMS,
    ),
    Rule(
        "disk-quota", "storage", DOWN, 0.95,
        "a quota is used up",
        "The file system has room, the user or project has none.",
        "quota -u or xfs_quota on {host}; raise it, or put the model elsewhere",
        "ssh {host} 'df -h; quota -uv vllm'",
        said(r"Disk quota exceeded", r"\bEDQUOT\b", kinds=(ENGINE, UNIT, TOOL, "ray", "gateway")),
        _MODEL_SYMPTOMS,
    ),
)  # fmt: skip
