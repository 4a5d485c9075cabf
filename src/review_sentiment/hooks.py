"""Kedro hooks: check all parameters, choose the versions that a run reads, and write a manifest after every run."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import rich
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import AbstractVersionedDataset, CatalogProtocol, DatasetError, Version
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from review_sentiment.addresses import redact
from review_sentiment.catalog import files_of
from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.datasets.paths import find_local
from review_sentiment.datasets.report import ReportDataset
from review_sentiment.errors import UserError, fault_list, users_fault
from review_sentiment.params import flatten, load_parameters, parameter_text
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.locks import path_held
from review_sentiment.runs.manifest import describe_run, git_state, join_manifests, recipe_sha256, source_sha256
from review_sentiment.runs.session import given_run
from review_sentiment.runs.versions import choose_versions
from review_sentiment.terminal import show_results

logger = logging.getLogger(__name__)


class TrainingHooks:
    """Keeps what a training that ends early leaves: its checkpoints, or the classifier that it had when it diverged."""

    _checkpoints: Checkpoints | None = None

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Look for the training to resume, or one that could be, before the work that comes before training."""
        self._checkpoints = None
        if "checkpoints" not in pipeline.inputs():
            return
        checkpoints = catalog.load("checkpoints")
        unfinished = checkpoints.unfinished()
        if checkpoints.run_to_resume() is None and unfinished:
            logger.info("The training of run %s was not finished; resume=true would go on with it", unfinished[-1])

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Keep the checkpoints, to delete them later."""
        if dataset_name == "checkpoints":
            self._checkpoints = data

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Delete them as soon as all that modeling makes is on disk."""
        if dataset_name == "metrics":
            self._delete()

    @hook_impl
    def on_node_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        """Where training diverged, save its classifier, and delete checkpoints that would diverge again."""
        classifier = getattr(error, "rescued", None)
        if classifier is None:
            return
        self._delete()
        try:
            catalog.save("rescued_classifier", classifier)
        except Exception:
            logger.warning("The rescued classifier could not be saved", exc_info=True)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Delete them also where only a part of modeling was to run."""
        self._delete()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Let another run go on from them."""
        if self._checkpoints is not None:
            self._checkpoints.release()

    def _delete(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.delete()


# Parameters that the catalog takes from globals.yml and the command line, and their places in it.
_READ_BY_CATALOG = {
    "reviews": ("reviews", "source"),
    "train_split": ("reviews", "train_split"),
    "test_split": ("reviews", "test_split"),
    "encoder": ("pretrained", "encoder"),
    "new_reviews": ("new_reviews", "source"),
}
# Parameters that splits and tokens depend on without holding them.
_MADE_WITH = (
    "data.label_names",
    "encoder",
    "tokenize.max_tokens",
    "tokenize.scoring_max_tokens",
    "tokenize.truncation",
    "tokenize.head_share",
)


class ManifestHooks:
    """Saves what is known of a run before it starts as `run_info`, and that with its outcome as `manifest`."""

    _run_info: dict[str, Any] | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check every parameter: Kedro checks the blocks of the pipelines that run, and lets misspelt names pass."""
        loader = context.config_loader
        self._parameters = load_parameters(loader).model_dump(mode="json")
        loader["catalog"] = loader["catalog"]  # kept, as `load_parameters` does
        _refuse_what_the_catalog_does_not_read(self._parameters, loader["catalog"])
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Start the clock, pin the versions that the run reads, and record that it is in progress."""
        self._run_info = None  # an interrupt from here on does not end an earlier run
        if "ParallelRunner" in str(run_params["runner"]):
            raise UserError(
                "ParallelRunner hides what a run reads and writes, so there would be no record of it: leave --runner"
                " out, or take ThreadRunner"
            )
        self._catalog = catalog
        self._begin = time.perf_counter()
        self._node_begin: dict[str, float] = {}
        self._node_seconds: dict[str, float] = {}
        self._loaded: dict[str, str] = {}
        self._checkpoints: Checkpoints | None = None
        self._found: dict[str, Any] = {"data_hash": None, "encoder_sha256": None}
        trains_on_new_data = {"tokenized", "metrics"} <= pipeline.all_outputs()
        known = {
            **describe_run(run_params, self._parameters),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": {**git_state(Path(run_params["project_path"])), "source_sha256": source_sha256()},
            "local_inputs": [name for name in ("reviews", "encoder") if find_local(self._parameters[name]) is not None],
            "recipe_sha256": recipe_of(catalog, self._parameters) if trains_on_new_data else None,
        }
        self._files = files_of(self._context)
        # Held by `kedro runs clean` too: it either sees what this run reads, or has deleted before this run chooses.
        with path_held(self._context.project_path):
            run_info = {**known, **self._choose(run_params, pipeline, catalog)}
            self._record = self._files.begin(run_info)
        self._run_info = run_info
        catalog.save("run_info", run_info)

    def _choose(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Any]:
        """Pin the versions that the run reads; gives them, and the run of the classifier that it is about."""
        run, files = run_params["run_id"], self._files
        # Another process may have done a part of this run already: what it has written is read before all else.
        begun = run if run in files.versions() else None
        if begun is not None:
            _refuse_again(files, begun, pipeline)
        _pin_versions(pipeline, catalog, files, run_params["load_versions"] or {}, self._parameters["run"] or begun)
        versions = _versions_to_read(pipeline, catalog)
        resumed = catalog.load("checkpoints").run_to_resume() if "checkpoints" in pipeline.inputs() else None
        if resumed is not None:
            versions["checkpoints"] = resumed
        trains = "metrics" in pipeline.all_outputs()
        if trains:
            _refuse_data_made_otherwise(files, versions, self._parameters)
        classifier_run = versions.get("metrics", versions.get("classifier"))
        return {
            "versions_read": versions,
            "classifier_run": run if trains else classifier_run,
            "classifier_from": None if trains else _origin(classifier_run, files),
        }

    @hook_impl
    def before_dataset_loaded(self, node: Node) -> None:
        """Start a node's clock: much work is done while inputs are loaded and outputs are saved."""
        self._clock(node)

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Record a node's time so far; saving its outputs adds to it."""
        self._clock(node)

    def _clock(self, node: Node) -> None:
        """Record the time since the first call for a node; nodes may run in several threads."""
        now = time.perf_counter()
        name = node.short_name
        self._node_seconds[name] = round(now - self._node_begin.setdefault(name, now), 3)

    @hook_impl
    def after_dataset_loaded(self, dataset_name: str, data: Any) -> None:
        """Record the version that was read, and the hashes in the data."""
        # Newest may change under a run that another one overtakes, so the version is asked for now.
        dataset = self._catalog.get(dataset_name)
        if data is not None and isinstance(dataset, AbstractVersionedDataset):
            version = dataset.resolve_load_version()
            if version is not None:
                self._loaded[dataset_name] = version
        if dataset_name == "checkpoints":
            self._checkpoints = data
        self._note_hashes(dataset_name, data)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Let the run read what it saves."""
        _pin_own(self._catalog, dataset_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Record the hashes in the data, and the time that saving took."""
        self._clock(node)
        self._note_hashes(dataset_name, data)

    def _note_hashes(self, dataset_name: str, data: Any) -> None:
        if dataset_name == "data_profile":
            self._found["data_hash"] = data["data_hash"]
        elif dataset_name == "pretrained":
            self._found["encoder_sha256"] = data.sha256
        elif dataset_name == "classifier":
            self._found["encoder_sha256"] = data.settings["encoder_sha256"]
            self._found["compute"] = data.settings["compute"]

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Save the manifest of a complete run."""
        self._save(None)

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """Save the manifest of a failed run, and never hide why it failed."""
        if self._run_info is None:
            return
        try:
            self._save(users_fault(error) or redact(f"{type(error).__name__}: {error}"))
        except Exception:
            logger.warning("The manifest of the failed run could not be saved", exc_info=True)

    def _save(self, error: str | None) -> None:
        manifest = {
            **(self._run_info or {}),
            "complete": error is None,
            "error": error,
            "seconds": round(time.perf_counter() - self._begin, 3),
            "node_seconds": self._node_seconds,
            "versions_read": self._loaded,
            "resumed": self._checkpoints.resumed if self._checkpoints else [],
            **self._found,
        }
        run = manifest["run"]
        # Two processes of one run may end at once.
        with path_held(self._context.project_path) if given_run() else nullcontext():
            before = self._files.manifest(run) if self._files.has("manifest", run) else None
            if before is None:
                _pin_own(self._catalog, "manifest")
                self._catalog.save("manifest", manifest)
            else:
                self._files.replace_manifest(run, join_manifests(before, manifest))
        self._record.end()


class ResultHooks:
    """Shows the results in the terminal at the end of a run that made them, also where a failed check ends it."""

    @hook_impl
    def before_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Forget the results of an earlier run."""
        self._catalog = catalog
        self._saved: dict[str, Any] = {}

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Keep what will be shown."""
        if dataset_name in ("evaluation", "readiness"):
            self._saved[dataset_name] = data
        elif dataset_name == "report":
            self._saved["report"] = cast(ReportDataset, self._catalog.get("report")).place()

    @hook_impl(trylast=True)
    def after_pipeline_run(self) -> None:
        """Show the results of a complete run."""
        self._show()

    @hook_impl(trylast=True)
    def on_pipeline_error(self) -> None:
        """Show the results of a run whose readiness check failed."""
        self._show()

    def _show(self) -> None:
        if {"evaluation", "readiness"} <= set(self._saved):
            show_results(
                rich.get_console(), self._saved["evaluation"], self._saved["readiness"], self._saved.get("report")
            )


def recipe_of(catalog: CatalogProtocol, parameters: Mapping[str, Any]) -> str | None:
    """As `recipe_sha256`, with the catalog's reviews and encoder; None also where these can't be read."""
    try:
        contents = [catalog.get(name).content_sha256() for name in ("reviews", "pretrained")]  # type: ignore[union-attr]
    except (UserError, OSError):  # the node that reads them will report it
        return None
    return recipe_sha256(contents, parameters)


def _refuse_what_the_catalog_does_not_read(parameters: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Refuse a file of parameters that names reviews or an encoder: it would be recorded, while another is read."""
    faults = [
        f"{name} is {parameters[name]!r} in a file of parameters, but {entries[dataset][key]!r} is what would be read"
        for name, (dataset, key) in _READ_BY_CATALOG.items()
        if key in entries.get(dataset, {}) and entries[dataset][key] != parameters[name]
    ]
    if faults:
        # new_reviews belongs to one run, so no file can name it.
        raise UserError(fault_list("Name these with --params, or all but new_reviews in globals.yml", faults))


def _refuse_again(files: RunFiles, run: str, pipeline: Pipeline) -> None:
    """Refuse to write a part of a run again, before anything is changed."""
    written = sorted(name for name in pipeline.all_outputs() & set(files.folders) if files.has(name, run))
    if written:
        raise UserError(
            f"the run {run} has {', '.join(written)} already, and a version is written only once: start another run"
        )


def _pin_versions(
    pipeline: Pipeline, catalog: CatalogProtocol, files: RunFiles, named: dict[str, str], wanted: str | None
) -> None:
    """Let all that a run reads come from one run and from what that run read."""
    makers = {name: maker.all_outputs() for name, maker in pipelines.items()}
    for name, version in choose_versions(files, pipeline.inputs(), makers, named, wanted).items():
        _pin(cast(AbstractVersionedDataset, catalog.get(name)), version)


def _pin_own(catalog: CatalogProtocol, name: str) -> None:
    """Let a dataset that is about to be saved load this run's version, unless the user has named another.

    Kedro alone would load the newest, which is that of another run where one with a later name was faster.
    """
    dataset = catalog.get(name)
    if isinstance(dataset, AbstractVersionedDataset):
        version = dataset._version
        if version is not None and version.load is None:
            _pin(dataset, version.save)


def _pin(dataset: AbstractVersionedDataset, run: str) -> None:
    """Let a dataset load the version of one run; it still saves as before."""
    # Kedro takes load versions only before a catalog is made, when it is not known yet which runs are complete.
    dataset._version = Version(run, dataset._version.save if dataset._version else None)
    dataset._clear_version_cache()


def _versions_to_read(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """Versions of the versioned inputs that are on disk; asking pins them, so that they are what the run reads."""
    versions = {}
    for name in sorted(pipeline.inputs()):
        dataset = catalog.get(name)
        if isinstance(dataset, AbstractVersionedDataset):
            with suppress(DatasetError):  # nothing saved yet: the node that needs it will report it
                version = dataset.resolve_load_version()
                if version is not None:
                    versions[name] = version
    return versions


def _origin(run: str | None, files: RunFiles) -> dict[str, Any] | None:
    """How an earlier run was made, from its manifest or, where it was killed, its record; None without either."""
    manifest = files.manifest(run) if run is not None else None
    # An older manifest may lack some.
    kept = ("env", "parameters", "command_parameters", "code", "libraries", "machine")
    return {key: manifest[key] for key in kept if key in manifest} if manifest else None


def _refuse_data_made_otherwise(files: RunFiles, versions: Mapping[str, str], parameters: Mapping[str, Any]) -> None:
    """Let no training give the classes of earlier splits other names, or read earlier tokens by other rules."""
    now = flatten(parameters)
    faults: dict[str, None] = {}  # each once, in this order
    for dataset in sorted({"splits", "tokenized"} & versions.keys()):
        then = flatten((files.manifest(versions[dataset]) or {}).get("parameters") or {})
        for name in _MADE_WITH:
            if then.get(name, now[name]) != now[name]:
                faults[f"{name} was {parameter_text(then[name])}, and is {parameter_text(now[name])}"] = None
    if faults:
        raise UserError(
            fault_list(
                "the splits and tokens on disk were made with other parameters; give the same --env and --params again,"
                " or run data_engineering too",
                list(faults),
            )
        )
