"""An exported classifier answers as the one it was made from, or it is not exported."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.datasets.exported import ExportedClassifierDataset
from review_sentiment.errors import UserError
from review_sentiment.model.forward import TorchForward
from review_sentiment.params import ExportParams, InferenceParams
from review_sentiment.pipelines.export import conversion, gate, nodes, quantization
from review_sentiment.scoring import exported as scoring_exported
from review_sentiment.scoring.exported import onnx_session
from review_sentiment.scoring.scorer import Scorer, build_scorer
from tests.conftest import whole
from tests.model.test_first_token import CONFIGS

MODEL_INPUTS = ("input_ids", "attention_mask")


@pytest.fixture(scope="module")
def exported(trained):
    """The project with one run, exported."""
    version = trained.run("export")
    trained.export_folder = trained.folder / f"data/06_models/exported_classifier/{version}/exported_classifier"
    return trained


def scorer_of(project, run: str, backend: str) -> Scorer:
    """What would score with a run's classifier, where this backend is asked for."""
    classifier, check = project.load("classifier", run), project.load("reload_check", run)
    inference = InferenceParams(max_error=0.1, batch_size=8, backend=backend, workers=1)
    return build_scorer(classifier, check, project.load("exported_classifier"), run, inference)


def all_rows(project) -> list[np.ndarray]:
    return [ids for split in project.load("tokenized").values() for ids in split["input_ids"][:]]


def versions(project, name: str) -> list[str]:
    return sorted(path.name for path in project.folder.glob(f"data/*/{name}*/*T*Z"))


def test_both_models_give_the_logits_of_pytorch_for_any_batch(exported):
    rows = all_rows(exported)
    rows = [row[:length] for row, length in zip(rows, [3, 4, 5, 9, 18] * len(rows), strict=False)]
    logits = exported.load("classifier").forward(7)(rows)
    loaded = exported.load("exported_classifier")

    np.testing.assert_allclose(loaded.forward("onnx", 7)(rows), logits, atol=1e-5)
    np.testing.assert_allclose(loaded.forward("onnx", 1)(rows[:1]), logits[:1], atol=1e-5)
    int8 = loaded.forward("onnx_int8", 7)(rows)
    sent = pickle.loads(pickle.dumps(loaded.forward("onnx_int8", 7)))  # as Ray sends it to its workers
    np.testing.assert_array_equal(sent(rows), int8)
    assert int8.dtype == np.float32
    assert 0 < np.abs(int8 - logits).max() < 0.1 * np.ptp(logits)


