"""What to do next, and the commands to type: to try another parameter, or to repeat the run."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pandas as pd

from review_sentiment.params import flatten, parameter_text

_PARAMETER = re.compile(r"[a-z_]+(\.[a-z_]+)*=\S+")
_MOST_STEPS = 6
_MOST_COMMANDS = 3
# Parameters of which advice gives more, or less; a run that is beyond it needs other advice.
_MORE = {"training.weight_decay", "training.hidden_dropout", "training.average_decay"}
_LESS = {"training.max_grad_norm", "training.time_budget_minutes", "tokenize.max_tokens"}
# Parameters that name another run, rather than say what to do.
_OTHER_RUN = ("run", "resume")
# Checks that a finding or the line about the baseline words better.
_SAID_ELSEWHERE = ("completed", "above_baseline", "not_chosen_on_test")


def next_steps(results: Mapping[str, Any], run_info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What to do about what was found, the most pressing first.

    Returns:
        At most six, each with `text`, and `commands` to try, which may be none.
    """
    findings = results["diagnosis"]["findings"]
    steps = [_from_finding(finding, run_info) for finding in findings if finding["severity"] == "bad"]
    steps += [
        {"text": f"Failed check: {_uncapitalize(check['text'])}. Found: {check['detail']}.", "commands": []}
        for check in results["readiness"]["checks"]
        if not check["passed"] and check["name"] not in _SAID_ELSEWHERE
    ]
    steps += [_from_finding(finding, run_info) for finding in findings if finding["severity"] == "warning"]
    versus = results["evaluation"]["versus_baseline"]
    if not (versus["proven"] and versus["difference"] > 0):
        steps.append({"text": _about_the_baseline(versus), "commands": []})
    nothing = {"text": "Nothing asks for a change. Read the errors before you rely on the classifier.", "commands": []}
    return steps[:_MOST_STEPS] or [nothing]


def _about_the_baseline(versus: Mapping[str, Any]) -> str:
    if versus["proven"]:
        return "Use the TF-IDF baseline: it is better, and costs less."
    settle = versus["rows_to_settle"]
    test = f", or test on more reviews: about {settle:,} would settle which is better" if settle else ""
    return f"Consider the TF-IDF baseline: nothing proves that it is worse, and it costs less{test}."


def _from_finding(finding: Mapping[str, Any], run_info: Mapping[str, Any]) -> dict[str, Any]:
    advice = advice_of(finding, run_info)
    sentences = [f"{item['text']}." for item in advice if not item["is_command"]]
    commands = [item["text"] for item in advice if item["is_command"]]
    return {"text": " ".join([finding["title"], *sentences]), "commands": commands[:_MOST_COMMANDS]}


def _uncapitalize(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def advice_of(finding: Mapping[str, Any], run_info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The advice of a finding, without parameters that the run already had or was beyond.

    Returns:
        `text` (a sentence, or the command that tries a parameter on the same reviews and encoder), `is_command`.
    """
    origin = origin_of(run_info)
    had = flatten(origin["parameters"])
    more = _MORE | ({"tokenize.max_tokens"} if finding["name"] == "truncation" else set())
    env, given = _as_given(origin)
    advice = []
    for change in finding["try"]:
        if _PARAMETER.fullmatch(change) is None:
            advice.append({"text": change, "is_command": False})
        elif not _is_had(change, had, more):
            name, _, value = change.partition("=")
            advice.append({"text": _command(env, {**given, name: value}), "is_command": True})
    return advice


def _is_had(change: str, had: Mapping[str, Any], more: Set[str]) -> bool:
    name, _, text = change.partition("=")
    before = had.get(name)
    if isinstance(before, bool) or not isinstance(before, int | float):
        return name in had and parameter_text(before) in (text, "all")  # rows: no number is more than all
    try:
        value = float(text)
    except ValueError:
        return False
    beyond = before > value if name in more else before < value and name in _LESS
    return beyond or math.isclose(value, before)


def origin_of(run_info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the run that trained the classifier: `run_info` itself, or the manifest of an earlier run."""
    origin: Mapping[str, Any] = run_info.get("classifier_from") or run_info
    return origin


def reproduce_commands(run_info: Mapping[str, Any], history: pd.DataFrame) -> dict[str, str]:
    """How to repeat the run that trained the classifier.

    Returns:
        `code` (how to get the same code), `short` (the command as it was given, with the dtype, threads and attention
        that were fastest on this machine) and `full` (with every parameter).
    """
    origin = origin_of(run_info)
    commit = origin["code"]["commit"]
    measured = {f"training.{name}": history.iloc[0][name] for name in ("dtype", "threads", "attention")}
    env, given = _as_given(origin)
    full = {name: value for name, value in flatten(origin["parameters"]).items() if name not in _OTHER_RUN}
    return {
        "code": f"git checkout {commit}" if commit else "",
        "short": _command(env, {**given, **measured}),
        "full": _command(env, {**full, **measured}),
    }


def _as_given(origin: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Environment and parameters of the command line, without those that name another run."""
    env = [] if origin["env"] == "base" else ["--env", origin["env"]]
    given = flatten(origin.get("command_parameters") or {})
    return env, {name: value for name, value in given.items() if name not in _OTHER_RUN}


def _command(env: Sequence[str], parameters: Mapping[str, Any]) -> str:
    text = ",".join(f"{name}={parameter_text(value)}" for name, value in parameters.items())
    return shlex.join(["kedro", "run", *env, *(["--params", text] if text else [])])
