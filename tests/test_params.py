import pytest
from kedro.config import OmegaConfigLoader

from review_sentiment.cli import run
from review_sentiment.errors import UserError
from review_sentiment.params import (
    DataParams,
    DiagnosisParams,
    Parameters,
    SubsetParams,
    TrainingParams,
    load_parameters,
    parse_parameters,
)
from review_sentiment.settings import CONFIG_LOADER_ARGS
from tests.conftest import ROOT


def test_a_name_as_on_the_command_line_gets_yamls_way(raw):
    with pytest.raises(UserError, match="in YAML, 'epochs' goes indented on a line below 'training:'"):
        parse_parameters({**raw, "training.epochs": 1})


def test_every_fault_is_listed_with_its_path(raw):
    raw["training"] |= {"epochs": 0, "epoch": 3, "learning_rate": "fast"}
    del raw["subset"]["seed"]

    with pytest.raises(UserError) as error:
        parse_parameters(raw)
    faults = str(error.value).splitlines()
    assert faults[0] == "The parameters are not valid:"
    assert sorted(line.strip(" -").partition(" ")[0].rstrip(":") for line in faults[1:]) == [
        "subset.seed",
        "training.epoch",
        "training.epochs",
        "training.learning_rate",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("training.precision", "training.precision is not a parameter; did you mean 'training.dtype'?"),
        ("training.engine", "training.engine is not a parameter; did you mean 'training.executor'?"),
        ("inference.engine", "inference.engine is not a parameter; did you mean 'inference.backend'?"),
        ("training.keep_freed_memory", "training.keep_freed_memory was removed; leave it out"),
        ("training.epoch", "training.epoch is not a parameter; did you mean 'training.epochs'?"),
        ("trainings", "trainings is not a parameter; did you mean 'training'?"),
    ],
)
def test_an_old_or_misspelt_name_gets_todays(raw, name, words):
    block, _, key = name.partition(".")
    raw.setdefault(block, {})[key] = 1
    with pytest.raises(UserError) as error:
        parse_parameters(raw)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("subset.test_rows", "many", "got 'many'"),
        ("data.label_names", "good", "at least 2 items"),
        ("training.dtype", "fp8", "got 'fp8'"),
        ("training.seed", 99999999999, "input should be less than 4294967296, got 99999999999"),
        ("training.threads", 100000, "got 100000"),
    ],
)
def test_a_value_that_is_not_allowed_is_quoted(raw, name, value, words):
    block, _, key = name.partition(".")
    raw[block][key] = value

    with pytest.raises(UserError) as error:
        parse_parameters(raw)
    assert f"{name}: " in str(error.value)
    assert words in str(error.value)


def test_a_list_for_a_block_is_reported():
    given = run.make_context("run", ["--params=diagnosis=[]"]).params["params"]
    loader = OmegaConfigLoader(str(ROOT / "conf"), runtime_params=given, **CONFIG_LOADER_ARGS)

    with pytest.raises(UserError, match="has a list where conf/base has a block of names"):
        load_parameters(loader)


@pytest.mark.parametrize(
    ("block", "changes", "words"),
    [
        (TrainingParams, {"early_stopping_patience": 4}, "early_stopping_patience (4) must be below epochs (3)"),
        (TrainingParams, {"warmup_steps": 10.5}, "got 10.5"),
        (SubsetParams, {"validation_from": "test"}, "validation_rows (200) must equal test_rows (240)"),
        (DataParams, {"label_names": "Good/good"}, "differ by more than case"),
        (DataParams, {"label_names": "0/1"}, "can't be numbers"),
        (DataParams, {"text_column": "label"}, "both 'label'"),
        (DiagnosisParams, {"grad_norm_vanishing": 200.0}, "(200) must be below grad_norm_exploding (100)"),
    ],
)
def test_rules_between_values_quote_both(raw, block, changes, words):
    name = next(name for name, field in Parameters.model_fields.items() if field.annotation is block)
    raw[name] |= changes

    with pytest.raises(UserError) as error:
        parse_parameters(raw)
    assert words in str(error.value)


def test_class_names_can_be_given_on_the_command_line(raw):
    raw["data"]["label_names"] = "bad/so so/good"

    assert parse_parameters(raw).data.label_names == ("bad", "so so", "good")


@pytest.mark.parametrize("name", ["so/so", "good, mostly"])
def test_class_names_that_the_command_line_would_part_are_refused(raw, name):
    raw["data"]["label_names"] = ["bad", name]
    with pytest.raises(UserError, match="label_names can hold no '/' or ','"):
        parse_parameters(raw)


def test_columns_may_be_called_like_numbers(raw):
    raw["data"] |= {"text_column": 1, "label_column": 0}
    raw["report"]["slice_columns"] = 2
    params = parse_parameters(raw)
    assert (params.data.text_column, params.data.label_column, params.report.slice_columns) == ("1", "0", ("2",))


def test_slice_columns_can_be_given_on_the_command_line(raw):
    for given, columns in (("style/shop", ("style", "shop")), ("style", ("style",)), (None, ())):
        raw["report"]["slice_columns"] = given
        assert parse_parameters(raw).report.slice_columns == columns


def test_every_parameter_is_documented_next_to_its_value():
    described = {
        line.split(":")[0].strip()
        for path in (ROOT / "conf/base").glob("parameters_*.yml")
        for line in path.read_text("utf-8").splitlines()
        if "  # " in line
    }
    obvious = {"text_column", "label_column", "seed", "accuracy_min", "f1_min"}
    blocks = {name for name, field in Parameters.model_fields.items() if hasattr(field.annotation, "model_fields")}
    assert blocks >= {"data", "training", "serving"}
    for block in blocks:
        fields = Parameters.model_fields[block].annotation.model_fields
        assert set(fields) - obvious <= described
        assert all(field.is_required() for field in fields.values())
        assert all(field.description for field in fields.values())
