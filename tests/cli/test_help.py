import re
import subprocess
import sys
from pathlib import Path

import pytest

from projunn_lightning.cli.app import OTHER_COMMANDS, ProjUNNCLI, main
from projunn_lightning.cli.help import COMMANDS


@pytest.fixture(autouse=True)
def _in_an_empty_folder_80_columns_wide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))


def printed(capsys, *args):
    """What the command prints before it ends well."""
    sys.argv = ["projunn", *args]
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    return capsys.readouterr().out


class TestHelp:
    def test_names_every_command_with_what_it_does(self, capsys):
        out = printed(capsys, "--help")
        assert {*ProjUNNCLI.subcommands(), *OTHER_COMMANDS} == set(COMMANDS)
        words = " ".join(out.split())
        for name, what in COMMANDS.items():
            assert f" {name} {what}" in words

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_fits_80_columns(self, capsys, command):
        out = printed(capsys, *command.split(), "--help")
        assert out.startswith(f"usage: projunn {command}".strip())
        long = [line for line in out.splitlines() if len(line) > 80]
        assert not [line for line in long if not line.startswith("  --")]  # argparse breaks no list of choices

    @pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
    def test_begins_with_what_to_type(self, capsys, command):
        lines = printed(capsys, command, "--help").splitlines()
        assert lines[0] == f"usage: projunn {command} [--config CONFIG] ... [--OPTION VALUE] ..."
        assert lines[2] in (COMMANDS[command], "Train a model, then test it.")
        assert f"  projunn {command} --config copying" in lines[:15]

    @pytest.mark.slow
    def test_shows_commands_that_work(self, capsys):
        shown = re.findall(r"^  projunn (fit .*)$", printed(capsys, "fit", "--help"), re.MULTILINE)
        assert len(shown) == 6
        for line in shown:
            words = line.split()
            ends = words[1].endswith(".help") or words[-1] == "--print_config"
            out = printed(capsys, *words, *([] if ends else ["--print_config"]))  # instead of a run
            assert ("lr" if "RMSprop" in line else "delay" if "Copying" in line else "hidden_size") in out


class TestCompletion:
    @pytest.mark.slow
    def test_in_bash(self, capsys, monkeypatch):
        fit = ProjUNNCLI.subcommands()["fit"]  # of four commands with the same options: it takes seconds for each
        monkeypatch.setattr(ProjUNNCLI, "subcommands", staticmethod(lambda: {"fit": fit}))
        Path("script").write_text(printed(capsys, "--print_completion", "shtab-bash"))
        for words, expected in [
            ("''", {"fit", "compare", "configs"}),
            ("c", {"compare", "configs"}),
            ("fit --projunn.va", {"--projunn.retraction"}),
            ("fit --projunn.retraction ''", {"exponential", "polar", "cayley"}),
            ("fit --model.rnn e", {"eunn", "eunn_fft", "exprnn"}),
            ("compare --c", {"--cells"}),
        ]:
            ask = f"""
                source ./script
                COMP_WORDS=(projunn {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
                $(complete -p projunn | sed 's/.*-F \\([^ ]*\\).*/\\1/') projunn "${{COMP_WORDS[-1]}}"
                echo "${{COMPREPLY[@]}}"
            """
            done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
            assert set(done.stdout.split()) == expected, done.stderr
