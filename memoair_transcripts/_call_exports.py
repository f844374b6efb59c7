"""Read the calls of exports: find them in whatever wraps them, and combine what was said into turns.

The formats follow the public documentation of the platforms. Of a call, the readers take who calls, when it started,
and what was said. They ignore tools, system prompts, analyses and costs. What others said is passed over.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import attrs

from memoair_transcripts._documents import JsonDocument, read_documents
from memoair_transcripts._export_fields import ExportedCall, ExportFields, NoTranscriptError
from memoair_transcripts._pairing import TranscriptTurnAssembler
from memoair_transcripts._records import (
    InvalidTurnError,
    Message,
    PartialTurn,
    Rejection,
    Side,
    TranscriptSource,
    check_id,
)

_MISSING_USER_ID = "userId is missing; add it, or set a user for the whole file (user_id, --user)"
_BY_MACHINE = "said by an answering machine or a phone menu"
_MAX_WRAPPERS = 4


@attrs.frozen
class ExportFormat:
    """How to read the calls of a platform.

    Attributes:
        is_call: Whether an object is a call. Others are searched for calls: webhooks, pages, and what tools wrap.
        parse: Return an object as a call. Raises `InvalidTurnError` and `NoTranscriptError`.
        group: Combine documents that together are a call.
    """

    is_call: Callable[[Mapping[str, Any]], bool]
    parse: Callable[[ExportFields, TranscriptSource], ExportedCall]
    group: Callable[[Iterator[JsonDocument]], Iterator[JsonDocument]] = iter


def read_calls(
    stream: BinaryIO, source: TranscriptSource, export_format: ExportFormat
) -> Iterator[PartialTurn | Rejection]:
    """Read the turns of all calls of a file."""
    for document in export_format.group(read_documents(stream)):
        if document.error is not None:
            position = "" if document.position is None else f"call {document.position}: "
            yield source.reject(document.line, position + document.error)
            continue
        calls = list(find_calls(document.content, export_format.is_call))
        if not calls:
            source.skip(document.line, "no call is found in it")
        for number, call in enumerate(calls, document.position or 1):
            prefix = f"call {number}: " if document.position is not None or len(calls) > 1 else ""
            try:
                parsed = export_format.parse(ExportFields(call), source)
                yield from _read_call(parsed, source, document.line, prefix)
            except NoTranscriptError as error:
                source.skip(document.line, str(error))
            except InvalidTurnError as error:
                yield source.reject(document.line, prefix + str(error))


def find_calls(
    value: Any, is_call: Callable[[Mapping[str, Any]], bool], max_wrappers: int = _MAX_WRAPPERS
) -> Iterator[Mapping[str, Any]]:
    """Yield the calls in whatever wraps them: webhooks, pages, lists."""
    if isinstance(value, dict) and is_call(value):
        yield value
    elif isinstance(value, dict | list) and max_wrappers:
        for child in value.values() if isinstance(value, dict) else value:
            yield from find_calls(child, is_call, max_wrappers - 1)


def _read_call(
    call: ExportedCall, source: TranscriptSource, line: int, prefix: str
) -> Iterator[PartialTurn | Rejection]:
    if call.user_id is None:
        raise InvalidTurnError(_MISSING_USER_ID)
    session_id = call.session_id or source.call_id
    assembler = TranscriptTurnAssembler()
    for utterance in call.utterances:
        if utterance.error is not None:
            yield source.reject(line, f"{prefix}{utterance.path}: {utterance.error}")
        elif utterance.skipped is not None:
            source.skip(line, utterance.skipped)
        elif call.is_answered_by_machine and utterance.side is Side.USER:
            source.skip(line, _BY_MACHINE)
        elif utterance.side is not None and utterance.text.strip():
            message = Message(
                user_id=check_id("userId", call.user_id),
                session_id=check_id("sessionId", session_id),
                side=utterance.side,
                text=utterance.text.strip(),
                line=line,
                occurred_at=utterance.occurred_at,
                user_name=source.options.user_name or call.user_name,
                assistant_name=source.options.assistant_name or call.assistant_name,
            )
            yield from assembler.add(message)
    yield from assembler.finish_all()
