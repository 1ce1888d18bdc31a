import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from projunn_lightning.cli.app import ProjUNNCLI
from projunn_lightning.cli.main import COMMANDS
from projunn_lightning.functional import RETRACTIONS
from tests.support.commands import ROOT, refused, run


@pytest.fixture(autouse=True)
def _80_columns_wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


class TestHelp:
    def test_lists_every_command_with_its_summary(self):
        words = " ".join(run("--help").split())
        for name, command in COMMANDS.items():
            assert f" {name} {command.summary}" in words

    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_fits_80_columns(self, name):
        out = run(*name.split(), "--help")
        assert out.startswith(f"usage: projunn {name}".strip())
        long = [line for line in out.splitlines() if len(line) > 80]
        assert not [line for line in long if not line.startswith("  --")]  # argparse breaks no list of choices

    @pytest.mark.parametrize("name", ProjUNNCLI.subcommands())
    def test_begins_with_the_command_to_type(self, name):
        lines = run(name, "--help").splitlines()
        assert lines[0] == f"usage: projunn {name} [--config CONFIG] ... [--OPTION VALUE] ..."
        assert lines[2] == COMMANDS[name].summary
        assert f"  projunn {name} --config copying" in lines[:15]

    def test_has_titles_of_one_line_and_shows_the_trainer_last(self):
        titles = re.findall(r"^(\w.*):$", run("fit", "--help"), re.MULTILINE)
        assert titles[-1].startswith("trainer: ")
        assert {"model, the network", "data, the task", "projunn, the method", "lr_scheduler"} <= set(titles)

    def test_shows_commands_that_work(self):
        shown = re.findall(r"^  projunn (fit .*)$", run("fit", "--help"), re.MULTILINE)
        assert len(shown) == 6
        for line in shown:
            words = line.split()
            ends = words[1].endswith(".help") or words[-1] == "--print_config"
            out = run(*words, *([] if ends else ["--print_config"]))  # instead of a run
            assert ("lr" if "RMSprop" in line else "delay" if "Copying" in line else "hidden_size") in out

    @pytest.mark.parametrize(
        "words",
        ["", "--model.help SequenceModel", "--model.help ImageClassifier", "--data.help ImageClassification"],
    )
    def test_is_plain_text_without_the_marks_of_docstrings(self, words):
        out = run("fit", *(words.split() or ["--help"]))
        assert not re.search(r"``|:\w+:`|`_", out)
        assert out.startswith("usage: projunn ")

    def test_lists_run_where_it_can_be_given(self):
        assert ["--run FOLDER" in run(name, "--help") for name in ("fit", "validate", "test", "predict")] == [
            False,
            True,
            True,
            True,
        ]


def test_version_is_that_of_the_installed_package():
    assert run("--version") == f"projunn {version('projunn-lightning')}\n"


class TestUnknownOption:
    def test_on_the_command_line_is_refused_with_similar_ones(self):
        message = refused("fit", "--config", "copying", "--projunn.rnk", "4")
        start = "projunn: error: unrecognized arguments: --projunn.rnk 4; near misses: projunn.rank"
        assert message.startswith(start)

    def test_in_a_config_is_refused_with_similar_ones(self):
        Path("own.yaml").write_text("projunn:\n  rnk: 3\n")
        message = refused("fit", "--config", "copying", "--config", "own.yaml")
        assert "does not accept option 'projunn.rnk'; near misses: projunn.rank" in message

    def test_that_resembles_none_is_refused_without_them(self):
        assert refused("fit", "--config", "copying", "--xyzzy", "4").strip().endswith("arguments: --xyzzy 4")


@pytest.mark.slow  # the script is made of the options of every class that has been imported
def test_bash_completes_commands_options_and_values():
    script = [sys.executable, "-m", "projunn_lightning", "--print_completion", "shtab-bash"]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    Path("script").write_text(done.stdout)
    for words, expected in [
        ("''", set(COMMANDS)),
        ("c", {"compare", "configs"}),
        ("fit --projunn.re", {"--projunn.retraction"}),
        ("fit --projunn.retraction ''", set(RETRACTIONS)),
        ("fit --model.rnn e", {"eunn", "eunn_fft", "exprnn"}),
        ("compare --r", {"--rnns"}),
    ]:
        ask = f"""
            source ./script
            COMP_WORDS=(projunn {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
            $(complete -p projunn | sed 's/.*-F \\([^ ]*\\).*/\\1/') projunn "${{COMP_WORDS[-1]}}"
            echo "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
        assert set(done.stdout.split()) == expected, done.stderr
