"""Pulls images, several at once, from the registry that a profile names or from their own.

Says why one cannot be had. The engine does the pulling; what the person sees is the caller's
screen, which this module does not know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Protocol

import msgspec
from msgspec.structs import replace

from gpubox import values
from gpubox.checks import of_deletion
from gpubox.engine import faults
from gpubox.engine.engine import Engine, connect
from gpubox.engine.faults import EngineSaid
from gpubox.engine.images import LocalImage
from gpubox.errors import EngineError, GpuboxError
from gpubox.images.progress import Begun, Event, News, Pulled, Warned

_MOMENT = 0.1  # seconds without news, after which the screen gets a turn to move

Said = Event | Begun | Warned | Pulled


class Screen(Protocol):
    """What pulls tell the person while they go on."""

    def pulling(self, images: Sequence[str], news: Iterator[News]) -> None: ...


class Order(msgspec.Struct, frozen=True):
    """An image that is wanted; `source` is the name by which it is pulled."""

    image: str
    source: str


def get(engine: Engine, image: str, registry: str | None, screen: Screen) -> None:
    """Pull an image, through the `registry` where there is one; then it has its plain name."""
    with _Pulls(engine, [order(image, registry)]) as pulls:
        screen.pulling([image], _or_raised(pulls.news()))


def get_all(engine: Engine, orders: Sequence[Order], screen: Screen) -> list[str]:
    """Pull all at once; returns the images that came. The screen is told why others did not."""
    with _Pulls(engine, orders) as pulls:
        screen.pulling([order.image for order in orders], pulls.news())
    return pulls.here


def distinct(images: Iterable[str]) -> list[str]:
    """The images, each once even if it is named twice in different spellings."""
    by_reference: dict[str, str] = {}
    for image in images:
        by_reference.setdefault(str(values.reference(image)), image)
    return list(by_reference.values())


def order(image: str, registry: str | None) -> Order:
    """How to pull an image: through the `registry` if it is Docker Hub's, else directly."""
    reference = values.reference(image)
    if not registry or reference.registry:
        return Order(image, image)
    repository = reference.repository
    path = repository if "/" in repository else f"library/{repository}"
    source = str(replace(reference, registry=registry, repository=path))
    if str(values.reference(source)) == str(reference):
        return Order(image, image)
    if reference.digest:
        raise EngineError(
            f"{image} cannot come through {registry}: no engine gives another name to a digest",
            f"name it with its registry: {source}",
        )
    return Order(image, source)


def _explained(refusal: EngineSaid, image: str) -> EngineError:
    """The engine's refusal; if the image was deleted from the Hub, an error that says so."""
    absent = faults.is_image_absent(refusal.text) or faults.is_image_denied(refusal.text)
    gone = of_deletion(image) if absent else None
    return EngineError(gone.evidence, gone.fix) if gone else refusal


def missing(image: str) -> EngineError:
    return EngineError(f"no image {image} on the engine", f"gpubox pull {image}")


# --- at once


class _Pulls:
    """Pulls each order in a thread, on a connection of its own.

    Leaving early, by Ctrl-C, first lets a thread finish renaming its image, so that none stays
    with the registry's name; the engine gives up the other pulls when this process ends.
    """

    def __init__(self, engine: Engine, orders: Sequence[Order]) -> None:
        self.here: list[str] = []
        self._endpoint, self._orders = engine.endpoint, orders
        self._inbox: SimpleQueue[tuple[str, Said | BaseException]] = SimpleQueue()
        self._naming = Lock()

    def __enter__(self) -> _Pulls:
        for each in self._orders:
            Thread(target=self._work, args=(each,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._naming.acquire()  # never released: from now on no thread begins to rename an image

    def news(self) -> Iterator[News]:
        """What the threads tell, until all have ended; several that warn of the same do it once."""
        running, warned = len(self._orders), set[Warned]()
        while running:
            try:
                image, said = self._inbox.get(timeout=_MOMENT)
            except Empty:
                yield None
                continue
            if isinstance(said, Warned):
                if said in warned:
                    continue
                warned.add(said)
            if isinstance(said, Pulled):
                self.here.append(image)
            elif isinstance(said, BaseException) and not isinstance(said, GpuboxError):
                raise said
            if isinstance(said, Pulled | GpuboxError):
                running -= 1
            yield image, said

    def _work(self, order: Order) -> None:
        said: Pulled | BaseException
        try:
            said = self._pull(order, partial(self._tell, order.image))
        except BaseException as error:  # `news` raises it in the main thread, where it is seen
            said = error
        self._inbox.put((order.image, said))

    def _tell(self, image: str, said: Said) -> None:
        self._inbox.put((image, said))

    def _pull(self, order: Order, tell: Callable[[Said], None]) -> Pulled:
        engine = connect(self._endpoint)
        before, there = _id(engine, order.image), engine.image(order.source)
        wanted = {str(values.reference(each.image)) for each in self._orders}
        keep = order.source in wanted or there is not None
        started = time.monotonic()
        events = _events(engine, order, there, lambda sentence: tell(Warned(sentence)))
        tell(Begun(order.source))
        try:
            for event in events:
                tell(event)
        except EngineSaid as refusal:
            # it failed, unless another gpubox pulled and renamed the same image in the meantime
            if _id(engine, order.image) in (None, before):
                raise _explained(refusal, order.image) from refusal
        if order.source != order.image:
            with self._naming:
                engine.name_image(order.source, order.image, keep=keep)
        seconds = time.monotonic() - started
        return Pulled(seconds, new=_id(engine, order.image) != before)


def _id(engine: Engine, image: str) -> str | None:
    here = engine.image(image)
    return here.id if here else None


def _events(
    engine: Engine, order: Order, there: LocalImage | None, warn: Callable[[str], None]
) -> Iterator[Event]:
    """The events of a pull; none if what is `there` by the registry's name is up to date.

    The name may be another gpubox's, which removes it at any moment: a pull would set it again, and
    nobody would know that it was not there before.
    """
    if there and order.source != order.image and engine.is_current(order.source, there, warn):
        return iter(())
    return engine.pull(order.source, warn)


def _or_raised(news: Iterator[News]) -> Iterator[News]:
    for item in news:
        if item and isinstance(item[1], GpuboxError):
            raise item[1]
        yield item
