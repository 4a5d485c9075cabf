"""The report as one HTML file, and the model card in the folder of the classifier that it is about."""

import html
import logging
import re
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import HTMLPreview
from kedro_datasets.text import TextDataset as StockTextDataset

from review_sentiment.datasets.atomic import AtomicSave
from review_sentiment.datasets.classifier import ClassifierDataset
from review_sentiment.datasets.paths import show_path
from review_sentiment.runs.atomic import replace_atomically

logger = logging.getLogger(__name__)

_DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)"')
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


class ReportDataset(AtomicSave, StockTextDataset):
    """A page of HTML that a browser opens from disk."""

    def place(self) -> str:
        """The path of this run's page, or of the newest one."""
        return show_path(Path(self._get_load_path()))

    def preview(self) -> HTMLPreview:
        """Show the verdict and the page's path in Kedro-Viz, which removes the scripts that the page needs."""
        path = Path(self._get_load_path())
        with path.open(encoding="utf-8") as page:
            found = _DESCRIPTION.search(page.read(10_000))
        verdict = found.group(1) if found else ""
        size = path.stat().st_size / 1e6
        return HTMLPreview(
            f"{verdict}\n\nOne page of {size:.1f} MB with all figures and tables. Open it in a browser:\n\n"
            f"    {html.escape(show_path(path))}\n"
        )


class ModelCardDataset(AbstractDataset[dict[str, Any], dict[str, Any]]):
    """`README.md` in a version of the classifier's folder; `filepath` is the parent of its versions."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._filepath = Path(filepath)

    def save(self, data: dict[str, Any]) -> None:
        """Write `text` as the card of the version `classifier_run`, unless that version is gone."""
        card = self._filepath / str(data["classifier_run"]) / self._filepath.name / "README.md"
        # A folder that only held a card would be taken for a version of the classifier.
        if not (card.parent / ClassifierDataset.MARKER).is_file():
            logger.warning("No model card: the classifier of run %s is not on disk", data["classifier_run"])
            return
        with replace_atomically(card) as staged:
            staged.write_text(data["text"], "utf-8")

    def load(self) -> dict[str, Any]:
        """Read the newest card: `classifier_run` and `text`; None and empty if there is none."""
        cards = sorted(self._filepath.glob(f"*/{self._filepath.name}/README.md"))
        if not cards:
            return {"classifier_run": None, "text": ""}
        return {"classifier_run": cards[-1].parents[1].name, "text": cards[-1].read_text("utf-8")}

    def preview(self) -> HTMLPreview:
        """Show the newest card in Kedro-Viz, without the hub's metadata."""
        return HTMLPreview(_FRONT_MATTER.sub("", self.load()["text"]))

    def _exists(self) -> bool:
        return self.load()["classifier_run"] is not None

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
