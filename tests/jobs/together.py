"""Run commands of trilemma one after another in this process, as one of several: importing torch takes each of them
longer than what is asked.

    torchrun … together.py COMMANDS.json

COMMANDS.json: a list of command lines, as words. What the first process says of a command follows `== NUMBER`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from trilemma.cli import main

for number, words in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    if os.environ["RANK"] == "0":
        print(f"== {number}", flush=True)
    sys.argv = ["trilemma", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
