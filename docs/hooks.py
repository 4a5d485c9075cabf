"""MkDocs hooks: what the pages need on the site, and not in the repository."""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

WIDE = ("imdb.md", "results.md")  # a log of 100 columns, a table of 7
ROOT = Path(__file__).parent.parent
ELSEWHERE = {"benchmarks/RESULTS.md": "benchmarks.md", "conf/README.md": "configuration.md"}  # beside what they tell of


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of `docs/`."""
    for path, page in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to such pages lead there, and give wide pages the room of the table of contents."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    for path, name in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{path}", f"]({name}")
    return markdown
