import re
import sys
from pathlib import Path

import pytest
import yaml

from projunn_lightning.cli.configs import description, find_comparison, find_config, modules_beside, named, read_config
from tests.support.commands import ROOT, TINY, refused, run

CONFIGS = ROOT / "configs"
ALL = {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in CONFIGS.rglob("*.yaml")}


class TestFindConfig:
    @pytest.mark.parametrize("form", ["{}", "{}.yaml", "configs/{}", "configs/{}.yaml"])
    def test_finds_a_config_of_the_package_by_name_and_by_its_path_in_the_repository(self, form):
        assert len(ALL) > 40
        for name, path in ALL.items():
            assert find_config(form.format(name)) == str(path)

    @pytest.mark.parametrize("own", ["copying", "copying.yaml"])
    def test_finds_a_file_in_the_working_folder_first(self, own):
        Path(own).write_text("projunn: {rank: 2}")
        assert find_config("copying") == own
        assert find_config("configs/copying") == str(CONFIGS / "copying.yaml")

    def test_finds_a_config_although_a_folder_has_its_name(self):
        Path("copying").mkdir()
        assert find_config("copying") == str(CONFIGS / "copying.yaml")

    @pytest.mark.parametrize("text", ["{projunn: {rank: 2}}", "projunn: {rank: 2} #" + 500 * "x", "s3://bucket/a.yaml"])
    def test_returns_a_text_that_is_no_name_as_it_is(self, text):
        assert find_config(text) == text

    def test_fit_takes_several_names(self):
        out = run("fit", "--config", "copying", "--config", "strategies/ddp", "--print_config")
        config = yaml.safe_load(out)
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
    def test_refuses_a_name_that_is_not_there_with_near_misses(self, name, near):
        message = refused("fit", "--config", name)
        start = f"projunn: error: there is no config {name}, neither a file nor one of the package's; near misses:"
        assert message.startswith(start)
        assert near in message
        assert message.count("\n") == 1


class TestFindComparison:
    @pytest.mark.parametrize("form", ["{}", "compare/{}", "configs/compare/{}/"])
    def test_finds_a_folder_of_the_package(self, form):
        for name in ("adding_200", "copying_200"):
            assert find_comparison(form.format(name)) == CONFIGS / "compare" / name

    def test_takes_a_folder_in_the_working_folder_first(self):
        Path("copying_200").mkdir()
        assert "copying_200 must hold task.yaml and one YAML per" in refused("compare", "copying_200")

    @pytest.mark.parametrize(("name", "near"), [("copying_20", "copying_200"), ("adding_200/projunn", "none")])
    def test_refuses_a_name_that_is_not_there_with_near_misses(self, name, near):
        message = refused("compare", name)
        assert f"there is no folder {name}, nor a comparison of that name; near misses: {near}" in message


class TestReadConfig:
    def test_reads_anchors_and_merged_keys(self):
        Path("some.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: {<<: [*a], x: 3}")
        assert read_config("some.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 3}}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "must be a mapping, such as 'trainer: {max_epochs: 5}', found None"),
            ("- a\n- b", "must be a mapping, such as 'trainer: {max_epochs: 5}', found ['a', 'b']"),
            ("hello", "found 'hello'"),
            ("model: [", "cannot be read as YAML: while parsing a flow node expected the node content"),
            ("a: \0", "unacceptable character #x0000"),
            ("a: 1\n---\nb: 1", "expected a single document"),
            ("a: 2026-13-01", "month must be in 1..12"),
            ("trainer:\n  max_epochs: 1\n  max_epochs: 2", "line 3: the key max_epochs stands in line 2 already"),
            (
                "config: copying\nmodel: {}",
                "names another one, copying, which only the command line can do: pass --config",
            ),
            ("fit: {config: copying}", "names another one, copying"),
            ("a:\n- b: 1\n  b: 2", "line 3: the key b stands in line 2 already"),
        ],
    )
    def test_refuses_what_is_no_config(self, text, message):
        Path("some.yaml").write_text(text)
        with pytest.raises(ValueError) as error:
            read_config("some.yaml")
        assert str(error.value).startswith("config some.yaml ")
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("content", [bytes(range(256)), b"projunn: {rank: 1}\nprojunn: {rank: 2}"])
    def test_fit_refuses_such_a_file(self, content):
        Path("some.yaml").write_bytes(content)
        assert "config some.yaml cannot be read as YAML: " in refused("fit", TINY, "--config", "some.yaml")


