"""Write the two pages that nobody writes by hand: `python docs/reference.py` makes parameters.md and catalog.md anew.

The parameters come from the typed models and from the YAML with its comments, the catalog from `catalog.yml`, the
datasets' own docstrings and the registered pipelines.
"""

import re
from collections.abc import Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any

import yaml
from kedro.config import OmegaConfigLoader
from kedro.io.core import parse_dataset_definition
from kedro.pipeline.node import Node

from review_sentiment.params import Parameters, parse_parameters
from review_sentiment.pipeline_registry import register_pipelines
from review_sentiment.settings import CONFIG_LOADER_ARGS

DOCS = Path(__file__).parent
CONF = DOCS.parent / "conf"
ENVIRONMENTS = ("base", "imdb", "reference", "full")

_PARAMETERS_HEAD = """\
# Every parameter

Written by `python docs/reference.py` from the typed models and from the comments in `conf/`.

For one run: `kedro run --params training.epochs=2,tokenize.max_tokens=128`. For good, in `conf/local/parameters.yml`:

```yaml
training:
  epochs: 2
```

`conf/local` is read only without `--env`; more, and where `reviews` and `encoder` go:
[configuration](../conf/README.md). A name that is not below, or a value outside its bounds, is refused before anything
runs. *Value* is that of `conf/base`; below it stand the environments that set another.
"""
_CATALOG_HEAD = """\
# The catalog

Written by `python docs/reference.py` from `conf/base/catalog.yml` and the registered pipelines.

Places are below `data/`; what lies in memory is gone when the run ends. A *versioned* dataset keeps one copy a run,
`PLACE/<run>/NAME`, all with the same `<run>`. `kedro viz run` shows each one's content; `catalog.load("metrics")` reads
one in a notebook.
"""
_PASSED_ON_HEAD = """\
## Passed on in memory

Not in the catalog: what one node of a pipeline hands to the next. Kedro-Viz shows them too.
"""


def parameters_page() -> str:
    """Tell every parameter: what it takes, its value in each environment, what it is, and what moving it costs."""
    values = {env: values_of(env) for env in ENVIRONMENTS}
    comments = {env: _comments(env) for env in ENVIRONMENTS}
    schema = Parameters.model_json_schema()
    blocks: dict[str, dict[str, Any]] = {"What a run is about": {}}
    for name, field in schema["properties"].items():
        if "$ref" in field:
            blocks[name] = schema["$defs"][field["$ref"].rpartition("/")[2]]
        else:
            blocks["What a run is about"].setdefault("properties", {})[name] = field
    page = [_PARAMETERS_HEAD]
    for block, model in blocks.items():
        prefix = f"{block}." if block in values["base"] else ""
        head = re.sub(r"the YAML block `(\w+)`", r"the block `\1`", model.get("description", ""))
        page.append(f"## {block}\n" + (f"\n{head}\n" if head else ""))
        rows = []
        for name, field in model["properties"].items():
            path = f"{prefix}{name}"
            usual = _at(values["base"], path)
            others: dict[str, list[str]] = {}
            about, comment = field.get("description", ""), comments["base"].get(path, "")
            repeats = set(re.findall(r"\w+", about)) <= set(re.findall(r"\w+", comment))
            meaning = [comment] if repeats else [about, comment]
            for env in ENVIRONMENTS[1:]:
                if _at(values[env], path) != usual:
                    others.setdefault(_value(_at(values[env], path)), []).append(env)
                    meaning.append(f"{env}: {comments[env][path]}" if path in comments[env] else "")
            shown = [_value(usual), *(f"{', '.join(envs)}: {value}" for value, envs in others.items())]
            rows.append((f"`{path}`<br>{_takes(field)}", "<br>".join(shown), "<br>".join(filter(None, meaning))))
        page.append(_table(("parameter, and what it takes", "value", "what it is; what moving it does"), rows))
    return "\n".join(page)


