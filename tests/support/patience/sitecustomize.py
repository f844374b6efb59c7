"""Gives the programs of users that tests run as much time as a loaded machine needs.

A search of 250 ms, as the pages and examples show it, comes back empty on a machine that is busy with other tests.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PATIENT_S = 20.0


def _arguments(module: Any) -> None:
    seconds = module.seconds

    def patient(name: str, *arguments: Any) -> float:
        return max(seconds(name, *arguments), _PATIENT_S if "timeout" in name else 0.0)

    module.seconds = patient


def _user_calls(module: Any) -> None:
    module._SAVE_TIMEOUT_S = _PATIENT_S


def _cloud(module: Any) -> None:
    module._CONNECT_TIMEOUT_S, module._READ_TIMEOUT_S = _PATIENT_S, 6 * _PATIENT_S


def _refresh(module: Any) -> None:
    module._PULL_TIMEOUT_S = module._START_TIMEOUT_S = _PATIENT_S


def _pipecat(module: Any) -> None:
    defaults = module.MemoAirMemoryProcessor.__init__.__kwdefaults__
    defaults["timeout_ms"], defaults["flush_timeout_s"] = _PATIENT_S * 1e3, _PATIENT_S


_CHANGES = {
    "memoair_voice_sync._arguments": _arguments,
    "memoair_voice_sync._user_calls": _user_calls,
    "memoair_voice_sync._cloud.api": _cloud,
    "memoair_voice_sync._pool.refresh": _refresh,
    "memoair_pipecat._processor": _pipecat,
}


class _Patience:
    """Changes modules of ours as soon as they are imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        change = _CHANGES.pop(name, None)
        spec = None if change is None else find_spec(name)
        if spec is None or spec.loader is None or change is None:
            return None
        load = spec.loader.exec_module

        def loaded(module: ModuleType) -> None:
            load(module)
            change(module)

        spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Patience())  # type: ignore[arg-type]
