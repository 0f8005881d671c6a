"""Fill the tables of README and docs from the evaluation files under results/.

    python tools/tables.py           write them
    python tools/tables.py --check   exit 1 if one is not what its files say

A table stands between `<!-- table: FOLDER -->` and `<!-- end table -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from trilemma.report import build_table, read_evaluation, to_markdown

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def filled(text: str) -> str:
    """The text with every table as its files say now."""

    def table(match: re.Match[str]) -> str:
        evaluations = [read_evaluation(path).evaluation for path in sorted((ROOT / match[2]).glob("*.json"))]
        evaluations.sort(key=lambda evaluation: str(evaluation["created"]))
        return f"{match[1]}\n{to_markdown(build_table(evaluations))}\n{match[3]}" if evaluations else match[0]

    return PLACE.sub(table, text)


def main() -> None:
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        if filled(text) != text:
            stale.append(page.name)
            if "--check" not in sys.argv:
                page.write_text(filled(text))
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale) or 'none'}")
    sys.exit(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
