import tomllib

import pytest

from projunn_lightning.cli.app import Command, ProjUNNCLI
from projunn_lightning.cli.main import COMMANDS, main
from tests.support.commands import ROOT, TINY, changed, ended, named, refused, run

OWN = changed(
    model={"class_path": "tests.support.own_models.OwnRNN"},
    data=named("AddingProblem", length=4, train_size=8),
    projunn={"parameters": "body.weight_hh_l0"},
)


class TestCommands:
    def test_the_script_projunn_calls_main(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert project["scripts"] == {"projunn": f"{main.__module__}:{main.__name__}"}

    def test_the_commands_of_lightning_are_in_the_dictionary(self):
        assert ProjUNNCLI.subcommands().keys() < COMMANDS.keys()

    def test_a_new_command_needs_one_line_in_the_dictionary(self, monkeypatch):
        heard = []
        command = Command("Greet somebody.", heard.append, lambda parser: parser.add_argument("--loudly"))
        monkeypatch.setitem(COMMANDS, "greet", command)
        run("greet", "you", "--loudly", "yes")
        assert heard == [["you", "--loudly", "yes"]]
        assert " greet Greet somebody. " in " ".join(run("--help").split()) + " "
        assert "greet must be the first argument: projunn greet --help" in refused("--config", "{fit: {}}", "greet")

    @pytest.mark.parametrize("name", ["compare", "configs"])
    def test_a_command_that_is_not_lightning_s_must_come_first(self, name):
        folder = ["somewhere"] if name == "compare" else []
        message = refused("--config", "{fit: {}}", name, *folder)
        assert message == f"projunn: error: {name} must be the first argument: projunn {name} --help\n"

    def test_a_config_may_come_before_the_command(self):
        assert "test loss" in run({"fit": TINY}, "fit")


class TestErrors:
    def test_an_input_that_cannot_be_used_ends_in_one_line(self):
        status, _, err = ended("fit", TINY, "--data.delay", 0)
        assert status == 2
        assert err.splitlines()[-1] == "projunn: error: delay must be 1 or more, found 0"

    def test_the_variable_of_the_environment_shows_its_traceback(self, monkeypatch):
        monkeypatch.setenv("PROJUNN_TRACEBACK", "1")
        with pytest.raises(ValueError, match="delay must be 1 or more, found 0"):
            ended("fit", TINY, "--data.delay", 0)

    def test_the_variable_shows_the_cause_of_an_error_of_another_library(self, monkeypatch):
        monkeypatch.setenv("PROJUNN_TRACEBACK", "1")
        with pytest.raises(ValueError, match=r"SGD: ValueError: Invalid learning rate: -1\.0") as error:
            ended("fit", changed(optimizer=named("torch.optim.SGD", lr=-1)))
        assert str(error.value.__cause__) == "Invalid learning rate: -1.0"

    def test_a_bug_in_this_package_keeps_its_traceback(self, monkeypatch):
        monkeypatch.setattr("projunn_lightning.models.sequence.cross_entropy", None)
        with pytest.raises(TypeError, match="'NoneType' object is not callable"):
            ended("fit", TINY)

    @pytest.mark.parametrize("kind", [KeyError, ValueError, RuntimeError, OSError, MemoryError])
    def test_an_error_while_the_user_s_own_code_trains_keeps_its_traceback(self, monkeypatch, kind):
        def failing(self, batch, batch_idx):
            raise kind("of the user's own making")

        monkeypatch.setattr("tests.support.own_models.Own.training_step", failing)
        with pytest.raises(kind, match="of the user's own making"):
            ended("fit", OWN)

    def test_a_refusal_of_this_package_in_the_user_s_own_code_ends_in_one_line(self):
        own = OWN | {"model": {"class_path": "tests.support.own_models.TakesThree"}, "projunn": {}}
        assert "I = 3 features" in refused("fit", own)
