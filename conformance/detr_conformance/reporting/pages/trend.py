"""How the verdicts of an implementation went from report to report: a bar each, the oldest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from detr_conformance.reporting.pages.drawings.svg import box, element, line, picture, words
from detr_conformance.reporting.pages.history import Told
from detr_conformance.reporting.pages.judged import SILENT, WORDS

HEIGHT, TOP, BAR, STEP, LEFT = 150.0, 24.0, 40.0, 84.0, 40.0
LONGEST_LABEL = 14
MOST_BARS = 40


def trend(part: Sequence[Told]) -> Markup | None:
    """None where there is one report only."""
    if len(part) < 2:
        return None
    shown = part[-MOST_BARS:]
    counts = [Counter(each.verdict for each in told.judged.values()) for told in shown]
    verdicts = [verdict for verdict in WORDS if verdict not in SILENT]
    most = max(max((sum(count[verdict] for verdict in verdicts) for count in counts), default=1), 1)
    width = LEFT + len(shown) * STEP
    parts = [line(LEFT, TOP + HEIGHT, width, TOP + HEIGHT, "d-axis"), words(LEFT - 8, TOP + 8, str(most), anchor="end")]
    for number, (told, count) in enumerate(zip(shown, counts, strict=True)):
        middle, bottom = LEFT + (number + 0.5) * STEP, TOP + HEIGHT
        for verdict in reversed(verdicts):  # what passed lies lowest
            tall = count[verdict] / most * HEIGHT
            bottom -= tall
            if tall:
                bar = box(middle - BAR / 2, bottom, BAR, tall, "d-bar", f"{count[verdict]} {WORDS[verdict]}")
                parts.append(element("g", bar, class_=f"v-{verdict}"))
        name = told.label if len(told.label) <= LONGEST_LABEL else f"{told.label[: LONGEST_LABEL - 1]}…"
        parts += [words(middle, TOP + HEIGHT + 18, name, anchor="middle")]
        if count["fail"]:
            parts.append(words(middle, TOP - 8, f"{count['fail']} failed", "d-word d-wrong", "middle"))
    return picture(width, TOP + HEIGHT + 28, f"verdicts of {len(shown)} reports, the oldest first", parts)
