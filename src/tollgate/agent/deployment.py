"""One deployment on its host: sees how it is, asks the phases what comes next, and does it."""

import asyncio
import contextlib
import math
import shutil
from collections.abc import Callable
from typing import Any, Final

from tollgate.agent import phases
from tollgate.agent.claims import NOTHING, Claim, Refusal
from tollgate.agent.data_directory import boot_id
from tollgate.agent.engine_logs import EngineLogs
from tollgate.agent.engine_process import Look
from tollgate.agent.model_files import ModelFiles
from tollgate.agent.phase_changes import PhaseChanges
from tollgate.agent.phases import Move, Phase, Seen
from tollgate.agent.run import Launch, NotRecorded, NotStartable, Run, adopted
from tollgate.agent.schemas import Desired
from tollgate.agent.setup import Setup
from tollgate.agent.traffic import Traffic
from tollgate.core.redaction import Redactor
from tollgate.engines import diagnosis
from tollgate.engines.diagnosis import Diagnosis
from tollgate.engines.facts import Facts
from tollgate.engines.schemas import HubSource
from tollgate.process import logs

SCRAPE_SECONDS: Final = 2.0
LOG_SECONDS: Final = 5.0
NO_SUCH_PROGRAM: Final = frozenset({125, 126, 127})
"""Exit codes of a shell and of a container client that could not start the engine."""
NOTHING_LEFT: Final = Look(leads=False, left=False, exit_code=None)
ON_DEMAND: Final = {"unwanted": "idle", "wanted": "on demand", "wanted again": "on demand"}
"""Why the phase of a model changes that no operator started or stopped."""

AskClaim = Callable[["Deployment", Facts | None], Claim | Refusal]

log = logs.source("application")


