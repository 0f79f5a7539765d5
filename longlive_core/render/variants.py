"""Several films of one script whose seeds follow one another, sampled together where the memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ..film.block_store import MemoryStore
from ..film.film_batch import FilmBatch
from ..mini import Mini
from ..parallel import Leader
from ..take.take import check_no_retakes
from .job import Job
from .prepare_take import take_folder
from .settings import RenderSettings
from .write_film import Progress


class Variants:
    """The jobs of several films, which are run one after the other.

        variants = Variants(variants_of(settings, 4))
        with variants:
            for job in variants.jobs:
                job.run()

    The run of a job samples for later ones too, up to `at_once` in all, whose blocks are stored at the same time: after
    a stop the takes of all of them can be resumed. A later job then only decodes and writes. `notes` are messages to
    show before the first run. Leaving the `with` block closes the jobs that were not run.
    """

    def __init__(
        self,
        films: Sequence[RenderSettings],
        *,
        mini: Mini | None = None,
        storyboard: bool = False,
        leader: Leader | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """films: settings that differ in seed and files only. The other arguments are those of `Job`.

        Raises ValueError and OSError as `Job` does, and FileExistsError for a take with retakes in the place of a new
        one; nothing is sampled then.
        """
        for settings in films:
            if settings.take and settings.resume is None:
                check_no_retakes(take_folder(settings))
        hooks: dict[str, Any] = {"on_progress": on_progress, "on_note": on_note, "should_stop": should_stop}
        jobs = list[Job]()
        with ExitStack() as stack:
            for settings in films:
                like = jobs[0] if jobs else None
                jobs.append(Job(settings, mini=mini, like=like, storyboard=storyboard, leader=leader, **hooks))
                stack.callback(jobs[-1].close)
            first = jobs[0]
            planned = first.loaded.at_once(len(jobs), len(first.plan.blocks))
            self.batch = FilmBatch(first.loaded.start, planned.fits, on_note)
            for job in jobs:
                if job.take is None:
                    # Without a take the blocks of a later film wait in host memory for its run.
                    job.film.store = MemoryStore()
                self.batch.add(job.film, job.loaded.sampler.noise_source)
            self._exit_stack = stack.pop_all()
        self.jobs: tuple[Job, ...] = tuple(jobs)
        self.notes = (*first.notes, planned.text)

    def __enter__(self) -> Variants:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit_stack.close()
