"""Tables of results, printed and kept in RESULTS.md with the command, machine, date and commit that made them."""

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from review_sentiment.runs.manifest import git_state, machine

ROOT = Path(__file__).parent.parent
_FILE = Path(__file__).parent / "RESULTS.md"
# Read at the start: a benchmark runs for minutes, and the checkout may move on.
_CODE = git_state(ROOT)
_HEAD = "# Measured results\n\nEach section was written by the command that it names; nothing here is typed by hand.\n"


def publish(name: str, title: str, table: Sequence[dict[str, str]], notes: Sequence[str] = ()) -> None:
    """Print a table, and put it in place of the benchmark's last one in RESULTS.md.

    Args:
        name: The section's name, one for each benchmark.
        title: What was compared, in a sentence.
        table: Rows; all have the first row's keys.
        notes: Lines below the table.
    """
    ran_on = machine()
    commit = f"{_CODE['commit'][:7]}{' with local changes' if _CODE['dirty'] else ''}" if _CODE["commit"] else "unknown"
    # The user's own folders are nobody else's business.
    arguments = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    columns = list(table[0])
    section = [
        f"## {name}",
        "",
        title,
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join(row[column] for column in columns)} |" for row in table),
        "",
        *(f"- {note}" for note in notes),
        f"- `{shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *arguments])}`",
        f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {ran_on['cpu']}, {ran_on['cores']} cores, torch"
        f" {torch.__version__}",
        "",
    ]
    print("\n".join(section))
    text = _FILE.read_text("utf-8") if _FILE.exists() else _HEAD
    head, *sections = text.split("\n## ")
    kept = {part.partition("\n")[0]: part for part in sections}
    kept[name] = "\n".join(section).removeprefix("## ")
    body = "\n## ".join([head.rstrip("\n"), *(f"{part.rstrip()}\n" for _, part in sorted(kept.items()))])
    _FILE.write_text(body.replace("\n## ", "\n\n## ", 1), "utf-8")
