"""The documentation: its commands are real ones, its messages stand in the source, its generated pages are current."""

import ast
import importlib.util
import re
import shlex
import tomllib
import warnings
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import click
import pytest
from kedro.framework.cli.cli import KedroCLI

from review_sentiment.params import parse_parameters
from review_sentiment.pipeline_registry import register_pipelines
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "notebooks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands that are not this project's; what is said of them is for their own manuals.
OTHERS = {"curl", "docker", "export", "hf", "jupyter", "mkdocs", "pytest", "ray", "uv"}


def fenced(path: Path, language: str) -> list[str]:
    """What stands in a page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, without comments, redirections, and settings of variables."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="&|<>;")
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        reading = iter(words)
        for word in reading:
            if word in ("&&", "|", ";"):
                yield command
                command = []
            elif word in ("<", ">"):
                next(reading)
            elif command or not re.match(r"[A-Z_]+=", word):
                command.append(word)
        if command:
            yield command


def documented() -> list[tuple[str, list[str]]]:
    return [
        (path.name, command) for path in PAGES for script in fenced(path, "bash") for command in commands(script)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that writes the pages on parameters and catalog."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.values_of = cache(module.values_of)  # OmegaConf takes its time, and they stay as they are
    return module


@pytest.fixture(scope="module")
def kedro() -> Iterator[click.Group]:
    """Kedro's command line, with what its plugins and the project add."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        with warnings.catch_warnings():
            # Kedro-Viz 12.5 names it; remove when it does not.
            warnings.filterwarnings("ignore", "'BaseCommand' is deprecated", DeprecationWarning)
            made = KedroCLI(ROOT)
            assert {"run", "runs", "viz"} <= set(made.list_commands(click.Context(made)))
        yield made


def check_kedro(kedro: click.Group, arguments: list[str], reference: ModuleType) -> None:
    """Let click read a command line, and check what it names."""
    command: click.Command = kedro
    context = click.Context(kedro)
    while isinstance(command, click.Group) and arguments:
        _, command, arguments = command.resolve_command(context, arguments)
    options = command.make_context(command.name, list(arguments)).params
    if command.name != "run" or "pipelines" not in options:
        return
    env = options["env"] or "base"
    assert env in reference.ENVIRONMENTS
    assert set(options["pipelines"] or []) <= set(register_pipelines())
    values = deepcopy(reference.values_of(env))
    for name, value in options["params"].items():
        if isinstance(value, dict):
            values[name].update(value)
        else:
            values[name] = value
    parse_parameters(values)


def test_every_documented_command_is_a_real_one(kedro, reference):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    found = documented()
    for page, (name, *arguments) in found:
        if name == "kedro" and arguments[0] == "airflow":
            continue  # a plugin that is not installed here
        if name in ("kedro", "review-sentiment"):
            check_kedro(kedro, arguments or ["run"], reference)
        elif name == "pip":
            for wanted in re.findall(r"\[(.*)\]", " ".join(arguments)):
                assert set(wanted.split(",")) <= set(extras), (page, arguments)
        elif name == "python" and arguments[0] == "-c":
            compile(arguments[1], page, "exec")
        elif name == "python":
            script = (ROOT / arguments[0]).read_text("utf-8")
            assert all(f'"{word}"' in script for word in arguments if word.startswith("--")), (page, arguments)
        else:
            assert name in OTHERS, (page, name)
    assert len(found) > 50


def test_a_command_that_is_not_real_is_found(kedro, reference):
    for wrong in ("run --envv imdb", "run --pipelines training", "run --env nowhere", "run --params training.epoch=1"):
        with pytest.raises((click.UsageError, AssertionError, ValueError)):
            check_kedro(kedro, shlex.split(wrong), reference)


def test_links_lead_to_files_that_are_there():
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
            assert "://" in link or (path.parent / link).exists(), (path.name, link)


