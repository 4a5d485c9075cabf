"""A Ray cluster for work that several processes share: one that runs already, or one that lasts as long as the work."""

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from review_sentiment.errors import UserError
from review_sentiment.runs.manifest import machine


@contextmanager
def ray_cluster(workers: int, instead: str) -> Iterator[list[dict[str, float]]]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine for a while.

    Args:
        instead: Parameters that do without Ray, for the user who has not installed it.

    Yields:
        Resources of each of its nodes: `CPU`, `GPU`.

    Raises:
        UserError: Ray is not installed, or the cluster does not answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    _set_environment(own=address is None)
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise UserError(
            f'Ray is asked for, and not installed ({error}): pip install -e ".[ray]", or set {instead}'
        ) from None

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            if address:
                ray.init(address, **quiet)
            else:
                cpus = max(workers, int(machine()["cores"]))
                ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **quiet)
            yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
        except ConnectionError as error:
            raise UserError(f"the Ray cluster at RAY_ADDRESS={address} does not answer ({error}): start it") from None
        finally:
            ray.shutdown()


def _set_environment(own: bool) -> None:
    """Set what Ray reads when it is imported: no usage statistics; and in a cluster of our own, a secret token.

    Ray listens to the whole network, and runs what it is told; with a token, by those who know it.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if own and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def on_this_machine() -> dict[str, Any]:
    """Options of a Ray task or actor that must run beside the Kedro session, and takes no core from the workers."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def place_workers(nodes: Sequence[Mapping[str, float]], workers: int, device: str, name: str) -> tuple[int, bool]:
    """Give each worker as many CPUs as all can have, and a GPU if all can have one.

    Args:
        nodes: Resources of each of the cluster's nodes: `CPU`, `GPU`.

    Returns:
        CPUs of each worker, and whether each has a GPU.

    Raises:
        UserError: They don't fit on these nodes.
    """

    def fit(cpus: int, gpus: int) -> bool:
        rooms = (min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else workers) for node in nodes)
        return sum(rooms) >= workers

    most = int(max(node.get("CPU", 0) for node in nodes))
    for gpus in {"auto": (1, 0), "cuda": (1,)}.get(device, (0,)):
        for cpus in range(most, 0, -1):
            if fit(cpus, gpus):
                return cpus, gpus > 0
    has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    raise UserError(
        f"the Ray cluster has too few {'GPUs' if device == 'cuda' else 'CPUs'} for {name} ({workers}); its nodes have"
        f" {has}: start more nodes, or lower {name}"
    )
