"""A network drawn from its modules: a U-Net as a U, any other as its stages from top to bottom, in SVG."""

from __future__ import annotations

from pathlib import Path

from trilemma.jobs.network_costs import Anatomy
from trilemma.machine.files import write_text
from trilemma.metrics.metric import significant
from trilemma.networks import UNet
from trilemma.networks.trunk import Layer
from trilemma.report.network_words import called, entry_of, kind_of, shape_text
from trilemma.report.svg import MUTED, Box, Drawing, Point

WIDTH, LEFT, RIGHT, TOP = 1200, 112, 28, 138
BOX_WIDTH, BOX_HEIGHT, PITCH, GAP, INDENT = 270, 26, 36, 48, 46
SKIP = "#2a6f97"
BLOCK, CHANGE, END = ("#e3eef8", "#7ba3c9"), ("#fdf0d5", "#d2a24c"), ("#eef0f2", "#9aa5b1")
"""Fill and edge of blocks, of changes of resolution, and of what stands at the network's ends."""


def write_drawing(anatomy: Anatomy, out: str | Path) -> Path:
    """Write the drawing to `out`. Raises InputError where that cannot be done."""
    return write_text(Path(out), draw_network(anatomy), "--svg")


def draw_network(anatomy: Anatomy) -> str:
    """The network as an SVG of 1200 px: every block with its kind and channels, at its resolution."""
    drawing = Drawing(WIDTH)
    figures = "   ·   ".join(
        (
            f"{anatomy.parameters / 2**20:.2f} Mi parameters",
            f"{significant(anatomy.multiply_adds / 1e9)} G multiply-adds an image",
            f"{significant(anatomy.activations / 2**20)} MiB of activations an image in training (fp32)",
        )
    )
    drawing.text((28, 42), anatomy.recipe.name, size=24, bold=True)
    drawing.text((28, 68), figures, size=14, colour=MUTED)
    unets = [(name, module) for name, module in anatomy.network.named_modules() if isinstance(module, UNet)]
    height = _Unet(anatomy, drawing, *unets[0]).draw() if unets else _stages(anatomy, drawing)
    return drawing.finish(height, f"Network {anatomy.recipe.name}", figures, {"flow": MUTED, "skip": SKIP})


def _hint(anatomy: Anatomy, name: str) -> str:
    call = anatomy.calls[name]
    parameters = sum(parameter.numel() for parameter in anatomy.network.get_submodule(name).parameters())
    return f"{name}: {shape_text(call.inputs)} → {shape_text(call.outputs)}, {parameters:,} parameters"


