import pytest

from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.plan import Pace, fit_plan, plan_training, scale_learning_rate


@pytest.fixture
def training(raw):
    return parse_parameters(raw).training.model_copy(update={"epochs": 3, "batch_size": 8, "learning_rate": 3e-5})


def test_the_tutorials_warm_up_never_reaches_its_rate(training):
    unfinished = {"accumulation_steps": 2, "warmup_steps": 500}
    plan = plan_training(
        2500, 1000, 2, training.model_copy(update={**unfinished, "allow_unfinished_warmup": True}), 1.0
    )
    assert (plan.steps_per_epoch, plan.steps, plan.warmup_steps) == (157, 471, 500)
    assert plan.peak_learning_rate == pytest.approx(3e-5 * 470 / 500)

    with pytest.raises(UserError, match=r"\(500\) is not shorter than the run \(471 steps\)"):
        plan_training(2500, 1000, 2, training.model_copy(update=unfinished), 1.0)


def test_a_wider_encoder_gets_a_lower_rate_unless_told_otherwise(training):
    assert scale_learning_rate(training, 768).learning_rate == pytest.approx(1.5e-5)
    assert scale_learning_rate(training.model_copy(update={"learning_rate_width": None}), 768).learning_rate == 3e-5


def test_a_share_of_the_steps_is_a_warm_up(training):
    plan = plan_training(80, 20, 2, training.model_copy(update={"warmup_steps": 0.1}), 1.0)
    assert (plan.steps, plan.warmup_steps, plan.peak_learning_rate) == (30, 3, 3e-5)
    params = training.model_copy(update={"warmup_steps": 0.1, "epochs": 1, "batch_size": 80})
    plan = plan_training(80, 20, 2, params, 1.0)
    assert (plan.steps, plan.warmup_steps) == (1, 0)


def test_all_faults_are_told_at_once(training):
    with pytest.raises(UserError, match=r"(?s)warmup_steps.*validation has 1 rows for 2 classes"):
        plan_training(8, 1, 2, training.model_copy(update={"warmup_steps": 3}), 1.0)


def test_a_budget_shortens_run_and_warm_up_together(training):
    params = training.model_copy(update={"warmup_steps": 0.1, "time_budget_minutes": 1.0})
    plan = plan_training(320, 100, 2, params, 1.0)
    pace = Pace(step_seconds=0.5, row_seconds=0.05)

    # 60 s less 3 % and 3.1 s gone leave 55.1; two validations of 5 s leave 45.1.
    fitted = fit_plan(plan, 320, 100, pace, params, spent=3.1)
    assert (plan.steps, fitted.steps, fitted.warmup_steps) == (120, 80, 8)
    fitted = fit_plan(plan, 320, 100, Pace(0.6, 0.05), params, spent=3.1)
    assert (fitted.steps, fitted.warmup_steps) == (75, 8)
    assert fit_plan(plan, 320, 100, Pace(0.01, 0.01), params, spent=1) == plan

    whole = params.model_copy(update={"warmup_steps": 90})
    with pytest.raises(
        UserError, match=r"warmup_steps \(90\) is not shorter than the 80 steps that training.time_budget"
    ):
        fit_plan(plan, 320, 100, pace, whole, spent=3.1)
    with pytest.raises(UserError, match=r"about 1.5 minutes; allow these, lower subset.train_rows to 200,"):
        fit_plan(plan, 320, 100, Pace(2.0, 0.05), params, spent=3.1)


def test_a_budget_buys_more_steps_where_early_ones_are_shorter(training):
    params = training.model_copy(update={"warmup_steps": 0.1, "time_budget_minutes": 1.0})
    plan = plan_training(320, 100, 2, params, early_cost=0.5)
    # Two epochs before the last take 40 of its steps' time; 55.1 s less three validations of 5 s leave 40.1.
    fitted = fit_plan(plan, 320, 100, Pace(step_seconds=0.8, row_seconds=0.05), params, spent=3.1)
    assert (plan.steps, plan.early_steps, fitted.steps, fitted.early_steps) == (120, 80, 90, 80)
    # In one pass, all is read.
    fitted = fit_plan(plan, 320, 100, Pace(step_seconds=1.25, row_seconds=0.05), params, spent=3.1)
    assert (fitted.steps, fitted.early_steps) == (56, 40)
