"""What a run ran on: enough to know it again, and to repeat it."""

import hashlib
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
from review_sentiment.chunks import CHUNK_ROWS
from review_sentiment.text import names_of_keys, row_keys

_LIBRARIES = (
    "accelerate", "datasets", "kedro", "kedro-datasets", "numpy", "pandas", "review_sentiment", "scikit-learn",
    "tokenizers", "torch", "transformers",
)  # fmt: skip
NODE_SELECTION = ("from_nodes", "to_nodes", "node_names")
SELECTION = ("tags", *NODE_SELECTION, "from_inputs", "to_outputs", "namespaces")


def describe_run(run_params: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run before it starts.

    Args:
        run_params: Kedro's record of the run.
        parameters: Effective parameters.

    Returns:
        `run` (version), `env`, `pipelines`, `selection` (options that leave out nodes, by Kedro's name),
        `command_parameters` (what `--params` said, by dotted name), `parameters`, `libraries` and `machine`.
    """
    return {
        "run": run_params["run_id"],
        "env": run_params["env"] or "base",
        "pipelines": run_params["pipeline_names"] or ["__default__"],
        "selection": {name: _without_groups(name, run_params[name]) for name in SELECTION if run_params.get(name)},
        "command_parameters": flatten(run_params["runtime_params"] or {}),
        "parameters": dict(parameters),
        "libraries": library_versions(),
        "machine": machine(),
    }


def _without_groups(option: str, chosen: Iterable[str]) -> list[str]:
    return [name.rpartition(".")[2] if option in NODE_SELECTION else name for name in chosen]


def flatten(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested parameters into one level with dotted names, as `--params` takes them.

    Args:
        parameters: Nested by block.

    Returns:
        Values by dotted name; lists stay values.
    """
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": item for inner, item in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def join_manifests(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Put together what two processes say of the same run.

    Args:
        before: The manifest as it is.
        now: What the process that ended last says.

    Returns:
        One manifest: all that either did, and how the last one ended.
    """
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
    """Know a set of reviews again, in whatever order.

    Args:
        reviews: All usable reviews, in chunks with `row_id`, a hash of the text, and `label`, a class name.

    Returns:
        32 hexadecimal digits.
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


def source_sha256() -> str:
    """Hash of this package's source, so that code is known also outside git, or with changes on top of a commit."""
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
    """The code's `commit`, and whether tracked files were changed since (`dirty`); None for what git can't say.

    Args:
        folder: The project's folder; an installed package may run in a repository that knows nothing of it.
    """
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
