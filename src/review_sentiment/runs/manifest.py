"""What a run ran on: enough to identify it, and to repeat it."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import review_sentiment
from review_sentiment.addresses import redact_values
from review_sentiment.chunks import CHUNK_ROWS
from review_sentiment.params import flatten
from review_sentiment.text import names_of_keys, row_keys

_LIBRARIES = (
    "accelerate", "datasets", "kedro", "kedro-datasets", "numpy", "pandas", "review_sentiment", "scikit-learn",
    "tokenizers", "torch", "transformers",
)  # fmt: skip
# Kedro's options that leave out nodes.
SELECTION = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces")
# Blocks that decide what data engineering and modeling make; a report, a gate or a scoring can change without it.
SHAPES_TRAINING = ("data", "subset", "tokenize", "training", "baseline", "train_split", "test_split", "encoder")


def describe_run(run_params: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run before it starts, from Kedro's record of it and the effective parameters."""
    return {
        "run": run_params["run_id"],
        "env": run_params["env"] or "base",
        "pipelines": run_params["pipeline_names"] or ["__default__"],
        "selection": {name: list(run_params[name]) for name in SELECTION if run_params.get(name)},
        "command_parameters": redact_values(flatten(run_params["runtime_params"] or {})),
        "parameters": redact_values(dict(parameters)),
        "libraries": library_versions(),
        "machine": machine(),
    }


def join_manifests(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """One manifest of a run that two processes made parts of: all that either did, and how the last one ended."""
    found = {"data_hash", "encoder_sha256", "compute", "recipe_sha256"} & {*before, *now}
    selections = [manifest["selection"] for manifest in (before, now)]
    return {
        **now,
        **{name: now.get(name) or before.get(name) for name in found},
        **{name: {**before[name], **now[name]} for name in ("command_parameters", "node_seconds", "versions_read")},
        "started": before["started"],
        "seconds": round(before["seconds"] + now["seconds"], 3),
        "pipelines": list(dict.fromkeys([*before["pipelines"], *now["pipelines"]])),
        "selection": {
            name: [x for chosen in selections for x in chosen.get(name, [])] for name in {*chain(*selections)}
        },
        "resumed": [*before["resumed"], *now["resumed"]],
        # The classifier that the run has trained was made as this manifest says.
        "classifier_from": None if now["classifier_run"] == now["run"] else now["classifier_from"],
    }


def data_hash(reviews: Iterable[pd.DataFrame]) -> str:
    """Identify a set of reviews, in whatever order, by 32 hexadecimal digits.

    Args:
        reviews: All usable reviews, in chunks with `row_id`, a hash of the text, and `label`, a class name.
    """
    keys, codes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
    names: dict[str, int] = {}
    for chunk in reviews:
        keys.append(row_keys(chunk["row_id"]))
        codes.append(np.array([names.setdefault(name, len(names)) for name in chunk["label"]], dtype=np.int32))
    all_keys, all_codes, labels = np.concatenate(keys), np.concatenate(codes), list(names)
    digest = hashlib.blake2b(digest_size=16)
    separator = ""
    for rows in np.array_split(np.argsort(all_keys), len(all_keys) // CHUNK_ROWS + 1):
        lines = zip(names_of_keys(all_keys[rows]), all_codes[rows].tolist(), strict=True)
        digest.update((separator + "\n".join(f"{row_id}:{labels[code]}" for row_id, code in lines)).encode())
        separator = "\n"
    return digest.hexdigest()


def recipe_sha256(contents: Iterable[str | None], parameters: Mapping[str, Any]) -> str | None:
    """Identify all that decides what a run of data engineering and modeling makes.

    Args:
        contents: Hashes of the reviews and of the encoder; None for one that can change unseen, as on the hub.
        parameters: Effective ones.

    Returns:
        64 hexadecimal digits; None if a hash is None.
    """
    contents = list(contents)
    if None in contents:
        return None
    shaping = {name: parameters[name] for name in SHAPES_TRAINING}
    parts = [*contents, shaping, source_sha256(), library_versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def source_sha256() -> str:
    """Hash of this package's source, which identifies the code outside git, and with uncommitted changes."""
    package = Path(review_sentiment.__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.j2")]):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide a result, by name."""
    return {name: version(name) for name in _LIBRARIES}


def machine() -> dict[str, Any]:
    """The processor's `cpu` name, usable `cores`, `system` and `python` version."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any]:
    """The code's `commit`, and whether tracked files were changed since (`dirty`); None for what git can't say."""
    # An installed package may run in a repository of something else.
    ours = _git(folder, "ls-files", "--error-unmatch", review_sentiment.__file__)
    commit = _git(folder, "rev-parse", "HEAD") if ours else None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if commit is None or changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