class TestModulesBesideAConfig:
    @pytest.fixture
    def elsewhere(self, monkeypatch):
        """A config in a folder, beside the module of its model; the working folder is another one."""
        Path("own").mkdir()
        Path("own/model_beside_config.py").write_text(
            "from projunn_lightning import SequenceModel\nclass Net(SequenceModel): pass\n"
        )
        model = {"class_path": "model_beside_config.Net", "init_args": TINY["model"]["init_args"]}
        trainer = TINY["trainer"] | {"logger": True, "enable_checkpointing": True}
        Path("own/config.yaml").write_text(yaml.safe_dump(TINY | {"model": model, "trainer": trainer}))
        Path("work").mkdir()
        monkeypatch.chdir("work")
        monkeypatch.delitem(sys.modules, "model_beside_config", raising=False)

    def test_are_found_from_another_folder_also_by_the_config_that_the_run_saves(self, elsewhere):
        assert "test loss" in run("fit", "--config", "../own/config.yaml")
        del sys.modules["model_beside_config"]
        assert "test loss" in run("test", "--run", "lightning_logs/version_0")
        header = Path("lightning_logs/version_1/config.yaml").read_text().splitlines()[1]
        assert header == f"# The class paths name modules in {Path('../own').resolve()}"

    def test_a_folder_without_modules_is_not_searched(self, elsewhere):
        assert modules_beside("../own/config.yaml") == [str(Path("../own").resolve())]
        assert modules_beside(CONFIGS / "copying.yaml") == []


class TestConfigs:
    def test_fits_80_columns_and_lists_every_config_with_what_it_is(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        *lines, files = run("configs").splitlines()
        assert max(map(len, lines)) <= 80
        assert files.endswith(str(CONFIGS))
        words = " ".join(" ".join(lines).split())
        for name, path in (named("") | named("*")).items():
            assert f" {name} {description(path)}" in words
        assert f" copying_200 {description(CONFIGS / 'compare/copying_200/task.yaml')}" in words

    def test_shows_commands_that_find_the_configs_that_they_name(self):
        shown = [line for line in run("configs").splitlines() if ": projunn " in line]
        names = [name for line in shown for name in re.findall(r"--config (\S+)", line)]
        assert names == ["copying", "copying", "strategies/ddp"]
        assert all(find_config(name) for name in names)
        assert find_comparison(shown[-1].rpartition("compare ")[2])

    def test_lists_apart_the_configs_that_need_no_other_one(self):
        trained, on_top = run("configs").partition("Several")[0].split("On top of one")
        paper = [f"paper/{name}" for name in ("adding", "copying", "permuted_mnist")]
        assert [name for name in ("own_model", *paper) if f"  {name} " not in trained] == []
        overrides = [name for name in ALL if name.startswith(("methods/", "overrides/", "strategies/"))]
        assert overrides
        assert [name for name in overrides if f"  {name} " not in on_top] == []
        assert "  paper/" not in on_top

    def test_the_first_line_of_every_header_is_a_sentence(self):
        for name, path in ALL.items():
            assert re.fullmatch(r"[A-Za-z].*\.", description(path)), name

    def test_takes_no_arguments(self):
        assert "unrecognized arguments: copying" in refused("configs", "copying")


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("methods/")])
def test_a_method_leaves_no_setting_of_the_config_below_it_except_the_rate(name):
    settings = {"rank", "sampler", "retraction", "coordinates", "feedback"}
    assert settings <= yaml.safe_load(ALL[name].read_text())["projunn"].keys() <= settings | {"lr_divider"}
