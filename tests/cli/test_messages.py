import pytest

from tests.support.commands import TINY, refused


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.hiden_size", 4], "model.hiden_size is no option of SequenceModel; near misses: model.hidden_size"),
        (["--data.dela", 4], "data.dela is no option of CopyingMemory; near misses: data.delay"),
        (["--optimizer.lrr", 1], "optimizer.lrr is no option of RMSprop; near misses: optimizer.lr\n"),
        (["--optimizer", "Adm"], "optimizer: there is no class Adm; near misses: Adam, "),
        (["--optimizer", "torch.optim.Adm"], "optimizer: torch.optim.Adm cannot be imported: module 'torch.optim' has"),
        (["--model", "no.such.Model"], "model: no.such.Model cannot be imported: No module named 'no'; modules are"),
        (["--model", "torch.nn.Linear"], "model must be a subclass of LightningModule, found torch.nn.Linear\n"),
        (["--trainer.callbacks", "EarlyStoping"], "trainer.callbacks: there is no class EarlyStoping; near misses: E"),
        (["--trainer.callbacks", "EarlyStopping"], "EarlyStopping needs a value for trainer.callbacks.monitor\n"),
        (
            ["--model.help", "SequenseModel"],
            "--model.help: there is no class SequenseModel; near misses: SequenceModel",
        ),
        (["--hidden_size", 4], "unrecognized arguments: --hidden_size 4; near misses: model.hidden_size\n"),
        (["--batchsize", 4], "unrecognized arguments: --batchsize 4; near misses: data.batch_size\n"),
        (["--rank", 4], "unrecognized arguments: --rank 4; near misses: projunn.rank\n"),
    ],
    ids=str,
)
def test_an_error_of_the_parser_is_one_short_line_with_near_misses(args, message):
    line = refused("fit", TINY, *args)
    assert line.startswith(f"projunn: error: {message}")
    assert line.count("\n") == 1
    assert len(line) < 160


def test_required_options_of_a_class_are_named():
    message = refused("fit", "--model", "SequenceModel", "--data", "CopyingMemory")
    assert message == "projunn: error: SequenceModel needs a value for model.input_size, model.output_size\n"


def test_an_option_that_a_config_misspells_is_named():
    model = {"class_path": "SequenceModel", "init_args": {"input_size": 6, "output_size": 5, "hiden_size": 8}}
    message = refused("fit", TINY, {"model": model})
    assert "model.hiden_size is no option of SequenceModel; near misses: model.hidden_size" in message
