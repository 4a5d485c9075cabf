"""Score new reviews with a trained classifier."""

from review_sentiment.pipelines.inference.pipeline import create_pipeline

__all__ = ["create_pipeline"]
