"""Scores of single texts, as `kedro predict` and the server return them."""

from pydantic import BaseModel, ConfigDict, Field

from review_sentiment.scoring.scorer import Scores


class Answer(BaseModel):
    """The label and probabilities of one text."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="the most probable class", examples=["positive"])
    proba: dict[str, float] = Field(
        description="calibrated probability of each class, to six decimals",
        examples=[{"negative": 0.024081, "positive": 0.975919}],
    )
    confident: bool = Field(description="whether the probability reaches the threshold of /info")
    seen_share: float = Field(ge=0, le=1, description="share of the text that the model read; below 1: it was too long")

    @property
    def confidence(self) -> float:
        """Probability of the label."""
        return self.proba[self.label]


def to_answers(scores: Scores, label_names: list[str]) -> list[Answer | None]:
    """Convert scores of N texts to N answers; None where there was nothing to read."""
    rows = zip(
        scores.label_id.tolist(), scores.proba.round(6).tolist(), scores.confident.tolist(),
        scores.seen_share.tolist(), strict=True,
    )  # fmt: skip
    return [
        Answer(
            label=label_names[label_id],
            proba=dict(zip(label_names, proba, strict=True)),
            confident=confident,
            seen_share=seen_share,
        )
        if label_id >= 0
        else None
        for label_id, proba, confident, seen_share in rows
    ]
