"""Work that several processes share: how they talk to each other, and a Ray cluster that starts and places them.

Ray is imported where it is used, so that work in one process needs no Ray.
"""

import functools
import logging
import os
import secrets
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import QueueHandler, QueueListener
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from review_sentiment.errors import UserError
from review_sentiment.runs.manifest import machine

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")

_PACKAGE = __name__.partition(".")[0]
# A worker that is lost this often is not lost by chance.
_MAX_FAILURES = 3
# For each scoring worker: one batch is scored while the next one waits beside it.
_BATCHES_PER_WORKER = 2


@dataclass(frozen=True)
class Workers:
    """This process, number `rank` of the `count` that train together; torch.distributed connects them."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the worker that writes log and checkpoints."""
        return self.rank == 0

    def share(self, rows: Sequence[Any]) -> Sequence[Any]:
        """This worker's rows: every `count`-th, so that each worker gets the same lengths of rows sorted by length."""
        return rows[self.rank :: self.count]

    def of_first(self, value: Any) -> Any:
        """The first worker's value, the same for all."""
        if self.count == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def of_all(self, value: Any) -> list[Any]:
        """Each worker's value, by rank."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def gather(self, share: np.ndarray, rows: int) -> np.ndarray:
        """Put together what each worker computed of its share of some rows, one vector a row, shape (rows, D)."""
        whole = np.empty((rows, share.shape[1]), dtype=np.float32)
        for rank, part in enumerate(self.of_all(share)):
            whole[rank :: self.count] = part
        return whole

    def mean(self, value: "torch.Tensor") -> "torch.Tensor":
        """The mean of all workers' values; NaN if one of them is."""
        if self.count == 1:
            return value
        from torch import distributed

        total = value.clone()
        distributed.all_reduce(total)
        return total / self.count


def run_on_workers(
    function: Callable[[Any, Any, Workers], Any], job: Any, checkpoints: Any, count: int, device: str
) -> Any:
    """Call `function(job, checkpoints, workers)` in `count` Ray workers that train together; gives the first's result.

    Ray starts and connects them. When one is lost, it starts all again from the newest checkpoint. Each machine gets
    the pickled job once; checkpoints and log come back to this machine, so no storage need be shared.

    Raises:
        UserError: Ray is not installed, the cluster does not answer or is too small, or a worker raised it.
        LostWorkersError: Workers were lost again and again.
    """
    resumed = checkpoints.to_resume()
    with (
        ThreadPoolExecutor(1) as thread,
        tempfile.TemporaryDirectory() as folder,  # where Ray Train would keep checkpoints of its own
        ray_cluster(count, "training.executor=local and training.workers=1") as nodes,
    ):
        import ray
        from ray.train import ControllerError, WorkerGroupError
        from ray.util.queue import Queue

        cpus, use_gpu = place_workers(nodes, count, device, "training.workers")
        here = {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
        keeper = ray.remote(_CheckpointKeeper).options(**here).remote(checkpoints, resumed)
        records = Queue(actor_options=here)
        work = functools.partial(_work, function, ray.put(job), keeper, records)
        logger.info("Training on Ray, workers: %d, each with %d CPUs%s", count, cpus, " and a GPU" * use_gpu)
        try:
            with _logging_from(records):
                # Not in the main thread, where Ray (2.60) handles Ctrl-C itself.
                returned = thread.submit(_trainer(work, count, cpus, use_gpu, folder).fit).result().return_value
        except ControllerError as error:
            raise error.controller_failure from error
        except WorkerGroupError as error:
            if not any(type(failure).__module__.startswith("ray.") for failure in error.worker_failures.values()):
                raise  # no worker was lost, so this is a bug, with its traceback
            raise LostWorkersError(
                f"Ray lost workers {_MAX_FAILURES + 1} times, and training was given up. The last failure: {error}"
            ) from error
        result, checkpoints.resumed = ray.cloudpickle.loads(returned)
        return result


class LostWorkersError(UserError):
    """Workers were lost again and again."""


def _trainer(work: Callable[[], Any], count: int, cpus: int, use_gpu: bool, folder: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    class StopAtUserError(UserCallback):
        """Ends the training in Ray's controller, which would start the workers again to see the same error."""

        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            for error in worker_exceptions.values():
                if isinstance(error, UserError):
                    raise error

    return TorchTrainer(
        work,
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=count, use_gpu=use_gpu, resources_per_worker={"CPU": cpus}),
        run_config=RunConfig(
            storage_path=folder, failure_config=FailureConfig(max_failures=_MAX_FAILURES), callbacks=[StopAtUserError()]
        ),
    )


def _work(function: Callable[[Any, Any, Workers], Any], job: Any, keeper: Any, records: Any) -> bytes | None:
    """Run in each worker."""
    import ray.train

    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size())
    package = logging.getLogger(_PACKAGE)
    package.setLevel(logging.INFO if workers.is_first else logging.ERROR)
    package.propagate = False
    package.addHandler(QueueHandler(records))
    checkpoints = _SentCheckpoints(keeper)
    result = function(ray.get(job), checkpoints, workers)
    # Pickled, because Ray's controller reads what comes by, and would have to import all that is in it.
    return ray.cloudpickle.dumps((result, checkpoints.resumed)) if workers.is_first else None


