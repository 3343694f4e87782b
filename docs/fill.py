"""Puts excerpts and tables of the saved runs between the markers of the documents.

A marked place is `<!-- run: NAME -->`, what is filled in, `<!-- end -->`.

python docs/fill.py                  fill in README.md, docs/index.md and docs/guides/*.md from docs/runs
python docs/fill.py --check          compare them with the saved runs (exit 1 if they differ)
python docs/fill.py --run my-kernel  make this run again, save it, then fill in; --run all: every run, in two hours
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from filling import elsewhere, excerpts, speed, training, verdicts
from filling.runs import MAKE
from filling.saved import ROOT

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "guides").glob("*.md")))
MARKED = re.compile(r"(<!-- run: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")

PLACES: dict[str, Callable[[], str]] = {
    "my-kernel": excerpts.passing,
    "my-broken-kernel": excerpts.failing,
    "my-broken-kernel-short": excerpts.failing_in_short,
    "wrong-numpy": partial(excerpts.beginning, "wrong-numpy"),
    "wrong-jax": partial(excerpts.beginning, "wrong-jax"),
    "wrong-cpp": partial(excerpts.beginning, "wrong-cpp"),
    "ported-dino": excerpts.parted,
    "training-check": partial(excerpts.whole, "training-check"),
    "reference": partial(excerpts.in_short, "reference"),
    "verdicts": verdicts.in_short,
    "targets": verdicts.blocks,
    "detectors": verdicts.detectors,
    "elsewhere": elsewhere.elsewhere,
    "causes": verdicts.causes,
    "chapters": verdicts.chapters,
    "kill-rates": verdicts.kill_rates,
    "bench": speed.speeds,
    "bench-short": speed.in_short,
    "bench-models": speed.models,
    "bench-growth": speed.growth,
    "suite-times": speed.suite_times,
    "smoke": training.smoke,
    "recipes": training.recipes,
    "dry-run": training.projected,
    "overfit": training.overfit,
    "small-comparison": training.compared,
    "full-size": training.sizes,
}


def filled(text: str, document: Path) -> str:
    """A document with every marked place replaced by what the saved runs say."""

    def place(match: re.Match[str]) -> str:
        name = match[2]
        if name not in PLACES:
            sys.exit(f"{document.relative_to(ROOT)} has a place {name!r}, which nothing fills")
        return f"{match[1]}{linked_from(document, PLACES[name]())}\n{match[3]}"

    return MARKED.sub(place, text)


def linked_from(document: Path, text: str) -> str:
    """Links that begin at the root, as they are written from the document's folder."""
    return LINK.sub(lambda match: f"]({os.path.relpath(ROOT / match[1], document.parent)}", text)


def unshown(texts: Iterable[str]) -> set[str]:
    """Places that no document has."""
    return PLACES.keys() - {match[2] for text in texts for match in MARKED.finditer(text)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--run", nargs="+", default=[], choices=["all", *MAKE], metavar="NAME", help=", ".join(MAKE))
    options = parser.parse_args()
    for name in MAKE if "all" in options.run else options.run:
        print(f"running {name} ...", flush=True)
        MAKE[name]()
    texts = {document: document.read_text(encoding="utf-8") for document in DOCUMENTS}
    if missing := unshown(texts.values()):
        sys.exit(f"no document has a place for {', '.join(sorted(missing))}")
    new = {document: filled(text, document) for document, text in texts.items()}
    different = [document for document in DOCUMENTS if new[document] != texts[document]]
    if options.check and different:
        names = ", ".join(str(document.relative_to(ROOT)) for document in different)
        sys.exit(f"{names} differ from the saved runs; run `python docs/fill.py`")
    for document in different:
        document.write_text(new[document], encoding="utf-8")


if __name__ == "__main__":
    main()
