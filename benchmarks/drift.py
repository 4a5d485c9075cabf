"""What monitoring says of reviews that are, and that are not, like those a finished run was trained on."""

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jobs import SAMPLE
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from results import ROOT, publish

from review_sentiment.metrics import softmax
from review_sentiment.model.forward import TorchForward
from review_sentiment.model.tokens import encode_texts
from review_sentiment.params import TokenizeParams, parse_parameters
from review_sentiment.pipelines.monitoring.drift import find_drift
from review_sentiment.pipelines.monitoring.measures import draw_rows, gather_reference, measure_rows
from review_sentiment.reference import measure_reference
from review_sentiment.text import clean_text

# Invented for this purpose; sentences are put together at random.
_GERMAN = (
    "Der Film war großartig, und die Schauspieler spielten überraschend gut.",
    "Meine Frau und ich haben uns nach einer halben Stunde nur noch gelangweilt.",
    "Die Musik erschien mir schön, die Bilder dagegen wirkten lieblos.",
    "Man hätte aus dieser Geschichte viel mehr machen können.",
    "Nach zwanzig Minuten wusste ich schon, wie es ausgeht.",
    "Die Hauptdarstellerin trägt die ganze Handlung auf ihren Schultern.",
    "Für einen verregneten Sonntagnachmittag reicht es gerade noch.",
    "Wer Überraschungen liebt, wird hier leider nicht glücklich.",
    "Kostüme und Ausstattung sind hervorragend, das Drehbuch ist es nicht.",
    "Das Ende hat mich gerührt, und ich würde ihn jederzeit wieder ansehen.",
)
_PRODUCTS = (
    "I bought this kettle in March and have used it almost every day since.",
    "Delivery took four days and the box was slightly dented.",
    "The backpack feels solid, but a strap came loose after two weeks.",
    "Battery lasts about 6 hours, which is less than the 10 hours promised.",
    "Setup was easy: plug it in, press the button twice, done.",
    "Customer service answered after three emails and offered a refund of $20.",
    "My old vacuum cleaner from another brand was quieter and cheaper.",
    "The case fits my phone perfectly and does not slip.",
    "Easy to clean, dishwasher safe, no smell of plastic.",
    "Returned it, because the cable broke. Size runs small, order one size up.",
)


def main() -> None:
    """Run the benchmark."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--project", type=Path, default=ROOT, help="project whose newest run is compared with")
    options.add_argument("--pool", type=int, default=4000, help="unseen reviews of the same source to draw from")
    options.add_argument("--draws", type=int, default=20)
    chosen = options.parse_args()
    run = _FinishedRun(chosen.project.resolve())
    unseen = run.unseen(chosen.pool)
    own = run.score(unseen)
    table = []
    for rows in (50, 200, 2000):
        sentences = [run.compare(own.sample(rows, random_state=seed)) for seed in range(chosen.draws)]
        alarms = sum(report["drifted"] for report in sentences)
        table.append(_row(f"the same source, {chosen.draws} draws", rows, f"{alarms} of {chosen.draws} say drift"))
    others = {
        "the same source, words shuffled": [_shuffled(text, seed) for seed, text in enumerate(unseen[:300])],
        "product reviews": _put_together(_PRODUCTS, 300),
        "German film reviews": _put_together(_GERMAN, 300),
        "German film reviews, few": _put_together(_GERMAN, 60),
        "the project's sample": pd.read_csv(ROOT / SAMPLE)["text"].head(300).tolist(),
    }
    for name, texts in others.items():
        table.append(_row(name, len(texts), run.compare(run.score(texts))["sentence"]))
    notes = [f"Draws are from {len(own):,} reviews that the run never saw, scored by its classifier."]
    publish("drift", f"New reviews, compared by monitoring with a run on {run.source}.", table, notes)


def _row(name: str, rows: int, outcome: str) -> dict[str, str]:
    return {"new reviews": name, "rows": f"{rows:,}", "monitoring says": outcome}


class _FinishedRun:
    """The newest run of a project, and what monitoring says of reviews that its classifier scores."""

    def __init__(self, project: Path) -> None:
        bootstrap_project(project)
        with KedroSession.create(project) as session:
            context = session.load_context()
            self._catalog = context.catalog
            self._params = parse_parameters(context.config_loader["parameters"]).monitoring
        trained = self._catalog.get("predictions").resolve_load_version()
        manifest = self._catalog.load("manifest", version=trained)
        self.source = Path(manifest["parameters"]["reviews"]).name
        self._classifier, self._tokenizer, splits, predictions = (
            self._catalog.load(name) for name in ("classifier", "tokenizer", "splits", "predictions")
        )
        self._known = {row_id for rows in splits.values() for row_id in rows["row_id"]}
        statistics = measure_reference(self._tokenizer, [splits["train"].to_pandas()], splits["test"]["row_id"][:])
        self._reference = gather_reference(statistics, predictions, {"versions_read": {}})

    def unseen(self, rows: int) -> list[str]:
        """Reviews of the run's source that stand in none of its splits."""
        table = pd.concat(self._catalog.load("reviews_checked").chunks())
        left = table[~table["row_id"].isin(self._known)]
        return left.sample(min(rows, len(left)), random_state=0)["text"].tolist()

    def score(self, texts: list[str]) -> pd.DataFrame:
        """Columns `text`, `predicted` and `proba_<class>`."""
        params = TokenizeParams(**self._classifier.settings["tokenize"])
        cleaned = [clean_text(text) for text in texts]
        ids = encode_texts(self._tokenizer, cleaned, params.scoring_max_tokens, params)["input_ids"]
        pad_id = self._classifier.tokenizer.pad_token_id
        proba = softmax(TorchForward(self._classifier.model, pad_id, 32, "fp32")(ids))
        names = self._classifier.label_names
        columns = {f"proba_{name}": proba[:, index] for index, name in enumerate(names)}
        return pd.DataFrame(
            {"text": texts, "predicted": np.array(names, dtype=object)[proba.argmax(axis=1)], **columns}
        )

    def compare(self, scored: pd.DataFrame) -> dict[str, Any]:
        """The drift report."""
        rows, counts = draw_rows([scored], "text", self._reference["classes"], self._params)
        measures, kinds = measure_rows(rows, self._tokenizer, self._reference)
        return find_drift(measures, {**counts, "character_kinds": kinds}, self._reference, self._params)


def _shuffled(text: str, seed: int) -> str:
    words = text.split(" ")
    random.Random(seed).shuffle(words)
    return " ".join(words)


def _put_together(sentences: tuple[str, ...], rows: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(sentences, k=draw.randint(6, 25))) for _ in range(rows)]


if __name__ == "__main__":
    main()
