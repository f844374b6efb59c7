"""The one error that the SDK raises for the memory, and the table of its codes."""

from memoair_protocol.errors import ERROR_CODES, ErrorCode, MemoAirVoiceMemoryError

__all__ = ["ERROR_CODES", "ErrorCode", "MemoAirVoiceMemoryError"]
