"""The prompts on a machine after power failures: what an agent had is there without a network, whole or newer."""

import random
from pathlib import Path

import pytest
from crash.power import survivors
from support.crash_disk import CrashDisk

from memoair_voice_sync._prompts.prompt_file import FetchedPrompt, PromptFiles, WantedPrompt

KEY = WantedPrompt("production")


def prompt_files(root: Path) -> PromptFiles:
    return PromptFiles(root / "storage", "https://cloud.example", "proj_test", "agent_test")


def text_of(version: int) -> str:
    return f"Version {version} of the prompt. " * (version * 40)


@pytest.mark.parametrize("seed", range(2))
def test_a_prompt_that_was_kept_survives_a_power_failure(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    disk_root = tmp_path / "disk"
    disk_root.mkdir()
    with CrashDisk(disk_root) as disk:
        for version in range(1, 7):
            with disk.killing(rng.choice([None, None, rng.randint(1, 9)])):
                prompt_files(disk_root).write(KEY, FetchedPrompt(text_of(version), version, f'"{version}"', version))
                disk.promise(version)
    for crash, root in survivors(disk, tmp_path, seed):
        found = prompt_files(root).read(KEY)
        promised = max(crash.promises, default=0)
        assert (found.version if found else 0) >= promised
        assert found is None or found.text == text_of(found.version)
