"""Nodes of modeling that need torch, which is imported where it is used: listing and drawing pipelines stays fast."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.params import DataParams, DiagnosisParams, TokenizeParams, TrainingParams

if TYPE_CHECKING:
    from datasets import DatasetDict

    from review_sentiment.datasets.checkpoints import Checkpoints
    from review_sentiment.model.encoder import Classifier, Pretrained
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    Checkpoints = DatasetDict = Classifier = Pretrained = Any


def fine_tune(
    tokenized: DatasetDict,
    pretrained: Pretrained,
    data: DataParams,
    training: TrainingParams,
    tokenize: TokenizeParams,
    diagnosis: DiagnosisParams,
    checkpoints: Checkpoints,
) -> tuple[Classifier, pd.DataFrame]:
    """Fine-tune the encoder on the training rows; validation chooses the epoch, and test is not used.

    Returns:
        The classifier, and the history of the run.
    """
    from review_sentiment.distributed import Workers
    from review_sentiment.pipelines.modeling.failures import out_of_memory_explained
    from review_sentiment.pipelines.modeling.on_ray import train_on_ray
    from review_sentiment.pipelines.modeling.run import Job
    from review_sentiment.pipelines.modeling.self_test import add_self_test
    from review_sentiment.pipelines.modeling.training import train

    job = Job(tokenized, data.label_names, pretrained, training, tokenize, diagnosis)
    with out_of_memory_explained(training, tokenize):
        if training.executor == "ray":
            classifier, history = train_on_ray(job, checkpoints)
        else:
            classifier, history = train(job, checkpoints, Workers())
        return add_self_test(classifier, tokenized["validation"], training.eval_batch_size), history


def predict_test(
    tokenized: DatasetDict, classifier: Classifier, training: TrainingParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score the test rows once, with the classifier as it was read back from disk.

    Returns:
        Predictions with `tokens_seen` and `tokens_total`, and whether the classifier answers as before it was saved.
    """
    from review_sentiment.metrics import softmax
    from review_sentiment.model.forward import TorchForward
    from review_sentiment.pipelines.modeling.benchmark import choose_device
    from review_sentiment.pipelines.modeling.failures import out_of_memory_explained
    from review_sentiment.pipelines.modeling.scoring import prediction_table
    from review_sentiment.pipelines.modeling.self_test import run_self_test

    test = tokenized["test"]
    classifier.model.to(choose_device(training))
    pad_id, dtype = classifier.tokenizer.pad_token_id, classifier.settings["compute"]["dtype"]
    forward = TorchForward(classifier.model, pad_id, training.eval_batch_size, dtype)
    with out_of_memory_explained(training, None):
        logits = forward(test["input_ids"][:])
    table = prediction_table(test["row_id"][:], test["label_id"][:], softmax(logits), classifier.label_names)
    table = table.assign(tokens_seen=test["length"][:], tokens_total=test["tokens_total"][:])
    return table, run_self_test(classifier, tokenized["validation"], training.eval_batch_size)
