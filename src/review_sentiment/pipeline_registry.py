"""The project's pipelines, one by one: Kedro's own search breaks `--pipelines NAME` for combined pipelines."""

from kedro.pipeline import Pipeline

from review_sentiment.pipelines import data_engineering, export, inference, modeling, monitoring, reporting


def register_pipelines() -> dict[str, Pipeline]:
    """Name every pipeline; `__default__` is what `kedro run` runs."""
    data = data_engineering.create_pipeline()
    model = modeling.create_pipeline()
    report = reporting.create_pipeline()
    return {
        "data_engineering": data,
        "modeling": model,
        "reporting": report,
        "inference": inference.create_pipeline(),
        "monitoring": monitoring.create_pipeline(),
        "monitoring_of_log": monitoring.create_log_pipeline(),
        "export": export.create_pipeline(),
        "__default__": data + model + report,
    }
