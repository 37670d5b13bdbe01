"""What ``bascule completion bash`` writes completes words, in bash itself."""

from __future__ import annotations

import subprocess

import pytest

from bascule.cli import main

ASK = """
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_bascule
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("bascule re", ["resume", "reject", "record", "revisions"]),
        ("bascule deploy r", ["rolling"]),
        ("bascule plan -i hosts.yml ro", ["rolling", "rollback"]),
        ("bascule deploy rolling --rev", ["--revision"]),
        ("bascule record up", ["upgrade"]),
        ("bascule revisions mark-bad --w", ["--why"]),
        ("bascule -", ["--help", "--version"]),
        ("bascule validate ./no-such", []),
    ],
)
def test_words_are_completed(
    words: str, known: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    done = subprocess.run(  # noqa: S603 - our own script
        ["/bin/bash", "-euc", script + ASK.format(words=words)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == sorted(known)
