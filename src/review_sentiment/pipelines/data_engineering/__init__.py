"""Pipeline `data_engineering`."""

from review_sentiment.pipelines.data_engineering.pipeline import create_pipeline

__all__ = ["create_pipeline"]
