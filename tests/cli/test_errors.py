import functools
import statistics
from pathlib import Path

import pytest

from projunn_lightning.cli.config_file import check_config
from tests.cli.test_fuzz import TINY, said


def changed(**parts):
    """The tiny config with other options in its parts."""
    config = dict(TINY)
    for part, values in parts.items():
        config[part] = config[part] | values if part == "trainer" else values
    return config


def of(name, **init_args):
    return {"class_path": name, "init_args": init_args}


SIZES = {"input_size": 6, "output_size": 5}


class TestSaysInOneLine:
    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"optimizer": of("torch.optim.SGD", lr=-1)}, "SGD: Invalid learning rate: -1.0"),
            ({"optimizer": of("torch.optim.Adam", fused=True, foreach=True)}, "Adam: RuntimeError: `fused` and"),
            ({"lr_scheduler": of("torch.optim.lr_scheduler.LinearLR", start_factor=0)}, "LinearLR: Starting multiplic"),
            ({"trainer": {"max_epochs": -7}}, "Trainer: `max_epochs` must be a non-negative integer or -1"),
            ({"trainer": {"val_check_interval": 5.5}}, "Trainer: You have passed invalid value 5.5 for val_check"),
            ({"trainer": {"max_steps": None}}, "Trainer: TypeError: '<' not supported"),
            ({"seed_everything": 10**30}, "seed_everything: 1000000000000000000000000000000 is not in bounds"),
            ({"projunn": 5.5}, "projunn must be a mapping of its options, found 5.5"),
            ({"projunn": {"tolerance": None}}, "tolerance must have a value, found null"),
            ({"model": of("SequenceModel", **SIZES, num_layers=None)}, "num_layers must have a value, found null"),
            (
                {"model": of("SequenceModel", **SIZES, hidden_size=10**30)},
                "hidden_size must be below 2**63",
            ),
            ({"model": of("SequenceModel", **SIZES, rnn="gru", dropout=2)}, "dropout must be in [0, 1), found 2.0"),
            ({"model": of("SequenceModel", **SIZES, learning_rate=-1)}, "learning_rate must be a finite number of 0"),
            ({"model": of("UnitaryMatch", size=-1)}, "size must be 1 or more, found -1"),
            ({"model": of("UnitaryMatch", size=10**7)}, "allocate"),  # 800 TB
        ],
        ids=str,
    )
    def test_what_a_class_refuses(self, parts, message):
        line = said(changed(**parts))
        assert line.startswith("projunn: error: ")
        assert message in line
        assert line.count("\n") == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "must be a mapping, such as 'trainer: {max_epochs: 5}', found nothing"),
            ("- a\n- b", "must be a mapping, such as 'trainer: {max_epochs: 5}', found a list"),
            ("hello", "found 'hello'"),
            ("model: [", "is no YAML that can be read: while parsing a flow node expected the node content"),
            ("a: \0", "unacceptable character #x0000"),
            ("a: 1\n---\nb: 1", "expected a single document"),
            ("a: " + 2000 * "{b: ", "maximum recursion depth"),
            ("trainer:\n  max_epochs: 1\n  max_epochs: 2", "line 3: the key max_epochs stands in line 2 already"),
            ("a:\n- b: 1\n  b: 2", "line 3: the key b stands in line 2 already"),
            ("a: &a [*a]", "an anchor refers to itself"),
            ("config: x.yaml", "holds the key config, which is for the command line"),
        ],
    )
    def test_what_is_no_config(self, tmp_path, text, message):
        path = tmp_path / "some.yaml"
        path.write_text(text)
        with pytest.raises(ValueError) as error:
            check_config(path)
        assert str(error.value).startswith(f"config {path}")
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    def test_a_file_that_cannot_be_had_in_the_middle_of_a_run(self, monkeypatch):
        reading = functools.partial(Path("/nowhere/at/all").read_text)  # libraries alone, under this package
        monkeypatch.setattr("projunn_lightning.data.adding.AddingProblem.generator", reading)
        own = changed(model=TINY["model"], data=of("AddingProblem", length=4, train_size=8))
        assert "No such file or directory: '/nowhere/at/all'" in said(own)

    def test_a_config_that_is_no_text(self, tmp_path):
        path = tmp_path / "binary.yaml"
        path.write_bytes(bytes(range(256)))
        assert f"config {path} is no YAML that can be read: 'utf-8'" in said(TINY, "fit", "--config", str(path))


class TestKeepsTheTraceback:
    def test_of_a_mistake_in_this_package(self, monkeypatch):
        monkeypatch.setattr("projunn_lightning.models.sequence.cross_entropy", None)
        with pytest.raises(TypeError, match="'NoneType' object is not callable"):
            said(TINY)

    def test_of_an_error_that_python_itself_raises_in_this_package(self, monkeypatch):
        monkeypatch.setattr("projunn_lightning.models.sequence.cross_entropy", lambda *_: None)
        monkeypatch.setattr("projunn_lightning.models.supervised.len", lambda _: 2, raising=False)
        monkeypatch.setattr("projunn_lightning.data.task.as_they_are", lambda batch: (*batch, batch[0]))
        with pytest.raises(ValueError, match="too many values to unpack"):
            said(TINY)

    def test_of_what_a_worker_process_raised(self):
        error = RuntimeError("Caught ValueError in DataLoader worker process 0.\nTraceback (most recent call last):\n")
        assert refusal(error) is None

    def test_of_what_a_library_raises_under_this_package(self, monkeypatch):
        monkeypatch.setattr("projunn_lightning.models.sequence.cross_entropy", statistics.median)
        with pytest.raises(TypeError, match="median"):
            said(TINY)

    @pytest.mark.parametrize("kind", [KeyError, RuntimeError, OSError, MemoryError])
    def test_of_any_error_in_the_user_s_own_code(self, monkeypatch, kind):
        def failing(self, batch, batch_idx):
            raise kind("of the user's own making")

        monkeypatch.setattr("tests.support.own_models.Own.training_step", failing)
        own = changed(
            model={"class_path": "tests.support.own_models.OwnRNN"}, data=of("AddingProblem", length=4, train_size=8)
        )
        with pytest.raises(kind, match="of the user's own making"):
            said(own | {"projunn": {"parameters": "body.weight_hh_l0"}})
