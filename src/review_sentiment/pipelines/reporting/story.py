"""What the summary, the report and the model card say alike: what to do next, the epochs, how to repeat a run."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence, Set
from itertools import zip_longest
from typing import Any

import pandas as pd

from review_sentiment.health import stretch_means
from review_sentiment.params import flatten, parameter_text

_PARAMETER = re.compile(r"[a-z_]+(\.[a-z_]+)*=\S+")
_MOST_STEPS = 6
# Parameters of which advice gives more, or less; a run that is beyond it needs other advice.
_MORE = {"training.weight_decay", "training.hidden_dropout", "training.average_decay"}
_LESS = {"training.max_grad_norm", "training.time_budget_minutes", "tokenize.max_tokens"}
# Parameters that name another run, rather than say what to do.
_OTHER_RUN = ("run", "resume")
# Checks that a finding or the line about the baseline words better.
_SAID_ELSEWHERE = ("completed", "above_baseline", "not_chosen_on_test")


def next_steps(results: Mapping[str, Any], run_info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say what to do about what was found, the most pressing first.

    Args:
        results: As the node `gather_results` says.
        run_info: What this run is.

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
    steps += _against_baseline(results["evaluation"]["versus_baseline"])
    nothing = {"text": "Nothing asks for a change. Read the errors before you rely on the classifier.", "commands": []}
    return steps[:_MOST_STEPS] or [nothing]


def _against_baseline(versus: Mapping[str, Any]) -> list[dict[str, Any]]:
    if versus["proven"] and versus["difference"] > 0:
        return []
    if versus["proven"]:
        return [{"text": "Use the TF-IDF baseline: it is better, and costs less.", "commands": []}]
    settle = versus["rows_to_settle"]
    test = f", or test on more reviews: about {settle:,} would settle which is better" if settle else ""
    return [
        {"text": f"Consider the TF-IDF baseline: nothing proves that it is worse, and it costs less{test}.",
         "commands": []}
    ]  # fmt: skip


def _from_finding(finding: Mapping[str, Any], run_info: Mapping[str, Any]) -> dict[str, Any]:
    changes = worth_trying(finding, run_info)
    commands = [run_with(change, run_info) for change in changes if is_parameter(change)]
    advice = [change for change in changes if not is_parameter(change)]
    return {"text": " ".join([finding["title"], *(f"{item}." for item in advice)]), "commands": commands[:3]}


def _uncapitalize(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def worth_trying(finding: Mapping[str, Any], run_info: Mapping[str, Any]) -> list[str]:
    """What a finding advises, but for parameters that the run already had, or was beyond.

    Args:
        finding: As `diagnose_run` gives it.
        run_info: What this run is.
    """
    had = flatten(origin_of(run_info)["parameters"])
    more = _MORE | ({"tokenize.max_tokens"} if finding["name"] == "truncation" else set())
    return [change for change in finding["try"] if not (is_parameter(change) and _is_had(change, had, more))]


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


def run_with(change: str, run_info: Mapping[str, Any]) -> str:
    """The command that tries another parameter, on the same reviews and encoder.

    Args:
        change: Such as `training.epochs=2`.
        run_info: What this run is.
    """
    name, _, value = change.partition("=")
    env, given = _as_given(origin_of(run_info))
    return _command(env, {**given, name: value})


def is_parameter(change: str) -> bool:
    """Whether a piece of advice is a parameter with its value, rather than a sentence.

    Args:
        change: The advice.
    """
    return _PARAMETER.fullmatch(change) is not None


def epoch_rows(history: pd.DataFrame) -> list[dict[str, Any]]:
    """The progress of fine-tuning, epoch by epoch.

    Args:
        history: Of the fine-tuning.

    Returns:
        Rows with `epoch`, `step` (the last), `train_loss` (mean over its steps; None without any), the validation
        figures `loss`, `accuracy`, `f1`, `precision`, `recall`, the `minutes` since the start, and whether it was
        `kept`.
    """
    train, validation = (history[history["split"] == split] for split in ("train", "validation"))
    losses = stretch_means(train["step"].tolist(), train["loss"].tolist(), validation["step"].tolist())
    return [
        {
            "epoch": number,
            "step": int(row["step"]),
            "train_loss": loss,
            **{name: float(row[name]) for name in ("loss", "accuracy", "f1", "precision", "recall")},
            "minutes": float(row["seconds"]) / 60,
            "kept": bool(row["best"]),
        }
        for number, ((_, row), loss) in enumerate(zip_longest(validation.iterrows(), losses), start=1)
    ]


def origin_of(run_info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the run that trained the classifier.

    Args:
        run_info: What this run is.

    Returns:
        `run_info` itself, or of an earlier run what its manifest kept.
    """
    origin: Mapping[str, Any] = run_info.get("classifier_from") or run_info
    return origin


