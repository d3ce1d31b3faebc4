"""What a worker hears of its jobs between two questions to Slurm: their hints and their progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiida.schedulers.datastructures import JobInfo, JobState

from aiida_byoc.contracts.progress import Progress
from aiida_byoc.schedulers import news
from aiida_byoc.schedulers.witnesses import Evidence

__all__ = ["Listener", "Post", "Sight", "in_parts"]

_LOGGER = logging.getLogger(__name__)
_DEAF_SECONDS = 30.0
"""A directory that cannot be made or listed is left alone that long; Slurm is asked at intervals meanwhile."""
_MOST_AT_ONCE = 100
"""Jobs in one command that names each: a command line may have 128 KiB."""

T = TypeVar("T")


@dataclass(frozen=True)
class Sight:
    """What was seen of a job.

    Attributes:
        asked: whether Slurm was asked; otherwise there is new progress.
        info: what its queue says; `None` when it does not know the job.
    """

    asked: bool
    info: JobInfo | None = None


@dataclass(eq=False)
class Post:
    """Where the watch over one job waits for what is seen of it.

    Attributes:
        directory: the job's.
        place: where it leaves its news.
        progress: the newest report of the job's program.
        job_id: as AiiDA stores it.
        state: Slurm's, when last asked.
        changed: when that changed, or news said that it would (monotonic).
        is_over: whether the watch has seen the job's end.
    """

    name: str
    directory: str
    progress: Progress | None = None
    has_new_progress: bool = False
    job_id: str = ""
    state: JobState | None = None
    changed: float = field(default_factory=time.monotonic)
    is_over: bool = False
    sight: asyncio.Future[Sight] | None = None
    evidence: asyncio.Future[Evidence] | None = None
    _heard: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.place = news.directory_of(self.directory)

    def hear(self, words: frozenset[str]) -> tuple[bool, str | None]:
        """Return whether there are news that Slurm should confirm, and the newest report that was not read."""
        fresh, self._heard = words - self._heard, words
        report = news.newest_report(fresh)
        is_news = any(not news.is_report(word) for word in fresh)
        if is_news:
            self.changed = time.monotonic()
        return is_news, report

    def show(self, sight: Sight) -> None:
        """Let whoever waits know, of progress as well."""
        self.has_new_progress = False
        if self.sight is not None:
            self.sight.set_result(sight)

    def close(self) -> None:
        """Nobody waits here any more."""
        for waiting in (self.sight, self.evidence):
            if waiting is not None and not waiting.cancel() and not waiting.cancelled():
                waiting.exception()  # seen, as far as asyncio is concerned


class Listener:
    """Hears over one open transport.

    Args:
        transport: AiiDA's, open.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._open: set[str] = set()
        self._deaf_until: dict[str, float] = {}

    async def listen(self, posts: Mapping[str, Post]) -> bool:
        """List the news of all jobs, read new reports; return whether Slurm should be asked."""
        has_news = False
        for place in {post.place for post in posts.values()}:
            if time.monotonic() < self._deaf_until.get(place, 0.0):
                continue
            try:
                reports = {}
                for name, words in (await self._listed(place)).items():
                    if name in posts:
                        is_news, report = posts[name].hear(words)
                        has_news = has_news or is_news
                        if report is not None:
                            reports[name] = report
                await self._read(place, posts, reports)
            except Exception as error:
                # Of whatever kind, by the transport's taste. If the connection is gone, Slurm's silence will tell.
                _LOGGER.info("No news event=news_unheard place=%s error=%s", place, error)
                self._open.discard(place)
                self._deaf_until[place] = time.monotonic() + _DEAF_SECONDS
        return has_news

    async def forget(self, over: Iterable[Post]) -> None:
        """Take away what jobs said that have ended."""
        for place in {post.place for post in over} & self._open:
            for some in in_parts(post.name for post in over if post.place == place):
                await self._transport.exec_command_wait_async(news.forget_command(place, some))

    async def _listed(self, place: str) -> dict[str, frozenset[str]]:
        if place not in self._open:
            command = news.open_command(place)
            status, _, stderr = await self._transport.exec_command_wait_async(command)
            if status != 0:
                raise OSError(str(stderr).strip())
            self._open.add(place)
        return news.heard(await self._transport.listdir_async(place))

    async def _read(
        self, place: str, posts: Mapping[str, Post], reports: Mapping[str, str]
    ) -> None:
        for names in in_parts(reports):
            entries = [f"{name}.{reports[name]}" for name in names]
            _, output, _ = await self._transport.exec_command_wait_async(
                news.read_command(place, entries)
            )
            for name, progress in news.reports(str(output)).items():
                if name in posts:
                    posts[name].progress = progress
                    posts[name].has_new_progress = True


def in_parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into lists that one command line can name."""
    rest = list(items)
    while rest:
        yield rest[:_MOST_AT_ONCE]
        rest = rest[_MOST_AT_ONCE:]