class Deployment:
    def __init__(self, setup: Setup, id_: str, ask_claim: AskClaim) -> None:
        self.id = id_
        self._setup = setup
        self._clock = setup.clock
        self._ask_claim = ask_claim
        self._folder = setup.directory.path / "engines" / id_
        self._launch = Launch(setup, id_, self._folder)
        self.logs = EngineLogs(self._folder / "logs")
        self.files = ModelFiles(setup, id_)
        self.traffic = Traffic(setup.clock)
        self.changes = PhaseChanges(setup.clock)
        self.desired: Desired | None = None
        self.host_is_active = True
        self.demanded = False
        """An on-demand model has a request, or has not yet been idle for long."""
        self.phase: Phase = "stopped"
        self.since = self._clock()
        self.generation: int | None = None
        """Of the last start, or of the last failure."""
        self.run: Run | None = None
        self.claim: Claim | None = None
        self.failures = 0
        self.retry_at = 0.0
        self.retryable = True
        self.detail: str | None = None
        self.diagnosis: Diagnosis | None = None
        self.load_seconds: float | None = None
        self.measured: dict[str, Any] | None = None
        self.failure_number = 0
        self.told_failure = 0
        """The last failure that the control plane knows."""
        self.offered_failure = 0
        self._settled = asyncio.Event()
        self._begun_at = 0.0
        self._ready: asyncio.Task[None] | None = None
        self._scrape: asyncio.Task[None] | None = None
        self._scraped_at = 0.0
        self._log_read_at = 0.0
        self._terminated_at: float | None = None
        self._killed_at: float | None = None
        self._ended_at: float | None = None
        self._progress_at = self._clock()
        self._progress: Any = None

    # What is wanted

    def want(self, desired: Desired | None, host_is_active: bool) -> None:
        if desired and self.desired and desired.spec.source != self.desired.spec.source:
            self.files.forget()
        self.desired, self.host_is_active = desired, host_is_active
        if desired is None or desired.wanted != "on_demand":
            self.demanded = False

    @property
    def is_kept(self) -> bool:
        return self.host_is_active and self.desired is not None and self.desired.wanted != "stopped"

    @property
    def is_wanted(self) -> bool:
        """To run now."""
        if not self.is_kept or self.desired is None:
            return False
        return self.desired.wanted == "running" or self.demanded

    @property
    def is_ready(self) -> bool:
        """It answers, now or on demand."""
        if self.phase == "running":
            return True
        on_demand = self.is_kept and self.desired is not None and self.desired.wanted == "on_demand"
        return on_demand and self.phase not in {"failed", "downloading"} and (self.files.state == "verified")

    @property
    def is_evictable(self) -> bool:
        """An idle on-demand model may make room, but not a fresh one before its first request."""
        if self.desired is None or self.desired.wanted != "on_demand" or self.phase != "running":
            return False
        return self.traffic.is_idle and self._clock() - self.since >= self.desired.minimum_stay_seconds

    @property
    def is_gone(self) -> bool:
        """Nothing wants it, and nothing of it is left."""
        return self.desired is None and self.phase == "stopped" and self.run is None

    @property
    def in_transition(self) -> bool:
        return self.phase in phases.IN_TRANSITION or (self.is_wanted and self.phase == "stopped")

    async def running_or_failed(self) -> None:
        """Waits until it runs, or until it is plain that it will not."""
        await self._settled.wait()

    # One round

    async def round(self) -> None:
        """Sees, moves by one phase at most, and does what the phase needs."""
        self._unload_if_idle()
        if self.desired and self.is_kept and self.phase in {"stopped", "downloading", "failed", "unknown"}:
            await self.files.examine(self.desired.spec)
        closely = self.phase in {"stopped", "stopping", "failed"}
        look = await self.run.engine.look(closely) if self.run else NOTHING_LEFT
        if self.run and not look.left and self._ended_at is None:
            self._ended_at = self._clock()
        moved = phases.move(self.phase, self._see(look, closely))
        if moved:
            await self._enter(moved, look)
        else:
            await self._continue(look)

    def _unload_if_idle(self) -> None:
        desired, now = self.desired, self._clock()
        if not self.demanded or desired is None or desired.idle_seconds is None or self.phase != "running":
            return
        idle = now - max(self.traffic.used_at, self.since)
        if self.traffic.is_idle and idle >= desired.idle_seconds and now - self.since >= desired.minimum_stay_seconds:
            self.demanded = False

    def _see(self, look: Look, closely: bool) -> Seen:
        now = self._clock()
        there = look.left if closely else look.leads
        changed = self.desired is not None and self.generation not in {None, self.desired.generation}
        retry_in = self.retry_at - now
        answered = self.run is not None and self.run.answered
        return Seen(
            wanted=self.is_wanted,
            kept=self.is_kept,
            changed=changed,
            files=self.files.state,
            claimed=self._is_claimed(changed, retry_in),
            process="alive" if there else "ended" if self.run else "none",
            printed=answered or self.logs.size() > 0,
            answered=answered,
            in_phase=now - self.since,
            without_progress=now - self._progressed(now),
            silent=now - self._progressed(now) if self._counts_tokens else 0.0,
            in_flight=self.traffic.in_flight,
            drain_seconds=self.desired.drain_seconds if self.desired else 0.0,
            since_kill=None if self._killed_at is None else now - self._killed_at,
            memory_is_back=self._setup.has_free_memory(self.claim),
            since_end=0.0 if self._ended_at is None else now - self._ended_at,
            retryable=self.retryable,
            retry_in=retry_in,
        )

    def _is_claimed(self, changed: bool, retry_in: float) -> bool:
        """Asks only when all else is there, so that what is granted is used at once."""
        if self.phase not in {"stopped", "downloading", "failed"} or self.run is not None:
            return False
        may_start = self.phase != "failed" or changed or (self.retryable and retry_in <= 0)
        if not (may_start and self.is_wanted and self.files.state == "verified"):
            return False
        answer = self._ask_claim(self, self.files.facts)
        if isinstance(answer, Refusal):
            self.detail = f"The model {answer.why}." if answer.for_memory else answer.why
            return False
        self.claim = answer
        return True

    @property
    def _counts_tokens(self) -> bool:
        return self.phase == "running" and self.run is not None and self.run.metrics.tokens is not None

    def _progressed(self, now: float) -> float:
        """When the engine last did something: printed, while it loads; produced a token, or had nothing to do, while it
        runs."""
        if self.phase != "running" or self.run is None:
            progress: Any = (self.phase, self.logs.size())
        elif not self.traffic.in_flight and not self.run.metrics.requests_running:
            progress = now
        else:
            progress = (self.run.metrics.tokens, self.traffic.passed_at)
        if progress != self._progress:
            self._progress, self._progress_at = progress, now
        return self._progress_at

    # What a phase begins with

    async def _enter(self, move: Move, look: Look) -> None:
        log.info("phase", deployment=self.id, before=self.phase, after=move.to, why=move.why)
        before, self.phase = self.phase, move.to
        self.since = self._clock()
        if move.to in {"running", "failed"}:
            self._settled.set()
        else:
            self._settled.clear()
        match move.to:
            case "downloading":
                self.detail = None
                self.files.failure = None
            case "starting":
                self._start()
            case "running":
                self._run(before)
            case "stopping":
                await self._stop()
            case "failed":
                await self._fail(move, look)
            case "stopped":
                await self._stopped(move)
            case _:
                pass
        self.changes.note(before, move.to, self._why(move))
        await self._continue(look)

    def _why(self, move: Move) -> str:
        """Of a failure, with what is known of it; of others, whether an operator or a call is the cause."""
        if move.to == "failed" and self.detail:
            return f"{move.why}: {self.detail}"
        if move.why == "unwanted" and not self.host_is_active:
            return "the host takes no calls"
        if self.desired is not None and self.desired.wanted == "on_demand":
            return ON_DEMAND.get(move.why, move.why)
        return move.why

    def _start(self) -> None:
        desired, path = self.desired, self.files.path
        assert desired  # noqa: S101
        assert path  # noqa: S101
        self._forget_run()
        self.detail = self.diagnosis = self.measured = None
        self.generation = desired.generation
        self._begun_at = self._clock()
        claim = self.claim or NOTHING
        try:
            file = self.logs.begin()
            self.run = self._launch.begin(
                desired.spec, desired.generation, claim, path, self.files.facts, file, keep=self._keep
            )
        except NotStartable as error:
            self._note_failure(str(error), retryable=False)
        except (NotRecorded, OSError) as error:
            self._note_failure(str(error), retryable=True)

    def _run(self, before: Phase) -> None:
        self._end_tasks()
        if before != "draining":
            self.traffic.used_at = self._clock()
            if self.run and not self.run.is_adopted:
                self.load_seconds = self._clock() - self._begun_at
            self.measured = diagnosis.summary(self.logs.text(self.redactor())) or None
        if self.claim:
            self.claim = Claim(self.claim.gpus, self.claim.bytes_of_each, starts=False)
        self.detail = None
        self._try_to_keep()

    async def _stop(self) -> None:
        self._end_tasks()
        self._terminated_at = self._clock()
        if self.run:
            await self.run.engine.terminate()

    async def _fail(self, move: Move, look: Look) -> None:
        self._end_tasks()
        if self.run:
            await self.run.engine.refresh_log()
            self._diagnose(move, look.exit_code)
            await self.run.engine.kill()
            self._killed_at = self._clock()
        else:
            self.claim = None
            if self.files.failure and move.why == "files":
                self.generation = self.desired.generation if self.desired else None
                self._note_failure(self.files.failure.message, self.files.failure.retryable)
        self._count_failure()
        self._try_to_keep()

    def _diagnose(self, move: Move, exit_code: int | None) -> None:
        self.diagnosis = diagnosis.diagnose(self.logs.text(self.redactor()), exit_code)
        ended = move.why == "exit"
        could_not_start = ended and exit_code in NO_SUCH_PROGRAM
        detail = f"The engine ended with exit code {exit_code}." if ended and exit_code is not None else _SAID[move.why]
        if move.why == "load deadline" and self.run and self.run.last_refusal:
            detail = f"{detail} {self.run.last_refusal}"
        retryable = self.diagnosis.retryable if self.diagnosis and ended else not could_not_start
        self._note_failure(self.diagnosis.message if self.diagnosis else detail, retryable)

    def _note_failure(self, detail: str, retryable: bool) -> None:
        self.detail, self.retryable = detail, retryable

    def _count_failure(self) -> None:
        ran_seconds = self._clock() - self._begun_at
        settled = self.run is not None and self.run.answered and ran_seconds > phases.SETTLED_SECONDS
        self.failures = 1 if settled else self.failures + 1
        self.retry_at = self._clock() + phases.retry_seconds(self.failures)
        self.failure_number += 1
        log.warning("deployment_failed", deployment=self.id, detail=self.detail, failures=self.failures)

    async def _stopped(self, move: Move) -> None:
        await self._finish_run()
        if move.why != "on demand":
            self.failures, self.retryable, self.retry_at = 0, True, 0.0
        self.generation = None
        self.detail = self.diagnosis = None
        if not self.is_kept:
            await self.files.cancel()
        self._try_to_keep()

    # What a phase does as long as it lasts

    async def _continue(self, look: Look) -> None:
        match self.phase:
            case "downloading":
                if self.desired and self.files.state == "unverified":
                    await self.files.fetch(self.desired.spec)
            case "starting":
                self._await_answer()
                if self.run and not self.logs.size():
                    await self.run.engine.refresh_log()
            case "unknown" | "loading":
                self._await_answer()
                await self._read_log()
            case "running":
                self._watch()
            case "stopping":
                await self._insist(look)
            case "failed":
                await self._clear_away(look)
            case _:
                pass

    def _await_answer(self) -> None:
        if self.run and self._ready is None:
            self._ready = asyncio.create_task(self.run.become_ready())

    async def _read_log(self) -> None:
        """Of a container, whose log is not written by itself: that it grows is progress."""
        now = self._clock()
        if self.run and now - self._log_read_at >= LOG_SECONDS:
            self._log_read_at = now
            await self.run.engine.refresh_log()

    def _watch(self) -> None:
        now = self._clock()
        if self.run and now - self._scraped_at >= SCRAPE_SECONDS and (self._scrape is None or self._scrape.done()):
            self._scraped_at = now
            self._scrape = asyncio.create_task(self.run.scrape())
            with contextlib.suppress(OSError):
                self.logs.bound()

    async def _insist(self, look: Look) -> None:
        """SIGKILL for all of the session, when SIGTERM was not enough."""
        if not self.run or not look.left or self._terminated_at is None:
            return
        if not look.leads or self._clock() - self._terminated_at > phases.KILL_SECONDS:
            self._killed_at = self._killed_at or self._clock()
            await self.run.engine.kill()

    async def _clear_away(self, look: Look) -> None:
        if not self.run:
            return
        if look.left:
            await self.run.engine.kill()
        else:
            await self._finish_run()
            self._try_to_keep()

    async def _finish_run(self) -> None:
        if self.run:
            await self.run.close()
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.logs.finish, self.redactor())
        self._forget_run()
        self.claim = None

    def _forget_run(self) -> None:
        self._end_tasks()
        self.run = None
        self._terminated_at = self._killed_at = self._ended_at = None
        self._progress = None

    def _end_tasks(self) -> None:
        for task in (self._ready, self._scrape):
            if task:
                task.cancel()
        self._ready = self._scrape = None

    def redactor(self) -> Redactor:
        return self._setup.redactor(*([self.run.secret] if self.run else []))

    # The record on disk

    def restore(self) -> None:
        """After a start of the agent: what runs is adopted, and a back-off goes on. After a boot nothing runs."""
        record = self._setup.directory.read(self._record_name)
        if not record:
            return
        self.load_seconds = record["load_seconds"]
        if record["boot"] != boot_id():
            return
        self.generation = record["generation"]
        self.failures, self.retry_at, self.retryable = record["failures"], record["retry_at"], record["retryable"]
        self.detail = record["detail"]
        self._begun_at = record["begun_at"]
        if record["run"] and (run := adopted(record["run"], self._setup.containers)):
            self.run, self.claim = run, run.claim
            self.phase = "unknown"
        elif record["failed"]:
            self.phase = "failed"

    def _keep(self, run: Run) -> None:
        self.run = run
        try:
            self._write_record()
        except OSError:
            self.run = None
            raise

    def _try_to_keep(self) -> None:
        """A record that cannot be written now is behind by a phase, which an adoption finds out."""
        try:
            self._write_record()
        except OSError as error:
            log.error("state_not_written", deployment=self.id, error=error.strerror)

    def _write_record(self) -> None:
        record = {
            "boot": boot_id(),
            "generation": self.generation,
            "failed": self.phase == "failed",
            "failures": self.failures,
            "retry_at": self.retry_at,
            "retryable": self.retryable,
            "detail": self.detail,
            "load_seconds": self.load_seconds,
            "begun_at": self._begun_at,
            "run": self.run.record if self.run else None,
        }
        self._setup.directory.write(self._record_name, record)

    @property
    def _record_name(self) -> str:
        return f"engines/{self.id}/record.json"

    async def remove(self) -> None:
        """All that is kept of it, when nothing wants it."""
        await self.files.cancel()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def leave(self) -> None:
        """The agent ends, and the engine goes on."""
        self._end_tasks()
        await self.files.cancel()
        if self.run:
            self.run.engine.let_go()
            await self.run.client.close()

    # What is said of it

    def uses(self, source: HubSource) -> bool:
        return self.desired is not None and self.desired.spec.source == source and self.is_kept

    def last_lines(self, count: int) -> list[str]:
        return self.logs.lines(self.redactor(), count)

    def observation(self) -> dict[str, Any]:
        desired = self.desired
        progress = self.files.progress
        self.offered_failure = self.failure_number
        failed = self.phase == "failed"
        return {
            "deployment_id": self.id,
            "generation": self.generation if self.generation is not None else desired.generation if desired else 0,
            "phase": self.phase,
            "ready": self.is_ready,
            "failures": self.failures,
            "retry_in_seconds": max(round(self.retry_at - self._clock(), 1), 0) if failed and self.retryable else None,
            "detail": self.detail,
            "diagnosis": self.diagnosis.model_dump(mode="json") if self.diagnosis else None,
            "progress": vars_of(progress) if progress else None,
            "measured": self.measured,
            "facts": self.files.facts.model_dump(mode="json") if self.files.facts else None,
            "log_tail": self.logs.tail(self.redactor()) if self.failure_number != self.told_failure else None,
            "changes": self.changes.told(),
        }

    def acknowledge(self, observation: dict[str, Any]) -> None:
        """The control plane has it, with the log of a failure."""
        self.told_failure = self.offered_failure
        self.changes.acknowledge(observation)

    def metrics(self) -> dict[str, Any] | None:
        if self.phase not in {"running", "draining"} or self.run is None:
            return None
        said = self.run.metrics._asdict()
        whole = {name: int(value) for name, value in said.items() if value is not None and name != "cache_usage"}
        return {
            "deployment_id": self.id,
            **said,
            **whole,
            **self.traffic.percentiles(),
            "in_flight": self.traffic.in_flight,
        }

    def retry_after(self) -> int:
        """Seconds after which a refused request may succeed."""
        if self.phase == "failed":
            return max(math.ceil(self.retry_at - self._clock()), 1)
        expected = (self.load_seconds or 0) - (self._clock() - self._begun_at if self.phase == "loading" else 0)
        return max(math.ceil(expected), 1)


def vars_of(progress: Any) -> dict[str, Any]:
    told = ("file", "bytes_done", "bytes_total", "bytes_per_second", "seconds_left")
    return {name: getattr(progress, name) for name in told}


_SAID: Final = {
    "exit": "The engine ended, and its exit code is not known.",
    "start deadline": "The engine printed nothing for 60 seconds.",
    "load deadline": "The engine made no progress for 900 seconds.",
    "no token": "The engine had requests and produced no token for 120 seconds, so it was ended.",
    "survived SIGKILL": "The engine could not be ended. A device driver may hold it: look at the host.",
    "files": "The files are not there.",
}
