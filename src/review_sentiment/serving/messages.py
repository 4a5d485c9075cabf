"""What goes over the wire, as OpenAPI describes it."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import JSONResponse

from review_sentiment.params import ServingParams
from review_sentiment.scoring.answers import Answer
from review_sentiment.scoring.exported import Backend


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextRequest(_Message):
    """One text or several to score, without limits."""

    text: str = ""
    texts: list[str] = []  # pydantic copies it

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("give either text or texts")
        return self

    def by_name(self) -> dict[str, str]:
        """The texts in their order, each with the name that a client knows it by."""
        if "text" in self.model_fields_set:
            return {"text": self.text}
        return {f"texts.{index}": text for index, text in enumerate(self.texts)}


def request_within(limits: ServingParams) -> type[TextRequest]:
    """Make the model of a request that keeps to limits, so that OpenAPI names them.

    Returns:
        A model that refuses what is over them.
    """
    one = Annotated[str, Field(min_length=1, max_length=limits.max_characters)]
    many = Annotated[list[one], Field(min_length=1, max_length=limits.max_texts)]

    class PredictRequest(TextRequest):
        """One text or several to score: give either `text` or `texts`."""

        model_config = ConfigDict(
            json_schema_extra={
                "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
                "examples": [
                    {"text": "It was not boring at all."},
                    {"texts": ["It was not boring at all.", "Two hours that I want back."]},
                ],
            },
        )

        # Factories, since OpenAPI would show a plain default, which is none that a client could send.
        text: one = Field(default_factory=str, description="a text")
        texts: many = Field(default_factory=list, description="several texts")

    return PredictRequest


class PredictResponse(_Message):
    """The answers, in the order of the texts."""

    run: str = Field(description="run whose classifier answered", examples=["2026-11-25T12.47.52.437Z"])
    predictions: list[Answer] = Field(description="one a text")


class Problem(_Message):
    """Why a request was not answered."""

    detail: str = Field(
        description="what was wrong, and where", examples=["texts.3: nothing to read there, only white space or markup"]
    )


def problem(code: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the answer to a request that is not answered.

    Returns:
        A response that holds a `Problem`.
    """
    return JSONResponse(Problem(detail=detail).model_dump(), code, headers=headers)


class Status(_Message):
    """Whether the server can be asked."""

    status: str = Field(examples=["ready"])


class TestFigures(_Message):
    """How good the classifier was on reviews that it was not trained on; shares, with 95 % intervals."""

    rows: int = Field(description="test reviews")
    accuracy: float = Field(description="share that was right")
    accuracy_interval: list[float]
    confident: float = Field(description="share that it was sure of")
    error: float = Field(description="share of those that was wrong")
    error_interval: list[float]


class Confidence(_Message):
    """From where on an answer is called confident."""

    threshold: float | None = Field(
        description="lowest probability of a confident answer; null: none is ever confident"
    )
    max_error: float = Field(description="share of wrong answers among the confident that it was chosen for")


class Info(_Message):
    """What answers here, and how good it is."""

    run: str = Field(description="run that trained the classifier")
    backend: Backend = Field(description="what computes: PyTorch, or one of the exported models")
    label_names: list[str]
    test: TestFigures
    confidence: Confidence
    max_tokens: int = Field(description="tokens of a text that it reads; of a longer one it skips the middle or an end")
    limits: ServingParams
    versions: dict[str, str] = Field(description="of the libraries")
