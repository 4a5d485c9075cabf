"""Checkpoints of a training in progress: all that it needs to go on after a crash as if nothing had happened."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError, Version

from review_sentiment.errors import UserError
from review_sentiment.runs.atomic import replace_atomically
from review_sentiment.runs.locks import PathLock, is_held

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_TENSORS, _VALUES, _SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
# Checkpoints of each run; the one before the newest is used if the newest is damaged.
_KEPT = 2
# In the JSON, the place of a tensor, which is in the other file.
_TENSOR = "$tensor"


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after an optimizer step: JSON's types and tensors, nested; `run` made it."""

    run: str
    step: int
    state: dict[str, Any]


class Checkpoints:
    """Saves and finds checkpoints, which are no versioned data: they go when their training is complete.

    Args:
        folder: Holds one folder for each run.
        run: The run in progress.
        resume: The run to go on with, or the beginning of its name; True for the newest unfinished one; False for none.
    """

    def __init__(self, folder: Path, run: str | None, resume: bool | str) -> None:
        self.resumed: list[dict[str, Any]] = []
        self._folder, self._run, self._resume = folder, run, resume
        self._locks: list[PathLock] = []

    def __getstate__(self) -> dict[str, Any]:
        """What another process on this machine needs to save and read too; locks stay in the process that took them."""
        return {**self.__dict__, "_folder": self._folder.absolute(), "_locks": []}

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of this run, completely or not at all, and delete all but its newest two.

        Args:
            step: Optimizer steps done.
            state: JSON's types and tensors, nested.
        """
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        values = _without_tensors({**state, "resumed": self.resumed}, "", tensors)
        run = self._folder / str(self._run)
        if not run.exists():
            run.mkdir(parents=True)
            self._hold(run)
        with replace_atomically(run / f"step-{step:09d}") as staged:
            staged.mkdir()
            save_file(tensors, staged / _TENSORS)
            (staged / _VALUES).write_text(json.dumps(values), "utf-8")
            (staged / _SUMS).write_text(_sums(staged), "utf-8")
        for old in _steps(run)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def newest_step(self) -> int | None:
        """The step that this run could be resumed from: its own newest, or the one it was resumed from; else None."""
        steps = _steps(self._folder / str(self._run))
        if steps:
            return _number(steps[-1])
        return self.resumed[-1]["step"] if self.resumed else None

    def unfinished(self) -> list[str]:
        """Runs that have checkpoints and are not in progress, oldest first."""
        return [run for run in self._runs() if not is_held(self._folder / run)]

    def _runs(self) -> list[str]:
        runs = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        return [run.name for run in runs if _steps(run)]

    def run_to_resume(self) -> str | None:
        """The run that was asked for; None if none was.

        Raises:
            UserError: There is none, or its name could be several.
        """
        if self._resume is False:
            return None
        otherwise = "without `resume` training starts over"
        runs = self.unfinished() if self._resume is True else self._runs()
        if not runs:
            raise UserError(f"there is no checkpoint to resume from in {self._folder}: {otherwise}")
        if self._resume is True:
            return runs[-1]
        found = [run for run in runs if run.startswith(self._resume)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"resume={self._resume} could be {len(found)} runs ({', '.join(found)}): write more of it")
        raise UserError(
            f"the run '{self._resume}' has no checkpoint ({', '.join(runs)} have): name one, or {otherwise}"
        )

    def to_resume(self) -> Checkpoint | None:
        """Read the newest undamaged checkpoint of the run that was asked for, and keep other processes from it.

        Returns:
            None if none was asked for.

        Raises:
            UserError: There is none, all are damaged, or another process uses it.
        """
        run = self.run_to_resume()
        if run is None:
            return None
        folder = self._folder / run
        if not self._hold(folder):
            raise UserError(f"the run {run} is still going on, or is being resumed: wait for it, or name another run")
        checkpoint = self._newest_undamaged(run)
        if checkpoint is not None:
            return checkpoint
        raise UserError(
            f"all checkpoints of the run {run} are damaged: delete {folder}; without `resume` training starts over"
        )

    def to_restart(self) -> Checkpoint | None:
        """Read the newest undamaged checkpoint that this run made itself; None if there is none."""
        return self._newest_undamaged(str(self._run))

    def _newest_undamaged(self, run: str) -> Checkpoint | None:
        for step in reversed(_steps(self._folder / run)):
            state = _read(step)
            if state is not None:
                self.resumed = [*state["resumed"], {"run": run, "step": _number(step)}]
                return Checkpoint(run, _number(step), state)
            logger.warning("The checkpoint %s is damaged, and is not used", step)
        return None

    def delete(self) -> None:
        """Delete the checkpoints of this run, and of those that it was resumed from."""
        self.release()
        for run in [self._run, *(resumed["run"] for resumed in self.resumed)]:
            shutil.rmtree(self._folder / str(run), ignore_errors=True)

    def release(self) -> None:
        """Let other processes resume the runs that this one worked on."""
        while self._locks:
            self._locks.pop().release()

    def _hold(self, run: Path) -> bool:
        lock = PathLock(run)
        self._locks.append(lock)
        return lock.take(wait=False)


class CheckpointsDataset(AbstractDataset[NoReturn, Checkpoints]):
    """Gives the training its `Checkpoints`, since it saves many times while its node runs.

    `resume` is as `Checkpoints` takes it; the version that Kedro would save is the name of the run.
    """

    def __init__(
        self,
        *,
        filepath: str,
        resume: bool | str | int = False,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.metadata = metadata
        self._filepath = Path(filepath)
        # The command line makes a number of a year, which is the beginning of a run's name.
        self._resume = resume if isinstance(resume, bool) else str(resume)
        self._run = version.save if version else None

    def load(self) -> Checkpoints:
        """Nothing is read yet."""
        return Checkpoints(self._filepath, self._run, self._resume)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: what `load` gives saves."""
        raise DatasetError("checkpoints are saved by what load() gives")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "resume": self._resume}


def _steps(run: Path) -> list[Path]:
    return sorted(run.glob("step-*"))


def _number(step: Path) -> int:
    return int(step.name.removeprefix("step-"))


def _sums(folder: Path) -> str:
    """What `sha256sum` writes, so that it can check the files too."""
    lines = []
    for name in (_VALUES, _TENSORS):
        with (folder / name).open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _read(step: Path) -> dict[str, Any] | None:
    """A checkpoint's state; None if a byte of it is missing or changed."""
    from safetensors.torch import load_file

    try:
        if (step / _SUMS).read_text("utf-8") != _sums(step):
            return None
    except (OSError, UnicodeDecodeError):
        return None
    state: dict[str, Any] = _with_tensors(json.loads((step / _VALUES).read_text("utf-8")), load_file(step / _TENSORS))
    return state


def _without_tensors(value: Any, name: str, tensors: dict[str, "torch.Tensor"]) -> Any:
    """Move the tensors of a nested value into a flat table, and put their names in their places."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {str(key): _without_tensors(item, f"{name}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, "torch.Tensor"]) -> Any:
    """The inverse; tuples have become lists, and keys text."""
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
