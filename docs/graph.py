"""Build the graph of all pipelines as pages for a web server: `python docs/graph.py site/graph`.

`kedro viz build` writes where each file lies on this machine, and lets the page ask Google for a font. Both go.
"""

import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"  # the name is Kedro-Viz's


def build_graph(target: Path) -> None:
    """Build the graph into a folder.

    Args:
        target: The folder; replaced if it is there.

    Raises:
        FileExistsError: The project has a folder `build` of something else.
        ValueError: A path of this machine is left in the pages.
    """
    if BUILD.exists():
        raise FileExistsError(f"{BUILD} is in the way: Kedro-Viz builds there")
    try:
        subprocess.run([sys.executable, "-m", "kedro", "viz", "build"], cwd=ROOT, check=True)
        for page in BUILD.glob("api/**/*"):
            if page.is_file():
                page.write_text(page.read_text("utf-8").replace(f"{ROOT.as_posix()}/", ""), "utf-8")
        index = BUILD / "index.html"
        index.write_text(re.sub(r"<link[^>]*https://fonts\.[^>]*>\s*", "", index.read_text("utf-8")), "utf-8")
        (BUILD / "telemetry.html").unlink()  # a template that only a consent to telemetry would fill
        for page, folder in product(BUILD.glob("api/**/*"), (ROOT, Path.home(), Path(sys.prefix))):
            if page.is_file() and str(folder) in page.read_text("utf-8"):
                raise ValueError(f"{page} names a folder of this machine, {folder}")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(BUILD, target)
    finally:
        shutil.rmtree(BUILD, ignore_errors=True)


if __name__ == "__main__":
    build_graph(Path(sys.argv[1]))
