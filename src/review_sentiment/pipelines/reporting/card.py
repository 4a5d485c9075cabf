"""The model card: what somebody should know who gets the classifier's folder and nothing else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from review_sentiment.headline import headline_row
from review_sentiment.pipelines.reporting.story import data_line, origin_of, selection_note
from review_sentiment.pipelines.reporting.summary import code, escape_markdown, headline_table

# Hub id, license and language of the encoders that this project names itself; nothing is claimed of any other.
_MINILM = ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", "en")
_DISTILBERT = ("distilbert/distilbert-base-uncased", "apache-2.0", "en")
_ENCODERS: dict[str, tuple[str | None, str, str | None]] = {
    "minilm": _MINILM,
    _MINILM[0]: _MINILM,
    _DISTILBERT[0]: _DISTILBERT,
    "distilbert-base-uncased": _DISTILBERT,
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w-]*(\.\w+)*/[A-Za-z0-9][\w-]*(\.\w+)*")
_NAME = "review-sentiment"
_HUB_METRICS = ("accuracy", "f1", "precision", "recall", "roc_auc")


def model_card(results: Mapping[str, Any], run_info: Mapping[str, Any]) -> str:
    """Write the card.

    Args:
        results: As the node `gather_results` says.
        run_info: What the run is.

    Returns:
        Markdown, with the hub's metadata before it.

    Source: the hub's model card metadata, huggingface.co/docs/hub/model-cards.
    """
    return f"---\n{_metadata(results['evaluation'], run_info)}---\n\n{_text(results, run_info)}"


def _metadata(evaluation: Mapping[str, Any], run_info: Mapping[str, Any]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    origin = origin_of(run_info)
    source = _public_name(origin, "reviews")
    encoder = origin["parameters"]["encoder"].partition("@")[0]
    # A hub id like a folder's name would be another encoder.
    hub_id, license_name, language = _ENCODERS.get(
        encoder, (None if "encoder" in _local_inputs(origin) else encoder, "unknown", None)
    )
    figures = {row["metric"]: row["value"] for row in evaluation["headline"] if row["metric"] in _HUB_METRICS}
    card = ModelCardData(
        model_name=_NAME,
        license=license_name,
        language=language,
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=hub_id,
        metrics=list(figures),
        eval_results=[
            EvalResult(
                task_type="text-classification", dataset_type=source, dataset_name=source, dataset_split="test",
                metric_type=metric, metric_value=round(value, 4),
            )
            for metric, value in figures.items()
        ],
    )  # fmt: skip
    return f"{card.to_yaml()}\n"


def _public_name(origin: Mapping[str, Any], name: str) -> str:
    """The hub id of `reviews` or `encoder`, or the own name of a file or folder, not where it lies on this machine."""
    source: str = origin["parameters"][name]
    is_hub_id = _HUB_ID.fullmatch(source) and name not in _local_inputs(origin)
    return source if is_hub_id else PurePath(source).name or source


def _local_inputs(origin: Mapping[str, Any]) -> Sequence[str]:
    """Those of `reviews` and `encoder` that are files here; older runs did not say, and might tell where these lie."""
    return origin.get("local_inputs", ["reviews", "encoder"])


def _text(results: Mapping[str, Any], run_info: Mapping[str, Any]) -> str:
    evaluation, metrics, origin = results["evaluation"], results["metrics"], origin_of(run_info)
    labels = " or ".join(map(code, evaluation["label_names"]))
    accuracy = headline_row(evaluation, "accuracy")
    # Paths of this machine say nothing to others.
    encoder = code(_public_name(origin, "encoder"))
    source = code(_public_name(origin, "reviews"))
    calibration = evaluation["calibration"]
    weak = [row for row in evaluation["slices"] if row["high"] < accuracy["value"]]
    note = selection_note(evaluation)
    lines = [
        "# Sentiment of reviews",
        "",
        f"Says whether a review is {labels}. It was fine-tuned from {encoder} on {metrics['sizes']['train']:,}"
        f" reviews of {source}.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'classify = pipeline("text-classification", "FOLDER_OF_THIS_FILE")',
        'classify("It was not boring at all.")',
        "```",
        "",
        "## How good it is",
        "",
        escape_markdown(results["readiness"]["sentence"]),
        *(["", note] if note else []),
        "",
        *headline_table(evaluation),
        "",
        f"On {evaluation['rows']:,} test reviews{'' if note else ' that neither trained nor chose it'}. The baseline is"
        f" TF-IDF with logistic regression. {escape_markdown(evaluation['versus_baseline']['sentence'])}",
        "",
        f"The probabilities it states are off by {100 * calibration['ece']:.1f} points on average (a temperature of"
        f" {calibration['temperature']:.2f} is part of the weights).",
        "",
        "## Limits",
        "",
        "- It was tested on reviews like those it was trained on, and knows nothing of others.",
        f"- Of a review it reads at most {origin['parameters']['tokenize']['scoring_max_tokens']} tokens where this"
        " project scores it; transformers alone keeps only the start of a longer one.",
        *(f"- Weaker on {escape_markdown(row['column'])} {escape_markdown(row['value'])}: {row['accuracy']:.1%} of"
          f" {row['rows']:,} right." for row in weak),
        *(f"- Failed check: {escape_markdown(check['text'])} ({escape_markdown(check['detail'])})."
          for check in results["readiness"]["checks"] if not check["passed"]),
        "",
        "## Data and making",
        "",
        data_line(results["data_profile"]),
        "",
        f"Run `{run_info['classifier_run']}`, {metrics['steps']:,} steps, code {_commit(origin['code'])}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _commit(code: Mapping[str, Any]) -> str:
    if not code["commit"]:
        return "outside git"
    return f"`{code['commit'][:12]}`" + (" with changes that were not committed" if code["dirty"] else "")