def test_parameters_that_pages_name_exist_and_have_the_value_that_they_say(reference):
    blocks = {name: values for name, values in reference.values_of("base").items() if isinstance(values, dict)}
    sizes = [reference.values_of(env)["subset"] for env in reference.ENVIRONMENTS]
    rows = {tuple(str(subset[f"{name}_rows"]) for name in ("train", "validation", "test")) for subset in sizes}
    for path in PAGES:
        text = path.read_text("utf-8")
        for block, name in re.findall(r"`(\w+)\.(\w+)\b(?! is not)", text):
            assert block not in blocks or name in blocks[block], (path.name, block, name)
        for block, name, *said in re.findall(r"`(\w+)\.(\w+)(?:: (\w+)`|` \(([\d.]+)\))", text):
            assert str(blocks[block][name]) in said, (path.name, block, name)
        for said in re.findall(r"([\d,]+) train, ([\d,]+) validation, ([\d,]+) test", text):
            assert tuple(number.replace(",", "") for number in said) in rows, (path.name, said)


@pytest.mark.parametrize("page", ["parameters", "catalog"])
def test_generated_pages_are_current(reference, page):
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    assert text == getattr(reference, f"{page}_page")(), "run `python docs/reference.py`"


def test_the_parameters_page_tells_bounds_values_and_environments(reference):
    rows = {row.split("`")[1]: row for row in reference.parameters_page().splitlines() if row.startswith("| `")}
    assert {name for name in rows if "." in name} == {
        f"{block}.{name}"
        for block, values in reference.values_of("base").items()
        if isinstance(values, dict)
        for name in values
    }
    assert rows["training.epochs"].startswith(
        "| `training.epochs`<br>whole number, above 0 | `3`<br>imdb, full: `2` | passes"
    )
    assert "`auto`, `fp32`, `bf16`" in rows["training.dtype"]
    assert "reference: `500`" in rows["training.warmup_steps"]


def test_the_picture_of_the_pipelines_is_true():
    tree = ElementTree.parse(ROOT / "docs" / "pipelines.svg").getroot()
    pipelines = register_pipelines()
    groups = {group.get("id"): [text.text for text in group.findall("{*}text")] for group in tree.findall("{*}g")}
    datasets = groups.pop("datasets")
    assert set(groups) == set(pipelines) - {"__default__", "monitoring_of_log"}
    for name, (title, *nodes) in groups.items():
        assert title == name
        assert set(nodes) <= {node.short_name for node in pipelines[name].nodes}
    assert set(datasets) <= set().union(*(pipeline.datasets() for pipeline in pipelines.values()))


@pytest.fixture(scope="module")
def templates() -> list[list[str]]:
    """Every text of the source, in pieces: between them stands what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "%s" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = iter([node.value])
            else:
                continue
            # A terminal breaks lines where it likes, so spaces count once.
            text = re.sub(r"\s+", " ", "".join(parts))
            pieces = [piece.replace("%%", "%") for piece in re.split(r"(?<!%)%[\d.]*[sdfeg]", text)]
            if len("".join(pieces)) >= 8:
                found.append(pieces)
    return found


def matches(message: str, pieces: list[str]) -> bool:
    return all(piece in message for piece in pieces) and bool(re.fullmatch(".*".join(map(re.escape, pieces)), message))


def stands_in(message: str, texts: list[list[str]]) -> bool:
    """Whether a text of the source is this message, or begins like one whose end the page leaves out."""
    if not message.endswith(" …"):
        return any(matches(message, pieces) for pieces in texts)
    begin = message.removesuffix(" …")
    end = begin[-7:]
    return any(
        matches(begin, [*pieces[:number], piece[: piece.index(end) + len(end)]])
        for pieces in texts for number, piece in enumerate(pieces) if end in piece
    )  # fmt: skip


def test_messages_in_troubleshooting_stand_in_the_source(templates):
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    told = [(message.strip("` "), why) for message, why in re.findall(r"^\| (`.*`) \| (.*) \|$", page, re.MULTILINE)]
    assert not [message for message, why in told if not stands_in(message, templates) and "Kedro" not in why]
    assert len(told) > 40
