"""Package a trained classifier as a feature extractor: its averaged weights and a card that says what it is.

trilemma train mnist-classifier
python tools/package_classifier.py runs/mnist-classifier --name digits
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trilemma.machine.environment import environment
from trilemma.machine.files import sha256
from trilemma.process import to_model
from trilemma.runs import Run
from trilemma.runs.build import open_images

WEIGHTS = Path(__file__).parents[1] / "src" / "trilemma" / "metrics" / "weights"


@torch.inference_mode()
def accuracy(run: Run, split: str) -> tuple[float, int]:
    """The share of a split's images that the classifier gets right, and their number."""
    data, classifier = open_images(run.recipe, split), run.classifier()
    right = 0
    for start in range(0, len(data), 500):
        images, labels = data.batch(range(start, min(start + 500, len(data))))
        assert labels is not None
        right += int((classifier(to_model(images)).argmax(1) == torch.from_numpy(labels)).sum())
    return right / len(data), len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    run = Run(arguments.run)
    recipe: dict[str, Any] = run.recipe.model_dump(mode="json")
    recipe["data"]["root"] = None  # where the files lay is nobody's business
    images, network = recipe["images"], dict(recipe["network"])
    network.pop("name")
    share, count = accuracy(run, "test")
    out = WEIGHTS / f"{arguments.name}.safetensors"
    weights = {name: value.contiguous() for name, value in run.classifier().state_dict().items()}
    save_file(weights, out)
    state = environment(torch.device("cpu"))
    card = {
        "name": arguments.name,
        "what": f"classifier of {recipe['data']['name']}, whose last features measure other images",
        "shape": [images["channels"], images["height"], images["width"]],
        "classes": images["classes"],
        "network": network,
        "accuracy": {"split": f"{recipe['data']['name']}:test", "count": count, "right": share},
        "sha256": sha256(out),
        "bytes": out.stat().st_size,
        "recipe": recipe,
        "trained": {"step": run.step, "weights": "ema", "torch": state["torch"], "device": state["device"]},
    }
    (WEIGHTS / f"{arguments.name}.json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{out.name}: {share:.2%} of {count} test images, {card['bytes']:,} bytes, sha256 {card['sha256']}")


if __name__ == "__main__":
    main()
