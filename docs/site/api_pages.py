"""Pages of the API: one for each folder of the reference, and one for what the suite takes, a Target."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from places import REFERENCE, ROOT

# In the order of the chapters; a folder that is not named here comes last.
ORDER = (
    "every_block",
    "deformable_attention",
    "attention",
    "feed_forward",
    "transformer",
    "positions",
    "vision_transformer",
    "features",
    "queries",
    "denoising",
    "losses",
    "detectors",
    "training",
    "kernels",
    "checkpoints",
    "data",
)
WITHOUT_API = ("commands", "spec")
TARGET = "target"


def topics(root: Path = ROOT) -> list[str]:
    """The folders of the reference that have a page."""
    folders = [path.parent.name for path in (root / REFERENCE).glob("*/__init__.py")]
    known = [name for name in ORDER if name in folders]
    return known + sorted(set(folders) - {*known, *WITHOUT_API})


def title(topic: str) -> str:
    return topic.replace("_", " ").capitalize()


def summary(topic: str, root: Path = ROOT) -> str:
    """What the folder says of itself, without a period at its end."""
    text = (root / REFERENCE / topic / "__init__.py").read_text(encoding="utf-8")
    return " ".join((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].split()).rstrip(".")


def modules(topic: str, root: Path = ROOT) -> Iterator[str]:
    """Paths of a topic's modules that define something public or say what they are, each folder's own files first."""
    folder = root / REFERENCE / topic
    for path in sorted(folder.rglob("*.py"), key=lambda path: (path.parent.parts, path.name)):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name != "__init__.py" and not path.name.startswith("_") and ast.get_docstring(tree):
            yield path.relative_to(root).as_posix()


def public_names(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """topic -> what `detr_reference` itself offers from it, as its stub says: name -> where it is defined."""
    stub = root / REFERENCE / "__init__.pyi"
    offered: dict[str, dict[str, str]] = {}
    for statement in ast.parse(stub.read_text(encoding="utf-8")).body if stub.is_file() else ():
        if isinstance(statement, ast.ImportFrom) and statement.module:
            module = statement.module.removeprefix("detr_reference.")
            for alias in statement.names:
                names = offered.setdefault(module.partition(".")[0], {})
                names[alias.asname or alias.name] = f"detr_reference.{module}.{alias.name}"
    return offered


def topic_page(topic: str) -> str:
    """The page of a folder: what it offers at the top, then its modules."""
    offered = sorted(public_names().get(topic, ()))
    parts = [f"# {title(topic)}", f"{summary(topic)}."]
    if offered:
        parts.append(f"```python\nfrom detr_reference import {', '.join(offered)}\n```")
    for path in modules(topic):
        name = path.removeprefix("reference/").removesuffix(".py").replace("/", ".")
        heading = path.removeprefix(f"{REFERENCE}/{topic}/")
        parts.append(_entry(name, heading))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, heading: str) -> str:
    """What mkdocstrings replaces by the docstrings of a module or a class."""
    return f'::: {name}\n    options:\n      heading: "{heading}"\n      toc_label: "{heading}"'


def target_page() -> str:
    """What an implementation says of itself."""
    return (
        "# Target\n\nWhat an implementation says of itself, to be checked by `detr-spec check`.\n\n"
        "```python\nfrom detr_conformance import Target\n```\n\n"
        + "\n\n".join(_entry(f"detr_conformance.target.{name}", name) for name in ("Target", "TargetError"))
        + "\n"
    )


def index_page(root: Path = ROOT) -> str:
    """A line for each page, with the names that one imports."""
    names = public_names(root)
    rows = [f"| [{title(topic)}]({topic}.md) | {summary(topic, root)} | " for topic in topics(root)]
    rows = [row + _links(topic, names.get(topic, {})) + " |" for row, topic in zip(rows, topics(root), strict=True)]
    return (
        "# API\n\nWhat the reference and the suite offer, from the docstrings; each entry has a link to its source.\n\n"
        "| page | what | names |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n| [Target]({TARGET}.md) | What an implementation under test says of itself | |\n"
    )


def _links(topic: str, names: dict[str, str]) -> str:
    return ", ".join(f"[`{name}`]({topic}.md#{place})" for name, place in sorted(names.items()))