def reproduce_commands(run_info: Mapping[str, Any], history: pd.DataFrame) -> dict[str, str]:
    """How to repeat the run that trained the classifier.

    Args:
        run_info: What this run is.
        history: Of the fine-tuning.

    Returns:
        `code` (how to get the same code), `short` (the command as it was given, with the number format, threads and
        attention that were measured to be best, which another machine may measure otherwise) and `full` (with every
        parameter).
    """
    origin = origin_of(run_info)
    commit = origin["code"]["commit"]
    chosen = history.iloc[0]
    measured = {
        "training.dtype": chosen["dtype"],
        "training.threads": chosen["threads"],
        "training.attention": chosen["attention"],
    }
    env, given = _as_given(origin)
    full = {name: value for name, value in flatten(origin["parameters"]).items() if name not in _OTHER_RUN}
    return {
        "code": f"git checkout {commit}" if commit else "",
        "short": _command(env, {**given, **measured}),
        "full": _command(env, {**full, **measured}),
    }


def _as_given(origin: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Environment and parameters of the command line, but for what meant another run."""
    env = [] if origin["env"] == "base" else ["--env", origin["env"]]
    given = flatten(origin.get("command_parameters") or {})
    return env, {name: value for name, value in given.items() if name not in _OTHER_RUN}


def _command(env: Sequence[str], parameters: Mapping[str, Any]) -> str:
    text = ",".join(f"{name}={parameter_text(value)}" for name, value in parameters.items())
    return shlex.join(["kedro", "run", *env, *(["--params", text] if text else [])])


def training_line(metrics: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> str:
    """One sentence about the training.

    Args:
        metrics: All figures of the run.
        epochs: As `epoch_rows` gives them.

    Returns:
        Plain text.
    """
    sizes, validation = metrics["sizes"], metrics["validation"]
    return (
        f"Trained on {sizes['train']:,} reviews for {metrics['steps']:,} steps in"
        f" {duration(metrics['seconds']['fine_tune'])}; epoch {metrics['best_epoch']} of {len(epochs)} was kept"
        f" (validation accuracy {validation['accuracy']:.1%}, loss {validation['loss']:.3f}, on"
        f" {sizes['validation']:,} reviews)."
    )


def data_line(data_profile: Mapping[str, Any]) -> str:
    """One or two sentences about the data.

    Args:
        data_profile: Of the data.

    Returns:
        Plain text.
    """
    contract, train = data_profile["contract"], data_profile["splits"]["train"]
    dropped = sum(contract[name] for name in contract if name.endswith("_dropped"))
    return (
        f"{contract['rows_kept']:,} of {contract['rows_read']:,} reviews were usable ({dropped:,} dropped,"
        f" {contract['texts_cleaned']:,} cleaned). Truncation cut {train['texts_truncated']:.1%} of the training texts,"
        f" {train['tokens_cut']:.1%} of their tokens."
    )


def selection_note(evaluation: Mapping[str, Any]) -> str:
    """What to know where the epoch was chosen on the test rows; empty otherwise.

    Args:
        evaluation: Figures on the test rows.
    """
    if not evaluation["selected_on_test"]:
        return ""
    return (
        "The epoch was chosen on the same reviews that these figures are about, so they flatter the classifier; set"
        " subset.validation_from=train for honest ones."
    )


def duration(seconds: float) -> str:
    """Write a time as people say it.

    Args:
        seconds: At least 0.
    """
    if seconds < 1:
        return f"{seconds:.2g} s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"
