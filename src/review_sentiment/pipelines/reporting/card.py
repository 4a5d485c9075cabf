"""The model card: what somebody should know who gets the classifier's folder and nothing else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from review_sentiment.headline import headline_row
from review_sentiment.pipelines.reporting.advice import origin_of
from review_sentiment.pipelines.reporting.report import code, data_line, escape_markdown, headline_table, selection_note

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
# Its reviews are published with this project; any other may be private, and are not quoted.
_SAMPLE = "data/01_raw/sample_reviews.csv"
# What this project reads of a review that is too long, where transformers reads the beginning.
_READ = {"tail": "its end", "head_tail": "its beginning and its end"}


def write_model_card(
    results: dict[str, Any], predictions: pd.DataFrame, splits: Mapping[str, Any], run_info: dict[str, Any]
) -> dict[str, Any]:
    """Write the card that goes with the classifier.

    Returns:
        `classifier_run` (whose folder it belongs in) and `text` (Markdown with the hub's metadata).

    Source: the hub's model card metadata, huggingface.co/docs/hub/model-cards.
    """
    usage = _usage(predictions, splits, origin_of(run_info)["parameters"]["reviews"])
    text = f"---\n{_metadata(results['evaluation'], run_info)}---\n\n{_text(results, run_info, usage)}"
    return {"classifier_run": run_info["classifier_run"], "text": text}


def _usage(predictions: pd.DataFrame, splits: Mapping[str, Any], reviews: str) -> list[str]:
    """A call of the classifier, on a review that it classifies correctly if there is one that may be quoted."""
    text, answer = "The text of a review.", []
    right = predictions[predictions["label"] == predictions["predicted"]]
    if reviews == _SAMPLE and len(right):
        texts = splits["test"].to_pandas().set_index("row_id").loc[right["row_id"], "text"]
        shortest = int(texts.str.len().argmin())
        text, label = texts.iloc[shortest], right["label"].iloc[shortest]
        answer = [f"# {label}: the shortest of the test reviews that it classifies correctly"]
    return [
        "from transformers import pipeline",
        "",
        'classify = pipeline("text-classification", "FOLDER_OF_THIS_FILE", truncation=True)',
        f"classify({text!r})",
        *answer,
    ]


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
    """The hub id of `reviews` or `encoder`, or the last part of a path: the rest says nothing to others."""
    source: str = origin["parameters"][name]
    is_hub_id = _HUB_ID.fullmatch(source) and name not in _local_inputs(origin)
    return source if is_hub_id else PurePath(source).name or source


def _local_inputs(origin: Mapping[str, Any]) -> Sequence[str]:
    """Which of `reviews` and `encoder` are local files; of older runs, which did not record it, perhaps both."""
    return origin.get("local_inputs", ["reviews", "encoder"])


def _text(results: Mapping[str, Any], run_info: Mapping[str, Any], usage: Sequence[str]) -> str:
    evaluation, metrics, origin = results["evaluation"], results["metrics"], origin_of(run_info)
    labels = " or ".join(map(code, evaluation["label_names"]))
    accuracy = headline_row(evaluation, "accuracy")
    encoder, source = (code(_public_name(origin, name)) for name in ("encoder", "reviews"))
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
        *usage,
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
        _truncation_line(origin["parameters"]["tokenize"]),
        *(f"- Weaker on {escape_markdown(row['column'])} {escape_markdown(row['value'])}: accuracy"
          f" {row['accuracy']:.1%} on {row['rows']:,} reviews." for row in weak),
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


def _truncation_line(tokenize: Mapping[str, Any]) -> str:
    most, read = tokenize["scoring_max_tokens"], _READ.get(tokenize["truncation"])
    other = f"; the metrics above are those of reading {read}" if read else ""
    return (
        f"- It was evaluated on at most {most} tokens of a review. With `truncation=True`, as above, transformers reads"
        f" the first {most} tokens of a longer one{other}. Without it, a longer one is read further or fails."
    )


def _commit(origin_code: Mapping[str, Any]) -> str:
    if not origin_code["commit"]:
        return "outside git"
    return f"`{origin_code['commit'][:12]}`" + (" with uncommitted changes" if origin_code["dirty"] else "")
