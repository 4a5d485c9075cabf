"""Kedro settings."""

import warnings

# OmegaConf 2.4 warns four times on every run of Kedro 1.7.0; remove when Kedro registers its resolvers the new way.
warnings.filterwarnings("ignore", message=r"\s*register_new_resolver", category=UserWarning)

from review_sentiment.datasets.paths import carried_conf  # noqa: E402
from review_sentiment.hooks import ManifestHooks, ResultHooks, TrainingHooks  # noqa: E402
from review_sentiment.runs.session import RunSession  # noqa: E402

_carried = carried_conf()
CONF_SOURCE = "conf" if _carried is None else str(_carried)
SESSION_CLASS = RunSession
# Telemetry is off by `.telemetry` already, but where the package runs outside the project there is none; and there
# Kedro-Viz finds no place for its counters, and warns of that at each run.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",) if _carried is None else ("kedro-telemetry", "kedro-viz")
HOOKS = (ManifestHooks(), TrainingHooks(), ResultHooks())
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # Kedro's default drops every key of a block that an environment or --params only touches.
    "merge_strategy": {"parameters": "soft"},
}
