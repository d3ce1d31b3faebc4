"""One worker's look at one cluster, shared by all its jobs there.

AiiDA's own list of jobs asks Slurm again when an interval (10 s by default) has passed, so whoever has ended waits for
it. Here the jobs themselves say that there is something to see: their hints are listed (`listening.py`), and Slurm is
asked when there is news, about all jobs at once. What no job can tell (a pending job that is cancelled, a node that
fails) is found by asking at intervals: a tenth of the time since the last change, so young jobs are looked at often and
old ones seldom, but never more rarely than the computer's interval says.

While jobs are under way the transport stays open, which over SSH spares each of its users the wait for a new
connection. Every command is about many jobs: there are no more of them when there are more jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from aiida_byoc.calculations.listening import Listener, Post, Sight, in_parts
from aiida_byoc.schedulers.witnesses import Evidence, evidence, look_command

__all__ = ["Lookout", "lookout"]

_LOGGER = logging.getLogger(__name__)
_LISTING_SECONDS = 0.2
"""Between two listings of the news, on this machine."""
_LISTINGS_PER_OPENING = 15
"""Elsewhere: so many in the time that the transport keeps between two openings (`safe_interval`: one a second)."""
_SHORTEST_SECONDS = 0.5
"""Between two questions to Slurm that no news asked for."""
_LEAST_SECONDS = 0.1
"""Also where the computer's interval is shorter."""
_BUSY = 0.02
"""So much of the time Slurm may be busy with them: a controller that is slow is asked more rarely."""
_GATHER_SECONDS = 0.02
"""Who asks for something that soon after another shares its command."""
_OPEN_SECONDS = 3600.0
"""Then the transport is opened anew: certificates expire, login nodes change."""

_LOOKOUTS: WeakKeyDictionary[Any, dict[int, Lookout]] = WeakKeyDictionary()


def lookout(job_manager: Any, transports: Any, authinfo: Any) -> Lookout:
    """The lookout on a cluster of a worker, which has one job manager."""
    of_worker = _LOOKOUTS.setdefault(job_manager, {})
    if authinfo.pk not in of_worker:
        of_worker[authinfo.pk] = Lookout(transports, authinfo)
    return of_worker[authinfo.pk]


class Lookout:
    """Looks as long as anybody has a post, and lets each know what is seen of its job.

    Args:
        transports: AiiDA's queue of transports.
        authinfo: which cluster, and as whom.
    """

    def __init__(self, transports: Any, authinfo: Any) -> None:
        self._transports = transports
        self._authinfo = authinfo
        self._posts: dict[str, Post] = {}
        self._over: list[Post] = []
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._asked = self._took = self._interval = 0.0

    @contextlib.contextmanager
    def post(self, name: str, directory: str) -> Iterator[Post]:
        """Take up a post for a job, by its name and directory."""
        post = Post(name, directory)
        self._posts[name] = post
        try:
            yield post
        finally:
            post.close()
            if self._posts.get(name) is post:
                del self._posts[name]
            if post.is_over:
                self._over.append(post)
                self._stir()

    def sight(self, post: Post, job_id: str) -> asyncio.Future[Sight]:
        """What is seen of the job next; fails when the cluster cannot be asked."""
        post.job_id = job_id
        post.sight = self._future(post.sight)
        return post.sight

    def evidence(self, post: Post) -> asyncio.Future[Evidence]:
        """What the witnesses say of the job when asked now; fails when they cannot be asked."""
        post.evidence = self._future(post.evidence)
        return post.evidence

    def _future(self, before: asyncio.Future[Any] | None) -> asyncio.Future[Any]:
        self._stir()
        if before is not None and not before.done():
            return before
        return asyncio.get_running_loop().create_future()

    def _stir(self) -> None:
        self._stirred.set()
        if self._task is None or self._task.done():
            # In a context of its own: a process's would keep that process in memory.
            loop = asyncio.get_running_loop()
            self._task = contextvars.Context().run(loop.create_task, self._work())

    async def _work(self) -> None:
        while self._posts or self._over:
            try:
                async with self._transports.request_transport(self._authinfo) as request:
                    await self._look_about(await request)
            except Exception as error:
                _LOGGER.info("Cannot look event=lookout_failed error=%s", error)
                self._over.clear()
                for post in self._posts.values():
                    for waiting in (post.sight, post.evidence):
                        if waiting is not None and not waiting.done():
                            waiting.set_exception(error)
                return  # whoever wants to see more, after a pause of its own, starts anew

    async def _look_about(self, transport: Any) -> None:
        listener = Listener(transport)
        per_opening = transport.get_safe_open_interval() / _LISTINGS_PER_OPENING
        listing_seconds = max(_LISTING_SECONDS, per_opening)
        until = time.monotonic() + _OPEN_SECONDS
        listing = 0.0
        while (self._posts or self._over) and time.monotonic() < until:
            self._stirred.clear()
            await self._hear_witnesses(transport)
            over, self._over = self._over, []
            await listener.forget(over)
            has_news = False
            if time.monotonic() >= listing:
                has_news = await listener.listen(self._posts)
                listing = time.monotonic() + listing_seconds
            if has_news or time.monotonic() >= self._due():
                self._ask(transport)
            self._show_progress()
            await self._rest(min(listing, self._due()))

    def _waiting(self) -> list[Post]:
        return [each for each in self._posts.values() if each.sight and not each.sight.done()]

    def _due(self) -> float:
        """When to ask Slurm without news."""
        waiting = self._waiting()
        if not waiting:
            return float("inf")
        age = time.monotonic() - max(post.changed for post in waiting)
        pause = max(age / 10, _SHORTEST_SECONDS, self._took / _BUSY)
        return self._asked + min(pause, max(self._interval, _LEAST_SECONDS))

    def _ask(self, transport: Any) -> None:
        """Ask Slurm's queue once about all jobs that somebody waits for."""
        waiting = self._waiting()
        if not waiting:
            return
        computer = self._authinfo.computer
        self._interval = computer.get_minimum_job_poll_interval()
        scheduler = computer.get_scheduler()
        scheduler.set_transport(transport)
        self._asked = time.monotonic()
        jobs = scheduler.get_jobs(jobs=[post.job_id for post in waiting], as_dict=True)
        now = time.monotonic()
        self._took = now - self._asked
        for post in waiting:
            info = jobs.get(post.job_id)
            state = info.job_state if info is not None else None
            if state is not post.state:
                post.state, post.changed = state, now
            post.show(Sight(asked=True, info=info))

    async def _hear_witnesses(self, transport: Any) -> None:
        """Ask all witnesses of the jobs of which somebody wants to know now."""
        posts = [
            each for each in self._posts.values() if each.evidence and not each.evidence.done()
        ]
        for some in in_parts(posts):
            command = look_command({post.name: post.directory for post in some})
            _, output, _ = await transport.exec_command_wait_async(command)
            seen = evidence(str(output))
            for post in some:
                if post.evidence is not None and not post.evidence.done():
                    post.evidence.set_result(seen[post.name])

    def _show_progress(self) -> None:
        for post in self._waiting():
            if post.has_new_progress:
                post.show(Sight(asked=False))

    async def _rest(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(until - time.monotonic(), 0.0)):
                await self._stirred.wait()
                await asyncio.sleep(_GATHER_SECONDS)
