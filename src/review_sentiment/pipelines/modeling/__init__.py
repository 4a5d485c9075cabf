"""Pipeline `modeling`."""

from review_sentiment.pipelines.modeling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
