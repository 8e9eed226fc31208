"""The command line as a shell sees it: fast help, clean messages, and the exit codes that scripts rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import core.cli.main
from core.cli.main import main
from core.errors import UnsupportedPlatform, require_posix
from core.settings import REPOSITORY
from tests.raising import raises

HEAVY = ("torch", "transformers", "lm_eval", "pydantic", "yaml", "gradio")


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "core", *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom core.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    for command in ("demo", "run", "export", "preflight", "align", "overrefusal", "accuracy", "judge", "chat"):
        assert command in done.stdout
    assert "LOADED []" in done.stdout


def test_windows_is_refused_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with raises(UnsupportedPlatform, "windows"):
        require_posix("win32")
    monkeypatch.setattr(core.cli.main, "require_posix", lambda: require_posix("win32"))
    assert main(["--help"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "WSL" in captured.err


def test_the_dashboard_is_refused_on_windows_before_it_is_imported() -> None:
    code = (
        "import sys; sys.platform = 'win32'; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "import app; app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 1 and "WSL" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["run", "preflight"])
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("pool: [unclosed", "spec"),
        ("just words", "spec"),
        ("pool: {experts: [{model: demo/chemistry}], generator: g}\nsearch: {alpha: -0.1}", "search.alpha"),
        ("pool: {experts: [{model: demo/chemistry}], generator: g}\ndata: {safety: {k: 0}}", "data.safety.k"),
        ("pool: {experts: []}", "pool.experts"),
        ("pool: {experts: [{model: demo/chemistry}], generator: g}\nserach: {}", "serach"),
    ],
)
def test_an_invalid_spec_exits_2_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, named: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    out = ["--out", str(tmp_path / "out")] if command == "run" else []
    assert main([command, str(spec), *out]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert named in captured.err
    assert not (tmp_path / "out").exists()


def test_the_shell_gets_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    done = shell("run", str(tmp_path / "missing.yaml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "missing.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["run", "spec.yaml"],
        ["accuracy", "model"],
        ["accuracy", "model", "--suite", "a", "--tasks", "b"],
        ["accuracy", "model", "--tasks", ","],
        ["align", "model", "--prompts", "file", "--guard", "phrases", "--limit", "0"],
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
