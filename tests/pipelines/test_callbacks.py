import torch
from transformers import TrainerControl, TrainerState

from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.callbacks import WeightAverage


def test_the_average_forgets_old_weights_at_its_rate_and_hands_the_models_own_back(raw):
    training = parse_parameters(raw).training.model_copy(update={"average_decay": 0.5})
    average = WeightAverage(training)
    model = torch.nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    for step, value in enumerate([4.0, 2.0, 8.0, 0.0], start=1):
        model.weight.data.fill_(value)
        average.on_step_end(None, TrainerState(global_step=step), TrainerControl(), model=model)

    # 4, then half way to each next value: 3, 5.5, 2.75.
    with average.applied(model):
        assert model.weight.item() == 2.75
    assert model.weight.item() == 0.0
