"""Kedro hooks: check all parameters before anything runs, and write a manifest after every run."""

import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import AbstractVersionedDataset, CatalogProtocol
from kedro.pipeline.node import Node

from review_sentiment.manifest import git_state, library_versions, machine
from review_sentiment.params import parse_parameters

logger = logging.getLogger(__name__)


class ParameterHooks:
    """Kedro checks the blocks of the pipelines that run; a misspelt block or run-time parameter would pass unseen."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check every parameter, known or not."""
        parse_parameters(context.config_loader["parameters"])


class RescueHooks:
    """Saves the classifier that a node had when training diverged, apart from those of complete runs."""

    @hook_impl
    def on_node_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Save what the error carries, and never hide the error."""
        classifier = getattr(error, "rescued", None)
        if classifier is None:
            return
        try:
            catalog.save("rescued_classifier", classifier)
        except Exception:
            logger.warning("The rescued classifier could not be saved", exc_info=True)


class ManifestHooks:
    """Collects what a run read and how long it took, and saves it as `manifest`, also when the run failed."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the effective parameters."""
        self._parameters = parse_parameters(context.config_loader["parameters"]).model_dump(mode="json")

    @hook_impl
    def before_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Start the clocks."""
        self._catalog = catalog
        self._started = datetime.now(UTC)
        self._begin = time.perf_counter()
        self._node_begin: dict[str, float] = {}
        self._node_seconds: dict[str, float] = {}
        self._loaded: dict[str, str] = {}
        self._found: dict[str, Any] = {"data_fingerprint": None, "encoder_sha256": None}

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Start a node's clock."""
        self._node_begin[node.name] = time.perf_counter()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Stop a node's clock."""
        self._node_seconds[node.name] = round(time.perf_counter() - self._node_begin[node.name], 3)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Note the version that was read, and the fingerprints that the data carry."""
        # Newest may change under a run that another one overtakes, so the version is asked for now.
        dataset = self._catalog.get(dataset_name)
        if data is not None and isinstance(dataset, AbstractVersionedDataset):
            version = dataset.resolve_load_version()
            if version is not None:
                self._loaded[dataset_name] = version
        self._note_fingerprints(dataset_name, data)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Note the fingerprints that the data carry."""
        self._note_fingerprints(dataset_name, data)

    def _note_fingerprints(self, dataset_name: str, data: Any) -> None:
        if dataset_name == "data_profile":
            self._found["data_fingerprint"] = data["fingerprint"]
        elif dataset_name == "pretrained":
            self._found["encoder_sha256"] = data.sha256
        elif dataset_name == "classifier":
            self._found["encoder_sha256"] = data.settings["encoder_sha256"]
            self._found["engine"] = data.settings["engine"]

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Save the manifest of a complete run."""
        self._save(run_params, None)

    @hook_impl
    def on_pipeline_error(self, error: Exception, run_params: dict[str, Any]) -> None:
        """Save the manifest of a failed run, and never hide why it failed."""
        try:
            self._save(run_params, f"{type(error).__name__}: {error}")
        except Exception:
            logger.warning("The manifest of the failed run could not be saved", exc_info=True)

    def _save(self, run_params: dict[str, Any], error: str | None) -> None:
        self._catalog.save(
            "manifest",
            {
                "run": run_params["run_id"],
                "complete": error is None,
                "error": error,
                "env": run_params["env"] or "base",
                "pipelines": run_params["pipeline_names"] or ["__default__"],
                "started": self._started.isoformat(timespec="seconds"),
                "seconds": round(time.perf_counter() - self._begin, 3),
                "node_seconds": self._node_seconds,
                "versions_read": self._loaded,
                "parameters": self._parameters,
                **self._found,
                "code": git_state(Path(run_params["project_path"])),
                "libraries": library_versions(),
                "machine": machine(),
            },
        )
