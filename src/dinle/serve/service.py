"""What the routes share: a recording in, its transcript out, through the queue and with the model that was asked for."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI evaluates it

from dinle.recognize.audio import SAMPLE_RATE_HZ, AudioLimits, scan_audio, stream_audio
from dinle.recognize.recognizer import Piece
from dinle.recognize.transcript import Transcript, Word
from dinle.serve.logs import add_notes, log_transcript
from dinle.serve.metrics import Metrics
from dinle.serve.models import ModelStore
from dinle.serve.options import Options, write_steps
from dinle.serve.scheduler import Outcome, Scheduler, StreamCounter
from dinle.serve.settings import Settings
from dinle.serve.tracing import capture_context, record_step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from starlette.requests import Request

    from dinle.recognize.audio import Waveform
    from dinle.recognize.recognizer import Recognizer

# A recording up to this long is decoded into memory (4 MB); a longer one is decoded twice: to be judged, then to be heard.
HOLD_S = 60.0
NO_OPTIONS = Options()
# Given before the first piece: the recording has been accepted as a whole, and a worker begins to hear it.
BEGUN = Piece((), 0)


@dataclass(frozen=True)
class Service:
    """What the routes work with; made when the application starts."""

    settings: Settings
    models: ModelStore
    scheduler: Scheduler
    metrics: Metrics
    streams: StreamCounter

    @property
    def limits(self) -> AudioLimits:
        """What is accepted of a recording."""
        return AudioLimits(
            max_bytes=self.settings.max_bytes,
            max_seconds=self.settings.max_seconds,
            max_channels=self.settings.max_channels,
            max_rate_hz=self.settings.max_rate_hz,
            max_decode_s=self.settings.max_decode_s,
        )

    async def transcribe(
        self, request: Request, file: BinaryIO, model: str | None = None, options: Options = NO_OPTIONS
    ) -> Transcript:
        """The transcript of one recording; its ``inference_s`` counts the work, not the waiting.

        Args:
            request: watched: who hangs up frees the place. Its body must have been read.
            file: the encoded recording.
            model: name of a model (``None``: the default).
            options: what is asked for besides.

        Raises:
            HotWordsRefusedError, WrittenUnavailableError: see :meth:`dinle.serve.options.Options.prepare`.
            AudioError: see :func:`dinle.recognize.audio.decode_audio`.
            ServiceBusyError, ClientGoneError, DeadlineError: see :meth:`dinle.serve.scheduler.Scheduler.run`.
            ModelUnknownError, BundleError: see :meth:`dinle.serve.models.ModelStore.use`.
        """
        async with self.models.use(model) as recognizer:
            outcome = await self.scheduler.run(
                transcribe_steps(recognizer, file, self.limits, options),
                partial(wait_until_gone, request),
                deadline_s=self.settings.deadline_s,
            )
        return self._account(outcome, request)

    async def stream(
        self, request: Request, file: BinaryIO, model: str | None = None, options: Options = NO_OPTIONS
    ) -> AsyncGenerator[Piece | Transcript, None]:
        """:data:`BEGUN`, the pieces of a recording as they become certain, and its transcript last.

        The words of the pieces are as they were recognised; the written form is that of the transcript alone. Errors are those
        of :meth:`transcribe`. Who leaves closes the generator.
        """
        async with self.models.use(model) as recognizer:
            steps = transcribe_steps(recognizer, file, self.limits, options)
            async with aclosing(self.scheduler.stream(steps, deadline_s=self.settings.deadline_s)) as items:
                async for item in items:
                    if isinstance(item, Outcome):
                        yield self._account(item, request)
                    elif item is not None:
                        yield item

    def _account(self, outcome: Outcome[Transcript], request: Request) -> Transcript:
        """Count, log and trace what was done."""
        transcript = replace(outcome.value, inference_s=outcome.work_s)
        model, audio_s = transcript.model, transcript.duration_s
        self.metrics.observe_inference(model, outcome.work_s, audio_s)
        add_notes(
            request.scope,
            model=model,
            audio_seconds=round(audio_s, 3),
            wait_seconds=round(outcome.wait_s, 4),
            work_seconds=round(outcome.work_s, 4),
        )
        context = capture_context()
        record_step(context, "wait", outcome.wait_s, ago_s=outcome.work_s)
        record_step(context, "work", outcome.work_s, audio_seconds=audio_s, model=model)
        log_transcript(transcript.text, self.settings.log_text)
        return transcript


def get_service(connection: HTTPConnection) -> Service:
    """The running application's service (a FastAPI dependency)."""
    return cast("Service", connection.app.state.service)


def transcribe_steps(
    recognizer: Recognizer, file: BinaryIO, limits: AudioLimits, options: Options = NO_OPTIONS
) -> Generator[Piece | None, None, Transcript]:
    """Transcribe one recording step by step; yields nothing while it decodes, then :data:`BEGUN` and what becomes certain.

    All of it is decoded before any of it is heard, so that a recording over the limits or damaged at its end costs no
    inference.

    Raises:
        HotWordsRefusedError, WrittenUnavailableError: see :meth:`dinle.serve.options.Options.prepare`.
        AudioError: see :func:`dinle.recognize.audio.decode_audio`.
    """
    recognizer, form = options.prepare(recognizer)
    held: list[Waveform] = []
    samples = 0
    blocks = stream_audio(file, limits)
    for block in blocks:
        held.append(block)
        samples += len(block)
        yield None
        if samples > HOLD_S * SAMPLE_RATE_HZ:
            held = []
            for _ in scan_audio(file, limits):  # from the start, and to the end
                yield None
            blocks = stream_audio(file, limits)
            break
    words: list[Word] = []
    yield BEGUN
    started = time.perf_counter()
    for piece in recognizer.recognize(chain(held, blocks)):
        words += piece.words
        samples = piece.samples
        yield piece
    transcript = Transcript(
        text=" ".join(word.text for word in words),
        words=tuple(words),
        duration_s=samples / SAMPLE_RATE_HZ,
        inference_s=time.perf_counter() - started,
        model=recognizer.name,
    )
    return transcript if form is None else (yield from write_steps(form, transcript))


async def wait_until_gone(request: Request) -> None:
    """Return when the client has closed the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
