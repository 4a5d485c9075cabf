"""Kedro settings."""

import warnings

# OmegaConf 2.4 warns four times on every run of Kedro 1.7.0; remove when Kedro registers its resolvers the new way.
warnings.filterwarnings("ignore", message=r"\s*register_new_resolver", category=UserWarning)

from review_sentiment.hooks import (  # noqa: E402
    CheckpointHooks,
    ManifestHooks,
    ParameterHooks,
    RescueHooks,
    ResultHooks,
)
from review_sentiment.runs.session import RunSession  # noqa: E402

SESSION_CLASS = RunSession
HOOKS = (ParameterHooks(), ManifestHooks(), RescueHooks(), CheckpointHooks(), ResultHooks())
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # Kedro's default drops every key of a block that an environment or --params only touches.
    "merge_strategy": {"parameters": "soft"},
}