def test_a_few_short_reviews_are_spread_over_all_threads(exported, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    forward = exported.load("exported_classifier").forward("onnx", 32)
    session, sizes = forward._apart, []

    class Counted:
        def run(self, names, batch):
            sizes.append(len(batch["input_ids"]))
            return session.run(names, batch)

    forward.__dict__["_apart"] = Counted()
    rows = all_rows(exported)[:9]
    logits = forward(rows)
    assert sorted(sizes) == [3, 3, 3]
    np.testing.assert_allclose(
        forward(rows[:2]), logits[:2], atol=1e-5
    )  # fewer than threads: all compute each together
    assert len(sizes) == 3


@pytest.mark.parametrize("has_vnni", [True, False])
def test_int8_is_computed_exactly_where_16_bits_would_overflow(exported, monkeypatch, has_vnni):
    monkeypatch.setattr(scoring_exported, "_has_vnni", lambda: has_vnni)
    model = exported.load("exported_classifier").content("onnx_int8")
    options = scoring_exported.onnx_session(model, 1).get_session_options()
    if has_vnni:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")
    else:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


MAKE_A_SESSION = """
import pathlib, sys, time
from review_sentiment.scoring.exported import onnx_session
session = onnx_session(pathlib.Path(sys.argv[1]).read_bytes(), 1)
time.sleep(float(sys.argv[2]))
"""


def make_a_session(exported, home, seconds: float, **variables: str) -> None:
    """Load an ONNX model in a process of its own, and keep it for so long."""
    home.mkdir()
    other = ("xdg_", "ort_", "no_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(other)}
    command = [sys.executable, "-c", MAKE_A_SESSION, str(exported.export_folder / "model.onnx"), str(seconds)]
    subprocess.run(command, env={**kept, "HOME": str(home), **variables}, check=True, timeout=100)


def test_onnxruntime_leaves_nothing_in_the_home_folder(exported, tmp_path):
    """Its telemetry would: a database with a device id, as soon as a session is made."""
    make_a_session(exported, tmp_path / "home", 0, ORT_DISABLE_TELEMETRY="0")
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.slow
def test_onnxruntime_connects_to_nothing(exported, tmp_path):
    """Its telemetry would, nine seconds after the first session (1.32), by the proxy if there is one."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("http_proxy", "https_proxy", "all_proxy")
        make_a_session(exported, tmp_path / "home", 25, **dict.fromkeys([*names, *map(str.upper, names)], address))
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody has connected
            proxy.accept()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilbert", "modernbert"])
def test_encoders_of_other_kinds_export_too(exported, kind):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind]).eval()
    classifier = replace(exported.load("classifier"), model=model)
    rows = [list(range(5, 5 + length)) for length in (3, 30, 9, 17)]

    converted = conversion.convert(classifier, rows, exported.first)

    logits = TorchForward(model, converted.pad_id, 4, "fp32")(rows)
    np.testing.assert_allclose(converted.forward("onnx", 4)(rows), logits, atol=1e-5)
    int8 = converted.forward("onnx_int8", 4)(rows)
    assert 0 < np.abs(int8 - logits).max() < 0.1 * np.ptp(logits)


def test_the_folder_says_what_it_was_made_from(exported):
    import onnx

    folder = exported.export_folder
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "model_int8.onnx", "tokenizer.json", "review_sentiment.json",
    }  # fmt: skip
    int8 = onnx.load(folder / "model_int8.onnx")
    onnx.checker.check_model(int8)
    in_fp32 = {tuple(sorted(weight.dims)) for weight in int8.graph.initializer if weight.data_type == 1}
    assert (2, 32) in in_fp32  # the head's
    assert (32, 64) not in in_fp32  # a layer's
    assert {operators.domain for operators in int8.opset_import} == {""}  # the standard ones, for any runtime
    classifier, loaded = exported.load("classifier"), exported.load("exported_classifier")
    assert loaded.run == exported.first
    assert loaded.weights_sha256 == classifier.weights_sha256
    assert loaded.label_names == classifier.label_names == ["negative", "positive"]
    assert loaded.settings == classifier.settings
    assert loaded.tokenizer.tokenizer_hash() == classifier.encoder_tokenizer().tokenizer_hash()
    assert loaded.tokenizer.max_tokens == 32
    long = "lovely film " * 100
    assert len(loaded.tokenizer.tokenizer.encode(long).ids) == 202
    assert len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(long).ids) == 32  # what others read


def test_the_report_compares_each_engine_with_pytorch_on_the_test_rows(exported):
    report = exported.load("export_report")
    predictions = exported.load("predictions")

    assert (report["run"], report["rows"], report["passed"], report["faults"]) == (exported.first, 20, True, [])
    assert set(report["backends"]) == {"torch", "onnx", "onnx_int8"}
    torch, fp32, int8 = (report["backends"][backend] for backend in ("torch", "onnx", "onnx_int8"))
    assert torch["accuracy"] == (predictions["predicted"] == predictions["label"]).mean()
    assert fp32["agreement"] == 1
    assert fp32["accuracy_change"] == 0
    assert fp32["largest_difference"] < 1e-5
    assert int8["megabytes"] < fp32["megabytes"]
    for figures in (torch, fp32, int8):
        assert 0 < figures["latency_ms_median"] <= figures["latency_ms_p95"]
        assert figures["speedup"] == figures["reviews_per_second"] / torch["reviews_per_second"]
    fastest = max(report["backends"], key=lambda backend: report["backends"][backend]["speedup"])
    assert report["onnxruntime"].count(".") == 2
    assert report["fastest"] == exported.load("exported_classifier").fastest == fastest
    assert f"Fastest here: {fastest}." in report["sentence"]


@pytest.mark.parametrize("backend", ["onnx", "onnx_int8"])
def test_scoring_by_either_model_gives_the_labels_that_were_evaluated(exported, backend):
    scorer = scorer_of(exported, exported.first, backend)

    scores = scorer.score(list(exported.load("splits")["test"]["text"]))

    assert scorer.backend == backend
    predictions = exported.load("predictions")
    assert [scorer.label_names[label_id] for label_id in scores.label_id] == list(predictions["predicted"])
    np.testing.assert_allclose(scores.proba[:, 1], predictions["proba_positive"], atol=0.05)


def test_inference_is_computed_by_the_fastest_backend(exported, caplog):
    test = exported.load("splits")["test"].to_pandas()
    test[["text"]].to_csv("new.csv", index=False)

    with caplog.at_level("INFO"):
        exported.run("inference", new_reviews="new.csv")

    fastest = exported.load("exported_classifier").fastest
    assert f"Scoring with the classifier of run {exported.first}, computed by {fastest}" in caplog.messages
    assert list(whole(exported.load("scored_reviews"))["predicted"]) == list(exported.load("predictions")["predicted"])


def test_a_run_that_was_not_exported_is_computed_by_torch_or_says_so(exported):
    second = exported.run("data_engineering", "modeling", training={"epochs": 1, "seed": 1}, subset={"seed": 1})

    newest = open_scorer(open_context(), None)
    assert (newest.run, newest.backend) == (second, "torch")
    with pytest.raises(UserError, match=f'newest export is not of run {second}: .* --params "run={second}", or'):
        scorer_of(exported, second, "onnx")
    with pytest.raises(UserError, match=r"not of the test rows that run .* --load-versions tokenized:VERSION"):
        exported.run("export", run=exported.first, load_versions={"tokenized": second})


def test_an_int8_answer_does_not_hang_on_the_others_in_its_batch(exported):
    loaded = exported.load("exported_classifier")
    row = all_rows(exported)[0]
    vocabulary = loaded.tokenizer.tokenizer.get_vocab_size()
    others = np.random.default_rng(0).integers(0, vocabulary, (30, len(row)))

    alone, among = loaded.forward("onnx_int8", 1)([row]), loaded.forward("onnx_int8", 31)([row, *others])
    np.testing.assert_allclose(among[:1], alone, atol=1e-6)


def products_model(channels: list[float], weight: np.ndarray) -> bytes:
    """An ONNX model that multiplies ids by channels, and these states and 100 times as much with a weight."""
    from onnx import TensorProto, helper, numpy_helper

    ids = [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "T"]) for name in MODEL_INPUTS]
    names = ("product", "product_of_large")
    products = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "T", 2]) for name in names]
    constants = {"weight": weight, "last": np.array([-1]), "hundred": np.float32(100), "channels": np.float32(channels)}
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=1),
        helper.make_node("Unsqueeze", ["numbers", "last"], ["column"]),
        helper.make_node("Mul", ["column", "channels"], ["states"]),
        helper.make_node("Mul", ["states", "hundred"], ["large"]),
        helper.make_node("MatMul", ["states", "weight"], ["product"]),
        helper.make_node("MatMul", ["large", "weight"], ["product_of_large"]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "products", ids, products, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10).SerializeToString()


def test_a_channel_is_quantized_by_its_range_in_training_and_clipped_beyond():
    weight = np.array([[1.0, 0.5], [-1.0, 0.2], [0.001, 0.0]], dtype=np.float32)
    fp32 = products_model([1.0, 0.3, 1000.0], weight)
    int8 = quantization.to_int8(fp32, [[0, 1], [2, 0, 1]])  # so activations reach 2, 0.6 and 2,000
    batch = {name: np.array([[2, -1, 0, 40]]) for name in MODEL_INPUTS}
    product, of_large = onnx_session(int8, 1).run(None, batch)

    # The columns' largest are 2 * 1 (as are 2,000 * 0.001) and 2 * 0.5, so 0.6 is 38 of 127 steps to 2, and 0.6 * 0.2
    # 15 of 127 steps to 1. Half a channel's range is 64 of 127 steps.
    at_the_end = np.array([2 - 38 * 2 / 127 + 2, 1 + 15 / 127])
    expected = [at_the_end, -64 / 127 * at_the_end, [0, 0], at_the_end]
    np.testing.assert_allclose(product[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(of_large, 100 * product, rtol=1e-5, atol=1e-4)


def test_weights_near_the_identity_are_not_quantized():
    learned = np.random.default_rng(0).normal(0, 0.02, (32, 32)).astype(np.float32)

    assert quantization.is_lost_by_quantization(8 * np.eye(32, dtype=np.float32) + learned)
    assert not quantization.is_lost_by_quantization(learned)


def clip_weights(model: bytes) -> bytes:
    """Clip all weights of an ONNX model to a hundredth of their range."""
    import onnx
    from onnx import numpy_helper

    loaded = onnx.load_from_string(model)
    for weight in loaded.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim == 2:
            bound = np.abs(values).max() / 100
            weight.CopyFrom(numpy_helper.from_array(np.clip(values, -bound, bound), weight.name))
    return loaded.SerializeToString()


def test_a_sabotaged_export_is_refused_and_the_earlier_one_stays(exported, monkeypatch):
    before, reports = versions(exported, "exported_classifier"), versions(exported, "export_report")
    sound = exported.load("exported_classifier").models["onnx"].read_bytes()
    monkeypatch.setattr(conversion, "_to_onnx", lambda classifier: clip_weights(sound))

    with pytest.raises(UserError, match=r"worse than the classifier, so it was not saved(.|\n)*  - onnx reaches"):
        exported.run("export", run=exported.first)

    # It got as far as that on the older run's own test rows, though newer tokens lie beside them.
    assert exported.load("manifest")["versions_read"]["tokenized"] == exported.first
    assert versions(exported, "exported_classifier") == before
    assert len(versions(exported, "export_report")) == len(reports) + 1
    report = exported.load("export_report")
    assert not report["passed"]
    assert any("onnx gives probabilities that differ" in fault for fault in report["faults"])
    assert any("onnx_int8 gives" in fault for fault in report["faults"])
    assert report["sentence"].startswith("Refused: onnx reaches")


def test_the_gate_goes_by_its_bounds(exported):
    candidate = exported.load("exported_classifier")
    predictions = exported.load("predictions", version=exported.first)
    # What the classifier said is turned round on one of 20 rows, which it had right.
    other = {"negative": "positive", "positive": "negative"}
    row = int(np.flatnonzero(predictions["predicted"] == predictions["label"])[0])
    predictions.loc[row, "predicted"] = other[predictions.loc[row, "predicted"]]
    tokens = exported.load("tokenized", version=exported.first)
    classifier = exported.load("classifier", version=exported.first)
    backends = gate.measure_backends(candidate, classifier, tokens["test"], predictions, batch_size=8)

    def judge(**bounds):
        return gate.judge_export(backends, candidate, len(predictions), ExportParams(**bounds))

    strict = judge(max_accuracy_drop=0, max_disagreement=0.04)
    assert strict["backends"]["onnx"]["agreement"] == 0.95
    assert strict["backends"]["onnx"]["accuracy_change"] == pytest.approx(0.05)
    low, high = strict["backends"]["onnx"]["accuracy_change_interval"]
    assert low < 0.05 < high
    assert strict["faults"][0] == (
        "onnx gives 5.0% of the test rows another label; export.max_disagreement allows 4.0%"
    )
    with pytest.raises(UserError, match="max_disagreement allows 4"):
        nodes.approve_export(candidate, strict)
    loose = judge(max_accuracy_drop=0, max_disagreement=0.05)  # 1 - 0.95 > 0.05 in floats
    assert loose["passed"]
    assert nodes.approve_export(replace(candidate, fastest="torch"), loose).fastest == loose["fastest"]


def test_a_model_that_was_changed_after_the_gate_is_not_used(exported, tmp_path):
    folder = shutil.copytree(exported.export_folder, tmp_path / "copy")
    (folder / "model_int8.onnx").write_bytes(clip_weights((folder / "model.onnx").read_bytes()))
    loaded = ExportedClassifierDataset(filepath=str(folder)).load()

    with pytest.raises(UserError, match=r"the model onnx_int8 in .* is not the one that was"):
        loaded.forward("onnx_int8", 8)
    assert loaded.forward("onnx", 8)(all_rows(exported)[:3]).shape == (3, 2)


def test_without_the_extra_it_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(UserError, match=r'needs onnxruntime, not installed here: pip install -e "\.\[onnx\]'):
        exported.run("export")
    with pytest.raises(
        UserError, match=r'pip install -e "\.\[onnx\]" in the project folder, or score with inference.backend=torc'
    ):
        scorer_of(exported, exported.first, "onnx")
    assert scorer_of(exported, exported.first, "auto").backend == "torch"


@pytest.mark.slow
def test_scoring_needs_no_torch(exported):
    script = (
        "import json, sys; from review_sentiment.datasets.exported import ExportedClassifierDataset;"
        "loaded = ExportedClassifierDataset(filepath=sys.argv[1]).load();"
        "ids = loaded.tokenizer.tokenizer.encode('a superb film').ids;"
        "logits = loaded.forward('onnx_int8', 8)([ids]);"
        "print(json.dumps([logits.shape, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    command = [sys.executable, "-c", script, str(exported.export_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    shape, modules = json.loads(done.stdout)
    assert shape == [1, 2]
    assert "onnxruntime" in modules
    assert not {"torch", "transformers", "onnx"} & set(modules)


@pytest.mark.parametrize(("interval", "said"), [((-0.04, 0.01), True), ((-0.02, -0.005), False)])
def test_a_drop_that_may_be_chance_is_told_as_such(exported, interval, said):
    candidate = exported.load("exported_classifier")
    worse = {
        "accuracy": 0.8958, "accuracy_change": -0.0125, "accuracy_change_interval": interval, "agreement": 0.99,
        "reviews_per_second": 2.0,
    }  # fmt: skip
    backends = {"torch": {"accuracy": 0.9083, "reviews_per_second": 1.0}, "onnx_int8": worse}
    backends["onnx"] = {**worse, "accuracy_change": 0.0, "largest_difference": 0.0}

    report = gate.judge_export(backends, candidate, 240, ExportParams(max_accuracy_drop=0.005, max_disagreement=0.02))

    assert report["faults"][0].startswith("onnx_int8 reaches 89.6% accuracy on the test rows instead of 90.8%")
    assert ("on 240 test rows this may be chance" in report["faults"][0]) == said
