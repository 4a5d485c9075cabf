"""Export a trained classifier to ONNX, if it is as good there."""

from review_sentiment.pipelines.export.pipeline import create_pipeline

__all__ = ["create_pipeline"]
