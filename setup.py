"""Puts the configuration and the sample into the wheel, so that the package runs where there is no project."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProject(build_py):
    """Builds the package, and adds what it needs of the project around it."""

    def run(self) -> None:
        """Copy it beside the modules; an editable install finds it in the project."""
        super().run()
        if self.editable_mode:
            return
        carried = Path(self.build_lib, "review_sentiment", "project")
        shutil.rmtree(carried, ignore_errors=True)
        shutil.copytree("conf", carried / "conf", ignore=shutil.ignore_patterns("local", "*credentials*"))
        for name in ("conf/local/.gitkeep", "data/01_raw/README.md", "data/01_raw/sample_reviews.csv"):
            (carried / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, carried / name)


setup(cmdclass={"build_py": BuildWithProject})
