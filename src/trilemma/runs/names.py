"""What a run is called that is given no name."""

from __future__ import annotations

import re
from pathlib import Path


def run_name(data: str) -> str:
    """What a recipe and a run of these images are called: the last part of their path, in characters of a name."""
    last = Path(data).resolve().name if Path(data).exists() else data.removeprefix("hub:").rstrip("/").split("/")[-1]
    return re.sub(r"[^\w.-]+", "-", re.sub(r"\.(zip|npz|tar)$", "", last)).strip("-.") or "images"