class _Unet:
    """The U: the trunk goes down at the left, the decoder up at the right, each skip a line at one height.

    First at each resolution is what leads to it: at the left uppermost (the stem, or the change of resolution), at the
    right lowest. The decoder takes the skips up last come first, so its blocks stand opposite the trunk's."""

    def __init__(self, anatomy: Anatomy, drawing: Drawing, name: str, network: UNet):
        self.anatomy, self.network, self.drawing = anatomy, network, drawing
        self.within = f"{name}." if name else ""
        self.count = len(network.trunk.levels)
        # Between the columns of the coarsest level the skips need some room.
        room = WIDTH - LEFT - RIGHT - 2 * BOX_WIDTH - 140
        self.indent = min(INDENT, room / 2 / max(1, self.count - 1))

    def draw(self) -> float:
        """Draws everything; gives the picture's height."""
        self._bands()
        down, sources = self._trunk()
        middle = self._middle()
        up = self._decoder(sources, middle[-1])
        self._turn(down, middle[0])
        self._ends(up)
        return self._legend()

    def _bands(self) -> None:
        """One band a resolution: `rows[i]` are the heights of its boxes. The last one holds the middle too."""
        trunk, decoder = self.network.trunk.levels, list(reversed(self.network.decoder))
        self.rows: list[list[float]] = []
        y: float = TOP
        for i in range(self.count):
            last = i == self.count - 1
            many = max(1 + len(trunk[i].layers), len(decoder[i].layers)) + (not last)
            self.rows.append([y + PITCH * j for j in range(many)])
            self.floor = y + PITCH * many + 18
            end = self.floor + BOX_HEIGHT if last else self.rows[-1][-1] + BOX_HEIGHT
            height, width = self.network.sizes[i]
            self.drawing.rectangle(Box(0, y - 12, WIDTH, end - y + 24), "#f5f7f9", radius=0)
            self.drawing.text((LEFT - 20, (y + end) / 2 + 5), f"{height}×{width}", size=15, bold=True, anchor="end")
            y = end + GAP

    def _place(self, level: int, row: int, decoder: bool = False) -> Box:
        x = WIDTH - RIGHT - BOX_WIDTH - level * self.indent if decoder else LEFT + level * self.indent
        return Box(x, self.rows[level][row], BOX_WIDTH, BOX_HEIGHT)

    def _box(self, name: str, box: Box, look: tuple[str, str], sign: str = "") -> Box:
        """The box of the module of this name; its channels are those that came out of it."""
        name = self.within + name
        module = self.anatomy.network.get_submodule(name)
        attention = module.attention if isinstance(module, Layer) else None
        badge = "" if attention is None else f"A {attention.heads}"
        channels = str(self.anatomy.calls[name].outputs[0])
        self.drawing.labelled(box, name, sign + kind_of(module), channels, look, _hint(self.anatomy, name), badge)
        return box

    def _trunk(self) -> tuple[Box, list[tuple[Box, int]]]:
        """The last box, and those whose outputs are skips with their channels."""
        trunk = self.network.trunk
        sources: list[tuple[str, Box]] = []
        boxes: list[Box] = []
        for i, level in enumerate(trunk.levels):
            entry = "trunk.stem" if i == 0 else f"trunk.levels.{i - 1}.resample"
            names = [entry, *(f"trunk.levels.{i}.layers.{j}" for j in range(len(level.layers)))]
            for j, name in enumerate(names):
                look = BLOCK if j else END if i == 0 else CHANGE
                box = self._box(name, self._place(i, j), look, "↓ " if i and not j else "")
                if boxes:
                    self.drawing.arrow([(box.top[0], boxes[-1].bottom[1]), box.top])
                sources.append((self.within + name, box))
                boxes.append(box)
            if not trunk.every_block:
                kept = len(names) if i < self.count - 1 else 0
                sources = [*sources[: -len(names)], *sources[-1:]] if kept else sources[: -len(names)]
        return boxes[-1], [(box, self.anatomy.calls[name].outputs[0]) for name, box in sources]

    def _middle(self) -> list[Box]:
        """The boxes at the bottom of the U, from left to right."""
        names = [f"trunk.middle.{j}" for j in range(len(self.network.trunk.middle))]
        total = len(names) * BOX_WIDTH + (len(names) - 1) * 30
        x = (LEFT + WIDTH - RIGHT - total) / 2
        boxes = []
        for j, name in enumerate(names):
            boxes.append(self._box(name, Box(x + j * (BOX_WIDTH + 30), self.floor, BOX_WIDTH, BOX_HEIGHT), BLOCK))
            if j:
                self.drawing.arrow([boxes[-2].right, boxes[-1].left])
        self.floor += BOX_HEIGHT
        if self.network.trunk.bottom is not None:
            first = boxes[0]
            note = Box(first.x, first.y + PITCH + 16, BOX_WIDTH, BOX_HEIGHT)
            what = "time, class as maps" if self.network.classes else "time as maps"
            channels = f"+{self.network.trunk.bottom.channels}"
            name = f"{self.within}trunk.bottom"
            self.drawing.labelled(note, name, what, channels, END, _hint(self.anatomy, name))
            self.drawing.arrow([note.top, first.bottom])
            self.floor += PITCH + 16
        return boxes

    def _decoder(self, sources: list[tuple[Box, int]], below: Box) -> Box:
        """Draws the way up and the skips; gives the last box."""
        for k, level in enumerate(self.network.decoder):
            i = self.count - 1 - k
            lowest = len(self.network.trunk.levels[i].layers)
            for j in range(len(level.layers)):
                box = self._box(f"decoder.{k}.layers.{j}", self._place(i, lowest - j, decoder=True), BLOCK)
                self._rise(below, box)
                below = box
                if self.network.trunk.every_block or j == 0:
                    self._skip(*sources.pop(), box)
            if level.resample is not None and f"{self.within}decoder.{k}.resample" in self.anatomy.calls:
                box = self._box(f"decoder.{k}.resample", self._place(i - 1, -1, decoder=True), CHANGE, "↑ ")
                self._rise(below, box)
                below = box
        return below

    def _skip(self, source: Box, channels: int, target: Box) -> None:
        self.drawing.arrow([source.right, target.left], SKIP, kind="skip")
        x, y = target.left
        self.drawing.text((x - 14, y - 4), f"+{channels}", size=11.5, colour=SKIP, anchor="end")

    def _rise(self, below: Box, box: Box) -> None:
        """An arrow up from one box to another: straight where one stands over the other, else round the corner."""
        x = box.bottom[0]
        if below.x <= x <= below.x + below.width:
            self.drawing.arrow([(x, below.y), (x, box.bottom[1])])
        else:
            self.drawing.arrow([below.right, (x, below.right[1]), box.bottom])

    def _turn(self, above: Box, middle: Box) -> None:
        x, y = above.bottom
        corner: list[Point] = [(x, y), (x, middle.top[1])]
        self.drawing.arrow(corner if middle.x + 12 <= x else [(x, y), (x, middle.left[1]), middle.left])

    def _ends(self, last: Box) -> None:
        """What goes in and what comes out, above the finest level."""
        if self.within:
            own = [name for name, _ in self.anatomy.network.named_children() if f"{name}." != self.within]
            text = f"The U-Net in a {type(self.anatomy.network).__name__} network. Not drawn: {', '.join(own)}."
            self.drawing.text((WIDTH - RIGHT, 42), text, colour=MUTED, anchor="end")
        images = self.anatomy.recipe.images
        y, patch = TOP - PITCH - 16, self.network.patch
        first = self._place(0, 0)
        folded = f", in {patch}×{patch} patches" if patch > 1 else ""
        low = " and low image" if self.network.upsampler else ""
        self.drawing.text((first.x, y + 17), f"image {shape_text(images.shape)}{low}{folded}", size=14)
        self.drawing.arrow([(first.top[0], y + 24), first.top])
        head = Box(last.x, y, BOX_WIDTH, BOX_HEIGHT)
        self._box("head", head, END)
        self.drawing.arrow([last.top, (last.top[0], head.bottom[1])])
        embedding = self.network.trunk.embedding
        if embedding is not None:
            what = "time and class" if embedding.label is not None else "time"
            text = f"{what}: a vector of {embedding.dim}, {entry_of(self.network)}"
            self.drawing.text((WIDTH / 2 + 42, y + 17), text, colour=MUTED, anchor="middle")

    def _legend(self) -> float:
        """The key below the picture; gives the height at which it ends."""
        y, x = self.floor + 44, 28.0
        for look, text in ((BLOCK, "block"), (CHANGE, "change of resolution"), (END, "first and last layers")):
            self.drawing.rectangle(Box(x, y - 11, 18, 14), *look, radius=3)
            self.drawing.text((x + 25, y), text, colour=MUTED)
            x += 45 + 7.2 * len(text)
        if any(isinstance(m, Layer) and m.attention is not None for m in self.network.modules()):
            self.drawing.badge(Box(x, y - 13, 34, 18), "A n")
            text = "self-attention of n heads"
            self.drawing.text((x + 41, y), text, colour=MUTED)
            x += 61 + 7.2 * len(text)
        self.drawing.arrow([(x, y - 4), (x + 30, y - 4)], SKIP, kind="key")
        self.drawing.text((x + 38, y), "+n: skip, joined as n channels. Numbers in boxes: channels.", colour=MUTED)
        return y + 26


def _stages(anatomy: Anatomy, drawing: Drawing) -> float:
    """A network that is no U-Net: what is called in it, in that order, norms and activations aside."""
    x, y = (WIDTH - 2 * BOX_WIDTH) / 2, 104.0
    heading = f"Image {shape_text(anatomy.recipe.images.shape)}; the layers in the order in which they are called"
    drawing.text((x, y + 8), heading, size=14)
    for name, module in called(anatomy.network, anatomy.calls):
        y += PITCH
        box = Box(x, y - 12, 2 * BOX_WIDTH, BOX_HEIGHT)
        look = BLOCK if any(True for _ in module.parameters()) else CHANGE
        shape = shape_text(anatomy.calls[name].outputs)
        drawing.labelled(box, name, kind_of(module), shape, look, _hint(anatomy, name))
        drawing.text((x - 14, box.left[1] + 4.5), name, colour=MUTED, anchor="end")
    return y + 40
