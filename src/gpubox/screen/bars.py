"""Pulls as lines of text: what is said of one, and all of them as bars that fit a screen.

Pure: figures in, lines out. Draws nothing.
"""

from __future__ import annotations

import msgspec

from gpubox.figures import counted, duration_text, parts_text, size_text
from gpubox.images.progress import Layer, Phase, Pulled, Pulls, Whole

_LABEL = 28  # columns of a layer's line, up to its bar
_BESIDE_BAR = 60  # columns of the last lines, which have most to tell
_WORDS = {Phase.DOWNLOADING: "downloading", Phase.EXTRACTING: "extracting"}


def pulled_text(pulls: Pulls, image: str, pulled: Pulled) -> str:
    """How a pull ended, in a line; its bytes are those that came over the network."""
    if not pulled.new:
        return f"{image} is up to date"
    count = pulls.fetched(image)
    if count:
        came = f"{size_text(count)}, {size_text(count / max(pulled.seconds, 0.001))}/s"
    elif pulls.all_here_before(image):
        came = "its layers were here"
    else:
        came = (
            "its layers came with another image" if len(pulls.images) > 1 else "only small layers"
        )
    return f"pulled {image} in {duration_text(pulled.seconds)} ({came})"


def pulling_text(image: str, source: str) -> str:
    """The line for a pull that begins, with its registry if the image's name says another."""
    return f"pulling {image}" + (f" from {source.partition('/')[0]}" if source != image else "")


def state_text(whole: Whole) -> str:
    """How far pulls are, in a few words."""
    unpacked = f", {size_text(whole.extracted)} of it extracted" if whole.extracts else ""
    got = parts_text(whole.done, whole.total, whole.all_known)
    return f"downloaded {got}{unpacked}"


class Canvas(msgspec.Struct, frozen=True):
    """The size of the terminal, and whether it shows ASCII only."""

    columns: int
    rows: int
    ascii: bool = False

    @property
    def bar(self) -> int:
        return max(8, min(40, self.columns - _BESIDE_BAR))


def frame(pulls: Pulls, rate: float, canvas: Canvas) -> list[str]:
    """The lines that show pulls: the images, the layers under way, and how far the whole is.

    Images and layers that do not fit are only counted; the whole comes last and always fits.
    """
    whole = pulls.whole()
    totals = _totals(pulls, whole, rate, canvas)
    room = max(2, canvas.rows - len(totals) - 1)
    titles = [_title(pulls, image, canvas) for image in pulls.images if image in pulls.under_way]
    if len(titles) > room:
        titles = [*titles[: room - 1], f"and {len(titles) - room + 1} more"]
    busy = [item for item in whole.layers.items() if item[1].phase in _WORDS and item[1].size]
    shown = busy[: room - len(titles)]
    layers = [_layer(name, layer, canvas) for name, layer in shown]
    lines = [*titles, *layers, _count(whole, len(busy) - len(shown)), *totals]
    return [_cut(line, canvas) for line in lines[-canvas.rows :]]


def _title(pulls: Pulls, image: str, canvas: Canvas) -> str:
    """An image's line; with how much of it is there, if several are pulled."""
    text = pulling_text(image, pulls.under_way[image])
    if len(pulls.images) == 1:
        return text
    own = Whole(pulls.images[image].layers)
    return _with_what_fits(text, [parts_text(own.done, own.total, own.all_known)], canvas)


def _layer(name: str, layer: Layer, canvas: Canvas) -> str:
    word = _WORDS[layer.phase]
    if layer.note.startswith("Retrying in "):
        word = f"retry in {layer.note.split()[2]} s"
    label = f"  {name[:12]} {word}"
    extracting = layer.phase == Phase.EXTRACTING
    done = layer.extracted if extracting else layer.done
    if not layer.total or (extracting and not done):  # how much there is in all is not known
        return f"{label:{_LABEL}}  {'':{canvas.bar}}  {size_text(layer.done)}"
    figures = parts_text(done, layer.total)
    return f"{label:{_LABEL}}  {_bar(done / layer.total, canvas)}  {figures}"


def _count(whole: Whole, hidden: int) -> str:
    """The line that counts the layers that have no line of their own."""
    layers = whole.layers.values()
    here = sum(layer.here_before for layer in layers)
    lost = sum(layer.lost for layer in layers)
    phases = [layer.phase for layer in layers]
    parts = {
        "more under way": hidden,
        "to come": phases.count(Phase.WAITING),
        "downloaded": phases.count(Phase.DOWNLOADED),
        "done": phases.count(Phase.DONE) - here - lost,
        "given up": lost,
        "here before": here,
    }
    told = ", ".join(f"{count} {words}" for words, count in parts.items() if count)
    head = f"  {counted(len(layers), 'layer')}"
    return f"{head}: {told}" if told else head


def _totals(pulls: Pulls, whole: Whole, rate: float, canvas: Canvas) -> list[str]:
    got = parts_text(whole.done, whole.total, whole.all_known)
    head = f"downloaded  {_percent(pulls.downloaded.value, canvas)}  {got}"
    left, pace = whole.total - whole.done, []
    if left or not whole.all_known:
        pace.append(f"{size_text(rate)}/s")
    if left and whole.all_known and rate >= 1:
        pace.append(f"{_clock(left / rate)} left")
    lines = [_with_what_fits(head, pace, canvas)]
    if whole.extracts:
        got = parts_text(whole.extracted, whole.total, whole.all_known)
        lines.append(f"extracted   {_percent(pulls.unpacked.value, canvas)}  {got}")
    return lines


def _with_what_fits(line: str, parts: list[str], canvas: Canvas) -> str:
    for part in parts:
        line += f"  {part}" if len(line) + 2 + len(part) < canvas.columns else ""
    return line


def _percent(share: float, canvas: Canvas) -> str:
    return f"{_bar(share, canvas)} {int(share * 100 + 1e-9):3} %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(share: float, canvas: Canvas) -> str:
    full, rest = ("#", ".") if canvas.ascii else ("━", "─")
    filled = int(min(1.0, share) * canvas.bar)
    return full * filled + rest * (canvas.bar - filled)


def _cut(line: str, canvas: Canvas) -> str:
    """A line cut to the canvas's width less one: in the last column terminals begin a new line."""
    wide = canvas.columns - 1
    return line if len(line) <= wide else f"{line[: max(0, wide - 3)]}..."[:wide]
