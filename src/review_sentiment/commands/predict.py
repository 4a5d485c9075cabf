"""`kedro predict`: score texts, or the lines of standard input."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import click
import rich

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.datasets.sources import in_chunks
from review_sentiment.errors import UserError
from review_sentiment.scoring.answers import Answer, to_answers
from review_sentiment.scoring.confidence import accuracy_text, check_on_test
from review_sentiment.scoring.scorer import Scorer

# Scored together; enough that batches of similar length leave little padding.
_STEP_TEXTS = 1000
_SHOWN_CHARACTERS = 60


def predict_texts(texts: Sequence[str], run: str | None, as_json: bool) -> None:
    """Score texts, or without any the lines of standard input, and print the answers.

    Args:
        texts: May be empty.
        run: None for the newest run with a classifier.
        as_json: Print one JSON object a text, and nothing else, on standard output.

    Raises:
        UserError: A text is empty or no UTF-8, or there is no such classifier.
    """
    rich.reconfigure(stderr=True)  # logs and warnings; standard output is for the answers
    context = open_context()
    scorer = open_scorer(context, run)
    named = _arguments(texts) if texts else _lines(sys.stdin.buffer)
    place = "text {}" if texts else "line {} of the input"
    number = 0
    for chunk in in_chunks(named, _STEP_TEXTS):
        for (number, _), answer, text in zip(chunk, *_score(scorer, [text for _, text in chunk]), strict=True):
            if answer is None:
                raise UserError(f"{place.format(number)} holds nothing to read")
            click.echo(_as_json(answer, scorer.run) if as_json else _as_line(answer, text))
    if number == 0:
        raise UserError("standard input holds no text: give one a line")
    on_test = check_on_test(context.catalog.load("predictions", version=scorer.run), scorer.threshold)
    click.echo(f"Answered by run {scorer.run}, computed by {scorer.backend}: {accuracy_text(on_test)}.", err=as_json)


def _arguments(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError:  # the system hands on bytes that are no UTF-8 as lone surrogates
            raise UserError(f"text {number} is not valid UTF-8: write it as UTF-8") from None
        yield number, text


def _lines(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, start=1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"line {number} of the input is not valid UTF-8: save it as UTF-8") from None


def _score(scorer: Scorer, texts: list[str]) -> tuple[list[Answer | None], list[str]]:
    """The answers, and the texts as they were read: without what could upset a terminal."""
    scores = scorer.score(texts)
    return to_answers(scores, scorer.label_names), scores.texts


def _as_json(answer: Answer, run: str) -> str:
    return json.dumps({**answer.model_dump(), "run": run}, ensure_ascii=False)


def _as_line(answer: Answer, text: str) -> str:
    shown = f"{text[:_SHOWN_CHARACTERS]}…" if len(text) > _SHOWN_CHARACTERS else text
    seen = f"  (saw {answer.seen_share:.0%} of it)" if answer.seen_share < 1 else ""
    return f"{answer.label}  {answer.confidence:6.1%}  {'sure' if answer.confident else 'not sure':8}  {shown}{seen}"