def catalog_page() -> str:
    """Tell every dataset: what it is, its kind and place, and which node makes it."""
    text = (CONF / "base" / "catalog.yml").read_text("utf-8")
    entries = yaml.safe_load(text)
    about = dict(re.findall(r"^(\w+):(?:  # (.*))?$", text, re.MULTILINE))
    makers: dict[str, tuple[str, Node]] = {}
    readers: dict[str, list[Node]] = {}
    for name, pipeline in register_pipelines().items():
        for node in pipeline.nodes:
            for output in node.outputs:
                makers.setdefault(output, (name, node))
            for dataset in node.inputs:
                readers.setdefault(dataset, []).append(node)
    page = [_CATALOG_HEAD]
    for head, names in _layers(text):
        rows = []
        for name in names:
            entry = entries[name]
            kind, _ = parse_dataset_definition({"type": entry["type"]})
            summary = "" if kind.__name__ == "MemoryDataset" else (getdoc(kind) or "").partition("\n\n")[0]
            place = [_place(entry), "versioned" if entry.get("versioned") else ""]
            maker = [_made_by(*makers[name])] if name in makers else []
            cells = ([f"`{name}`", *maker], [about[name], " ".join(summary.split())], place)
            rows.append(tuple("<br>".join(filter(None, cell)) for cell in cells))
        page += [f"## {head}\n", _table(("dataset", "what it is, and its kind", "place"), rows)]
    rows = [
        (f"`{name}`<br>{_made_by(*made)}", _meaning(name, made[1], readers[name]),
         ", ".join(f"`{node}`" for node in sorted({node.short_name for node in readers[name]})))
        for name, made in makers.items() if name not in entries
    ]  # fmt: skip
    page += [_PASSED_ON_HEAD, _table(("dataset", "what it is", "read by"), rows)]
    return "\n".join(page)


def _made_by(pipeline: str, node: Node) -> str:
    return f"made by `{node.short_name}` in `{pipeline}`"


def _place(entry: dict[str, Any]) -> str:
    """Where an entry of the catalog lies: a file, what a parameter names, or memory."""
    if "filepath" in entry:
        return f"`{entry['filepath'].removeprefix('data/')}`"
    named = re.search(r"runtime_params:(\w+)", f"{entry.get('source')} {entry.get('encoder')}")
    return f"what `{named[1]}=` names" if named else "memory"


def _meaning(dataset: str, maker: Node, readers: list[Node]) -> str:
    """What a dataset without an entry is: as a node that reads it says, or else the node that makes it."""
    docs = (getdoc(node.func) or "" for node in readers)
    said = [text for doc in docs for text in re.findall(rf"^    {dataset}: (.*(?:\n {{8}}.*)*)", doc, re.MULTILINE)]
    own = [text for text in said if not text.startswith("As ")]  # as the node that makes it says
    text = " ".join((*own, (getdoc(maker.func) or "").partition("\n")[0])[0].split())
    return f"{text[:1].lower()}{text[1:]}".removesuffix(".")


def values_of(env: str) -> dict[str, Any]:
    """An environment's parameters, without those of `conf/local`."""
    loader = OmegaConfigLoader(str(CONF), env=env, **{**CONFIG_LOADER_ARGS, "default_run_env": "base"})
    return parse_parameters(loader["parameters"]).model_dump(mode="json")


def _comments(env: str) -> dict[str, str]:
    """The comment behind each value of an environment, by the parameter's full name."""
    found: dict[str, str] = {}
    for path in (*CONF.glob(f"{env}/parameters*.yml"), CONF / env / "globals.yml"):
        block = ""
        for line in path.read_text("utf-8").splitlines():
            match = re.fullmatch(r"( *)(\w+):(?: .*?)??(?:  # (.*))?", line)
            if match is None:
                continue
            indent, name, comment = match.groups()
            block = block if indent else f"{name}."
            if comment:
                found[f"{block}{name}" if indent else name] = comment
    return found


def _layers(text: str) -> Iterator[tuple[str, list[str]]]:
    """The catalog's sections, each headed by a comment such as `# 03 primary: train, validation and test rows`."""
    parts = re.split(r"^# (\d\d .*)$", text, flags=re.MULTILINE)[1:]
    for head, part in zip(parts[::2], parts[1::2], strict=True):
        yield head, re.findall(r"^(\w+):", part, re.MULTILINE)


def _at(values: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        values = values[part]
    return values


def _value(value: Any) -> str:
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        value = f"[{', '.join(value)}]"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _takes(field: dict[str, Any]) -> str:
    """What a value may be, in words, from the JSON schema of its type."""
    if "anyOf" in field:
        return " or ".join(_takes(option) for option in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{name}`" for name in field["enum"])
    kind = field["type"]
    words = {
        "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text", "null": "`null`",
        "array": "names",
    }[kind]  # fmt: skip
    bounds = [
        f"{word} {field[key]:,}"
        for key, word in (
            ("exclusiveMinimum", "above"), ("minimum", "from"), ("exclusiveMaximum", "below"), ("maximum", "to"),
            ("minItems", "at least"),
        )
        if key in field
    ]  # fmt: skip
    return ", ".join([words, *bounds])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    for name, page in (("parameters.md", parameters_page()), ("catalog.md", catalog_page())):
        (DOCS / name).write_text(page, "utf-8")
