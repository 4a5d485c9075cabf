"""MkDocs hooks: the benchmarks' results, which stand beside what writes them, become a page of the site."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parent.parent / "benchmarks" / "RESULTS.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the results as `benchmarks.md`."""
    files.append(File.generated(config, "benchmarks.md", abs_src_path=str(RESULTS)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the results, which work in the repository, lead to that page."""
    return markdown.replace("](../benchmarks/RESULTS.md", "](benchmarks.md")
