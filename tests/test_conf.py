"""The shipped configuration and the wiring agree."""

import logging

import pytest
from kedro.framework.session import KedroSession
from kedro.validation.type_extractor import TypeExtractor

from review_sentiment import params
from review_sentiment.pipeline_registry import register_pipelines
from tests.conftest import ROOT


@pytest.fixture
def shipped(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("env", [None, "imdb", "reference", "full"])
def test_every_environment_is_valid_and_complete(shipped, env):
    with KedroSession.create(ROOT, env=env) as session:
        context = session.load_context()  # a hook checks all parameters
        catalog = context.catalog
    inputs = {name for pipeline in register_pipelines().values() for name in pipeline.inputs()}
    assert inputs <= {*catalog.keys(), *(name for name in inputs if name.startswith("params:"))}


def test_the_reference_recipe_is_the_tutorials(shipped):
    with KedroSession.create(ROOT, env="reference") as session:
        values = params.parse_parameters(session.load_context().config_loader["parameters"])
    training = values.training
    assert (values.reviews, values.encoder) == ("stanfordnlp/imdb", "distilbert-base-uncased")
    assert (training.batch_size, training.accumulation_steps, training.epochs) == (8, 2, 3)
    assert (training.learning_rate, training.warmup_steps, training.weight_decay) == (3e-5, 500, 0.01)
    assert (training.gradient_checkpointing, training.dtype, training.metric_for_best) == (True, "fp32", "f1")
    assert (training.learning_rate_width, training.average_decay, training.hidden_dropout) == (None, 0, None)
    assert values.subset.validation_from == "test"


def test_kedro_sees_the_type_of_every_block(caplog):
    with caplog.at_level(logging.WARNING):
        found = TypeExtractor(register_pipelines()).extract_types_from_pipelines()
    assert {name.removeprefix("params:"): model for name, model in found.items()} == {
        "data": params.DataParams,
        "subset": params.SubsetParams,
        "tokenize": params.TokenizeParams,
        "training": params.TrainingParams,
        "baseline": params.BaselineParams,
        "diagnosis": params.DiagnosisParams,
        "readiness": params.ReadinessParams,
        "report": params.ReportingParams,
        "inference": params.InferenceParams,
        "monitoring": params.MonitoringParams,
        "export": params.ExportParams,
    }
    assert not caplog.records


def test_kedro_viz_shows_the_layers_in_order(shipped):
    from kedro_viz.data_access import data_access_manager
    from kedro_viz.server import load_and_populate_data

    load_and_populate_data(ROOT)  # a circle of layers would leave none
    assert data_access_manager.get_sorted_layers_for_registered_pipeline() == [
        "raw", "intermediate", "primary", "model_input", "models", "model_output", "reporting",
    ]  # fmt: skip
    for name in register_pipelines():
        assert data_access_manager.get_sorted_layers_for_registered_pipeline(name), name


def test_the_default_run_is_the_three_main_pipelines():
    pipelines = register_pipelines()
    names = {node.name for node in pipelines["__default__"].nodes}
    parts = ("data_engineering", "modeling", "reporting")
    assert names == {node.name for part in parts for node in pipelines[part].nodes}
    assert all(node.short_name == node.func.__name__ for node in pipelines["__default__"].nodes)


def test_a_failed_gate_comes_after_everything_else():
    pipelines = register_pipelines()
    for name in ("reporting", "__default__"):
        assert pipelines[name].nodes[-1].short_name == "enforce_readiness"
    assert pipelines["monitoring"].nodes[-1].name == "enforce_drift"


def test_each_pipelines_inputs():
    pipelines = register_pipelines()
    free = {name: {i for i in pipe.inputs() if not i.startswith("params:")} for name, pipe in pipelines.items()}
    assert free["data_engineering"] == {"reviews", "tokenizer", "tokenized_before", "run_info"}
    assert free["modeling"] == {"splits", "tokenized", "pretrained", "checkpoints"}
    assert free["reporting"] == {
        "metrics", "history", "data_profile", "predictions", "baseline_predictions", "splits", "reload_check",
        "run_info",
    }  # fmt: skip
    assert free["inference"] == {
        "new_reviews", "classifier", "reload_check", "predictions", "run_info", "exported_classifier",
    }  # fmt: skip
    assert free["export"] == {"classifier", "reload_check", "tokenized", "predictions", "run_info"}
    assert free["monitoring"] == {"scored_reviews", "reference_statistics", "predictions", "tokenizer", "run_info"}
    assert free["monitoring_of_log"] == free["monitoring"] - {"scored_reviews"} | {"prediction_log"}
