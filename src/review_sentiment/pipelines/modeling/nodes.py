"""Nodes of modeling: baseline, fine-tuning, scoring."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from review_sentiment.params import BaselineParams, DataParams, DiagnosisParams, TokenizeParams, TrainingParams

if TYPE_CHECKING:
    from datasets import DatasetDict

    from review_sentiment.datasets.checkpoints import Checkpoints
    from review_sentiment.model.encoder import Classifier, Pretrained
else:
    # Kedro reads these hints to find the parameter models; a name that it can't resolve would switch that off.
    Checkpoints = DatasetDict = Classifier = Pretrained = Any


def fit_baseline(
    splits: DatasetDict, data: DataParams, baseline: BaselineParams
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Fit TF-IDF with logistic regression on the training rows and score the test rows.

    Args:
        splits: The three splits; validation is not used.
        data: Class names.
        baseline: Settings of the baseline.

    Returns:
        Predictions on the test rows, and what it cost: `seconds` and `megabytes`.
    """
    from review_sentiment.pipelines.modeling.baseline import fit_and_predict
    from review_sentiment.pipelines.modeling.scoring import prediction_table

    train, test = splits["train"], splits["test"]
    proba, cost = fit_and_predict(train["text"][:], train["label_id"][:], test["text"][:], baseline)
    return prediction_table(test["row_id"][:], test["label_id"][:], proba, data.label_names), cost


def fine_tune(
    tokenized: DatasetDict,
    pretrained: Pretrained,
    data: DataParams,
    training: TrainingParams,
    tokenize: TokenizeParams,
    diagnosis: DiagnosisParams,
    checkpoints: Checkpoints,
) -> tuple[Classifier, pd.DataFrame]:
    """Fine-tune the encoder on the training rows; validation picks the epoch.

    Args:
        tokenized: Tokens of the three splits; test is not used.
        pretrained: The encoder.
        data: Class names.
        training: Settings of the run.
        tokenize: How the tokens were made.
        diagnosis: From where on a bad sign is told while it trains.
        checkpoints: Keeps what is needed to go on after a crash, and has what is needed to do so now.

    Returns:
        The classifier, and the history of the run.
    """
    from review_sentiment.distributed import Workers
    from review_sentiment.pipelines.modeling.on_ray import train_on_ray
    from review_sentiment.pipelines.modeling.self_test import add_self_test
    from review_sentiment.pipelines.modeling.training import train
    from review_sentiment.pipelines.modeling.watch import memory_told

    job = tokenized, data.label_names, pretrained, training, tokenize, diagnosis
    with memory_told(training, tokenize):
        if training.executor == "ray":
            classifier, history = train_on_ray(job, checkpoints)
        else:
            classifier, history = train(*job, checkpoints, Workers())
        return add_self_test(classifier, tokenized["validation"], training.eval_batch_size), history


def predict_test(
    tokenized: DatasetDict, classifier: Classifier, training: TrainingParams
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score the test rows once, with the classifier as it was read back from disk.

    Args:
        tokenized: Tokens of the three splits.
        classifier: The saved classifier.
        training: Batch size of scoring.

    Returns:
        Predictions with `tokens_seen` and `tokens_total`, and whether the classifier answers as before it was saved.
    """
    from review_sentiment.metrics import softmax
    from review_sentiment.model.forward import TorchForward
    from review_sentiment.pipelines.modeling.probe import choose_device
    from review_sentiment.pipelines.modeling.scoring import prediction_table
    from review_sentiment.pipelines.modeling.self_test import run_self_test
    from review_sentiment.pipelines.modeling.watch import memory_told

    test = tokenized["test"]
    classifier.model.to(choose_device(training))
    pad_id, dtype = classifier.tokenizer.pad_token_id, classifier.settings["compute"]["dtype"]
    forward = TorchForward(classifier.model, pad_id, training.eval_batch_size, dtype)
    with memory_told(training, None):
        logits = forward(test["input_ids"][:])
    table = prediction_table(test["row_id"][:], test["label_id"][:], softmax(logits), classifier.label_names)
    table = table.assign(tokens_seen=test["length"][:], tokens_total=test["tokens_total"][:])
    return table, run_self_test(classifier, tokenized["validation"], training.eval_batch_size)


def score(
    predictions: pd.DataFrame,
    baseline_predictions: pd.DataFrame,
    baseline_cost: dict[str, float],
    history: pd.DataFrame,
    tokenized: DatasetDict,
) -> dict[str, Any]:
    """Work out all figures of the run.

    Args:
        predictions: The classifier's, on the test rows.
        baseline_predictions: The baseline's, on the same rows.
        baseline_cost: `seconds` and `megabytes` of the baseline.
        history: Of the fine-tuning.
        tokenized: Tokens of the three splits, for their sizes and row ids.

    Returns:
        `classifier` and `baseline` figures, `validation` figures of the kept epoch, `sizes`, `steps`, `planned_steps`,
        `seconds`, `megabytes`, `temperature`, `best_epoch`, `shared_rows` (texts in two splits, by pair), and
        `selected_on_test` (true if test rows chose the epoch).
    """
    from review_sentiment.pipelines.modeling.scoring import summarize_scores

    return summarize_scores(predictions, baseline_predictions, baseline_cost, history, tokenized)
