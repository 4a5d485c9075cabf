"""What earlier versions of this code wrote under other names, so that old runs stay readable."""

from collections.abc import Mapping
from typing import Any

from review_sentiment.params import FORMER_NAMES

_PARAMETERS = {old: new for old, new in FORMER_NAMES.items() if new is not None}
# By dataset; a dotted name is that of an entry in a block.
_FORMER: dict[str, dict[str, str]] = {
    "classifier": {"engine": "compute", "engine.precision": "engine.dtype"},
    "data_profile": {"fingerprint": "data_hash"},
    "history": {"number_format": "dtype", "engine_reason": "compute_reason"},
    "manifest": {
        "data_fingerprint": "data_hash",
        "engine": "compute",
        "engine.precision": "engine.dtype",
        "versions_read.training_fingerprint": "versions_read.reference_statistics",
        **{
            f"{block}.{old}": f"{block}.{new}"
            for block in ("parameters", "command_parameters")
            for old, new in _PARAMETERS.items()
        },
    },
    "parameters": _PARAMETERS,
    "run_ledger": {"data_fingerprint": "data_hash"},
}


def former_names(dataset: str) -> Mapping[str, str]:
    """Today's name of each renamed key or column of a dataset."""
    return _FORMER.get(dataset, {})


def with_current_names(dataset: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataset holds, with today's names for its keys."""
    return _renamed(content, former_names(dataset), "")


def _renamed(content: Mapping[str, Any], names: Mapping[str, str], prefix: str) -> dict[str, Any]:
    found = {}
    for key, value in content.items():
        name = names.get(prefix + key, prefix + key).removeprefix(prefix)
        found[name] = _renamed(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
    return found