class _CheckpointKeeper:
    """Ray actor on the session's machine. Ray Train's own checkpoints (2.60) would need storage that all share."""

    def __init__(self, checkpoints: Any, resumed: Any) -> None:
        self._checkpoints, self._resumed = checkpoints, resumed

    def newest(self) -> tuple[Any, list[dict[str, Any]]]:
        """The checkpoint to resume from, if any, and `Checkpoints.resumed`."""
        checkpoint = self._checkpoints.to_restart() or self._resumed
        return checkpoint, self._checkpoints.resumed

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint."""
        self._checkpoints.save(step, state)


class _SentCheckpoints:
    """What a worker has instead of `Checkpoints`."""

    def __init__(self, keeper: Any) -> None:
        self.resumed: list[dict[str, Any]] = []
        self._keeper = keeper

    def to_resume(self) -> Any:
        """The checkpoint to resume from, if any."""
        import ray

        checkpoint, self.resumed = ray.get(self._keeper.newest.remote())
        return checkpoint

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Send a checkpoint."""
        import ray

        ray.get(self._keeper.save.remote(step, dict(state)))


@contextmanager
def _logging_from(records: Any) -> Iterator[None]:
    """Write the workers' log records into this process's log."""

    class Listener(QueueListener):
        def handle(self, record: logging.LogRecord) -> None:
            named = logging.getLogger(record.name)
            if named.isEnabledFor(record.levelno):
                named.handle(record)

    listener = Listener(records)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def map_on_workers(function: Callable[[Batch], Batch], batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """Apply a function to a stream of batches in `count` Ray workers, in order, with few batches in memory at once.

    A batch whose worker is lost goes to another. Ray Data (2.60) would read the stream outside of this process, which
    has the open file.
    """
    with ray_cluster(count, "inference.workers=1") as nodes:
        import ray

        cpus, _ = place_workers(nodes, count, "cpu", "inference.workers")
        apply = ray.remote(lambda function, batch: function(batch)).options(num_cpus=cpus)
        sent = ray.put(function)
        # Futures, since ray.get (2.60) turns whatever a signal handler raises into a KeyboardInterrupt.
        under_way: deque[Future[Batch]] = deque()
        for batch in batches:
            if len(under_way) == _BATCHES_PER_WORKER * count:
                yield under_way.popleft().result()
            under_way.append(apply.remote(sent, batch).future())
        while under_way:
            yield under_way.popleft().result()


@contextmanager
def ray_cluster(workers: int, instead: str) -> Iterator[list[dict[str, float]]]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine; gives the resources of each node.

    Args:
        instead: Parameters that need no Ray, for the user who has not installed it.

    Raises:
        UserError: Ray is not installed, or the cluster does not answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Ray reads these when it is imported. It listens to the whole network; the token keeps others out.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    try:
        import ray.train
    except ImportError as error:
        raise UserError(f'Ray is not installed ({error}): pip install -e ".[ray]", or set {instead}') from None

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            _connect(address, max(workers, int(machine()["cores"])), folder)
            yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
        finally:
            ray.shutdown()


def _connect(address: str | None, cpus: int, folder: str) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        ray.init("local", num_cpus=cpus, include_dashboard=False, _temp_dir=folder, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except ConnectionError as error:
        raise UserError(f"the Ray cluster at RAY_ADDRESS={address} does not answer ({error}): start it") from None


def place_workers(nodes: Sequence[Mapping[str, float]], workers: int, device: str, name: str) -> tuple[int, bool]:
    """CPUs for each worker, as many as all can have, and whether each gets a GPU.

    Raises:
        UserError: The nodes have too few of either.
    """

    def fits(cpus: int, gpus: int) -> bool:
        rooms = (min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else workers) for node in nodes)
        return sum(rooms) >= workers

    most = int(max(node.get("CPU", 0) for node in nodes))
    for gpus in {"auto": (1, 0), "cuda": (1,)}.get(device, (0,)):
        for cpus in range(most, 0, -1):
            if fits(cpus, gpus):
                return cpus, gpus > 0
    has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    raise UserError(
        f"the Ray cluster has too few {'GPUs' if device == 'cuda' else 'CPUs'} for {name} ({workers}); its nodes have"
        f" {has}: start more nodes, or lower {name}"
    )
