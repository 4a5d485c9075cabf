"""MkDocs hooks: what the pages need on the site, and not in the repository."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

WIDE = ("imdb.md", "results.md")  # a log of 100 columns, a table of 7
RESULTS = Path(__file__).parent.parent / "benchmarks" / "RESULTS.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the benchmarks' results, which stand beside what writes them, as `benchmarks.md`."""
    files.append(File.generated(config, "benchmarks.md", abs_src_path=str(RESULTS)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to the results lead to that page, and give wide pages the room of the table of contents."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    return markdown.replace("](../benchmarks/RESULTS.md", "](benchmarks.md")
