"""Monitoring: say whether the reviews of today still look like those of training."""

from review_sentiment.pipelines.monitoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
