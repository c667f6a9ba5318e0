"""
Shell completion: the printed scripts, and what a real shell makes of them.
"""

import shlex
import shutil
import subprocess

import pytest

from kling_async.cli._app import app
from tests.commanding import (
    given_commands,  # noqa: F401 - a fixture
    given_home,  # noqa: F401 - a fixture
    process,
)

SHELLS = ("bash", "zsh", "fish")


def shell(name, script, folder):
    """
    What a shell prints that reads no files of the user's.
    """
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    plain = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    command = [name, *plain, "-c", script]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=15)
    assert ("", 0) == (ended.stderr, ended.returncode)
    return ended.stdout


@pytest.mark.parametrize("name", SHELLS)
def test_a_script_is_printed_for_each_shell(run, name):
    """
    It knows every command, and nothing else is said.
    """
    ended = run("completion", name)
    assert (0, "") == (ended.code, ended.err)
    assert ended.out.endswith("\n")
    for command in ("demo", "doctor", "edit", "simulate", "tasks", "completion", "download", "--try-regions"):
        assert command in ended.out.replace("-l try-regions", "--try-regions")


@pytest.mark.parametrize("words", [(), ("tcsh",)])
def test_another_shell_is_wrong_usage(run, words):
    """
    The shells that there is a script for are named.
    """
    ended = run("completion", *words)
    assert (2, "") == (ended.code, ended.out)
    assert "kling-async completion --help" in ended.err


@pytest.mark.parametrize("name", SHELLS)
def test_a_shell_understands_its_script(run, home, name):
    """
    The shell finds no mistake in it.
    """
    (home / "script").write_text(run("completion", name).out)
    assert "" == shell(name, {"zsh": "zsh -n script", "fish": "fish -n script"}.get(name, "bash -n script"), home)


@pytest.mark.parametrize(
    "line, offered",
    [
        ("kling-async do", ["doctor"]),
        ("kling-async tasks ", ["download", "list", "reconcile", "show", "wait"]),
        ("kling-async tasks l", ["list"]),
        ("kling-async batch ", ["cancel", "retry", "run", "status", "worker"]),
        ("kling-async batch run clips.jsonl --dr", ["--dry-run"]),
        ("kling-async tasks list --st", ["--state", "--status"]),
        ("kling-async tasks list --status s", ["submitted", "succeed"]),
        ("kling-async edit https://x.example/a.mp4 --mode p", ["pro"]),
        ("kling-async edit https://x.example/a.mp4 --out res", ["result.mp4"]),
        ("kling-async completion z", ["zsh"]),
        ("kling-async doctor --try", ["--try-regions"]),
    ],
)
def test_bash_completes_words(run, home, line, offered):
    """
    Commands, options, values and files, by a bash that asks no network and no Python.
    """
    (home / "script").write_text(run("completion", "bash").out)
    (home / "result.mp4").write_bytes(b"")
    words = [*line.split(), *([""] if line.endswith(" ") else [])]
    told = " ".join(map(shlex.quote, words))
    script = (
        "source ./script\n"
        f"COMP_WORDS=({told}) COMP_CWORD={len(words) - 1}\n"
        "$(complete -p kling-async | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    assert offered == sorted(shell("bash", script, home).split())


def test_the_installed_script_is_that_of_this_version(home):
    """
    As a process it prints what the commands of this package make, for a file to be sourced.
    """
    with process("completion", "bash", folder=home) as child:
        out, err = child.communicate()
    assert (0, "", app.generate_completion(shell="bash").rstrip("\n")) == (child.returncode, err, out.rstrip("\n"))
