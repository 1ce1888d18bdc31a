import re
import sys
from pathlib import Path

import pytest
import yaml

from projunn_lightning.cli import main
from projunn_lightning.cli.configs import description, find_comparison, find_config, named

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in CONFIGS.rglob("*.yaml")}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))


def command(*args):
    sys.argv = ["projunn", *args]
    main()


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        command(*args)
    assert stop.value.code == 2
    return capsys.readouterr().err


class TestFindsAConfig:
    @pytest.mark.parametrize("form", ["{}", "{}.yaml", "configs/{}", "configs/{}.yaml"])
    def test_of_the_package_by_name_and_by_its_path_in_the_repository(self, form):
        assert len(ALL) > 40
        for name, path in ALL.items():
            assert find_config(form.format(name)) == str(path)

    @pytest.mark.parametrize("own", ["copying", "copying.yaml"])
    def test_of_the_working_folder_first(self, own):
        Path(own).write_text("projunn: {rank: 2}")
        assert find_config("copying") == own
        assert find_config("configs/copying") == str(CONFIGS / "copying.yaml")

    def test_where_a_folder_has_its_name(self):
        Path("copying").mkdir()
        assert find_config("copying") == str(CONFIGS / "copying.yaml")

    @pytest.mark.parametrize("text", ["{projunn: {rank: 2}}", "projunn: {rank: 2} #" + 500 * "x", "s3://bucket/a.yaml"])
    def test_but_leaves_what_is_no_name_alone(self, text):
        assert find_config(text) == text


class TestTheCommand:
    def test_takes_several_names(self, capsys):
        with pytest.raises(SystemExit) as stop:
            command("fit", "--config", "copying", "--config", "strategies/ddp", "--print_config")
        assert stop.value.code == 0
        config = yaml.safe_load(capsys.readouterr().out)
        assert config["data"]["init_args"]["delay"] == 100
        assert config["trainer"]["strategy"] == "ddp"

    @pytest.mark.parametrize(
        ("name", "near"),
        [
            ("copyng", "copying, copying_1000, copying_2000"),
            ("configs/adding_20.yaml", "adding_200, "),
            ("ddp", "strategies/ddp"),
            ("strategy/fsdp", "strategies/fsdp2"),
            ("somewhere/else.yaml", "none; `projunn configs` lists them"),
        ],
    )
    def test_refuses_a_name_that_is_not_there_with_near_misses(self, capsys, name, near):
        err = refused(capsys, "fit", "--config", name)
        assert (
            f"projunn: error: there is no config {name}, neither a file nor one of the package's; near misses:" in err
        )
        assert near in err
        assert err.count("\n") == 1

    def test_refuses_other_commands_that_do_not_come_first(self, capsys):
        assert "configs must be the first argument" in refused(capsys, "--config", "{fit: {}}", "configs")


class TestCompare:
    @pytest.mark.parametrize("form", ["{}", "compare/{}", "configs/compare/{}/"])
    def test_finds_a_folder_of_the_package(self, form):
        for name in ("adding_200", "copying_200"):
            assert find_comparison(form.format(name)) == CONFIGS / "compare" / name

    def test_takes_one_of_the_working_folder_first(self, capsys):
        Path("copying_200").mkdir()
        assert "copying_200 must hold task.yaml and a YAML of each cell" in refused(capsys, "compare", "copying_200")

    @pytest.mark.parametrize(("name", "near"), [("copying_20", "copying_200"), ("adding_200/projunn", "none")])
    def test_refuses_a_name_that_is_not_there_with_near_misses(self, capsys, name, near):
        err = refused(capsys, "compare", name)
        assert f"there is no folder {name}, nor a comparison of that name; near misses: {near}" in err


class TestTheList:
    def test_fits_80_columns_and_names_every_config_with_what_it_is(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        command("configs")
        *lines, files = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert files.endswith(str(CONFIGS))
        words = " ".join(" ".join(lines).split())
        for name, path in (named("") | named("*")).items():
            assert f" {name} {description(path)}" in words
        assert f" copying_200 {description(CONFIGS / 'compare/copying_200/task.yaml')}" in words

    def test_shows_commands_that_find_what_they_name(self, capsys):
        command("configs")
        shown = [line for line in capsys.readouterr().out.splitlines() if ": projunn " in line]
        names = [name for line in shown for name in re.findall(r"--config (\S+)", line)]
        assert names == ["copying", "copying", "strategies/ddp"]
        assert all(find_config(name) for name in names)
        assert find_comparison(shown[-1].rpartition("compare ")[2])

    def test_says_of_each_what_it_is_in_the_first_line_of_its_header(self):
        for name, path in ALL.items():
            assert re.fullmatch(r"[A-Za-z].*\.", description(path)), name

    def test_takes_no_arguments(self, capsys):
        assert "unrecognized arguments: copying" in refused(capsys, "configs", "copying")
