"""Pipelines `monitoring` and `monitoring_of_log`."""

from review_sentiment.pipelines.monitoring.pipeline import create_log_pipeline, create_pipeline

__all__ = ["create_log_pipeline", "create_pipeline"]
