"""Trained models as files that run without this package."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from examples.export import export
from projunn_lightning import ImageClassifier, SequenceModel, UnitaryMatch
from projunn_lightning.nn import FourierConv2d, OrthogonalConv2d, OrthogonalConvTranspose2d, UnitaryRNN

needs_torch_2_13 = pytest.mark.skipif(torch.__version__ < (2, 13), reason="the ONNX exporter of older torch fails")

pytestmark = [
    pytest.mark.filterwarnings("ignore:No complete tensor found in the group"),  # of torch.export.save
    pytest.mark.filterwarnings("ignore:`torch.jit.script.*:DeprecationWarning"),  # torch's own modules, of themselves
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]
BATCH, TIME = torch.export.Dim("batch"), torch.export.Dim("time")
FOLDER = TemporaryDirectory()


class Together(nn.Module):
    """Several modules on the same input, for one export."""

    def __init__(self, *modules):
        super().__init__()
        self.members = nn.ModuleList(modules)

    def forward(self, x):
        outputs = []
        for module in self.members:
            output = module(x[..., : module.size[0], : module.size[1]] if isinstance(module, FourierConv2d) else x)
            outputs.extend(output if isinstance(output, tuple) else [output])
        return tuple(outputs)


def recurrent(dtype):
    cells = [UnitaryRNN(3, 6, nonlinearity=f, init="haar", dtype=dtype) for f in ("relu", "tanh", "identity")]
    return Together(*cells, UnitaryRNN(3, 6, 2, init="haar", dtype=dtype, dropout=0.5))


def sequence_models():
    return Together(SequenceModel(4, 3, 6, 2), SequenceModel(4, 3, 6, output="last", complex=True))


def images():
    return Together(FourierConv2d(3, 4, (6, 8), stride=2), ImageClassifier("plain", 3, (6, 8), 3, width=4, depth=1))


def convolutions():
    kinds = [{"size": (6, 5)}, {"size": (5, 5), "stride": 2}, {"size": (6, 8), "dtype": torch.complex64}]
    return Together(*(FourierConv2d(3, 4, **kind) for kind in kinds))


def local_convolutions():
    sizes = {"kernel_size": 4, "stride": 2}
    zeros = {"kernel_size": (2, 4), "stride": (1, 2), "padding_mode": "zeros"}
    layers = OrthogonalConv2d(3, 8, **sizes), OrthogonalConv2d(3, 2, **zeros), OrthogonalConv2d(3, 6, 3, groups=3)
    return Together(*layers, OrthogonalConvTranspose2d(3, 2, **sizes), OrthogonalConvTranspose2d(3, 2, **zeros))


def normal(*shape):
    return lambda n: torch.randn(n, *shape)


def integers(n):
    return torch.randint(4, (n, 5))


def complex_normal(n):
    return torch.randn(n, 5, dtype=torch.complex64)


CASES = {  # the module, an input of n samples, its dimensions of any size
    "SequenceModel": (sequence_models, integers, {0: BATCH, 1: TIME}),
    "ImageClassifier": (images, normal(3, 6, 8), {0: BATCH}),
    "UnitaryMatch": (lambda: UnitaryMatch(5, init="haar"), complex_normal, {0: BATCH}),
    "OrthogonalConv2d": (local_convolutions, normal(3, 6, 8), {0: BATCH}),
    "UnitaryRNN, real": (lambda: recurrent(torch.float32), normal(5, 3), {0: BATCH, 1: TIME}),
    "UnitaryRNN, complex": (lambda: recurrent(torch.complex64), normal(5, 3), {0: BATCH, 1: TIME}),
    "FourierConv2d": (convolutions, normal(3, 6, 8), {0: BATCH}),
    "ResNet9": (lambda: ImageClassifier("resnet9", 3, 16, 10, width=4), normal(3, 16, 16), {0: BATCH}),
}
QUICK, SLOW = list(CASES)[:4], list(CASES)[4:]


@cache
def exported(name):
    """The module, its exported program, and the file of it."""
    torch.manual_seed(1)
    make, example, sizes = CASES[name]
    module = make().eval()
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.2)  # biases of zero would hide what becomes of them
    program = torch.export.export(module, (example(3),), dynamic_shapes=(sizes,))
    path = Path(FOLDER.name) / f"{name}.pt2"
    torch.export.save(program, path)
    return module, program, path


def other_input(name):
    """Of another number of samples, and of steps, than the example's."""
    x = CASES[name][1](7)
    return torch.cat([x, x.flip(1)], 1) if TIME in CASES[name][2].values() else x


def outputs(result):
    return [output.detach() for output in (result if isinstance(result, tuple) else (result,))]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_programs_compute_what_the_module_does_in_a_process_that_cannot_import_this_package(names):
    for name in names:
        module, program, path = exported(name)
        operators = {str(node.target) for graph in program.graph_module.modules() for node in graph.graph.nodes}
        assert not [operator for operator in operators if "projunn" in operator]
        x = other_input(name)
        torch.save((x, outputs(module(x))), path.with_suffix(".data"))
    code = """
import sys, pathlib, torch
sys.modules["projunn_lightning"] = sys.modules["lightning"] = None  # importing it fails
for path in map(pathlib.Path, sys.argv[1:]):
    x, expected = torch.load(path.with_suffix(".data"))
    found = torch.export.load(path).module()(x)
    for one, other in zip(found if isinstance(found, tuple) else [found], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    print(path.stem)
"""
    paths = [str(exported(name)[2]) for name in names]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, cwd=FOLDER.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == names


@needs_torch_2_13
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_onnx_runtime_computes_what_the_module_does(name):
    module, program, path = exported(name)
    file = str(path.with_suffix(".onnx"))
    torch.onnx.export(program, (), file, dynamo=True, external_data=False, verbose=False)
    saved = onnx.load(file)
    operators = {node.domain for part in (saved.graph, *saved.functions) for node in part.node}
    assert operators <= {"", *(function.domain for function in saved.functions)}  # all are ONNX's own, or made of those
    x = other_input(name)
    found = run(file, x)
    expected = [torch.view_as_real(y) if y.is_complex() else y for y in outputs(module(x))]
    assert_close([torch.from_numpy(y) for y in found], expected)


def run(file, x):
    """By ONNX Runtime; complex numbers are pairs of real ones there."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: (torch.view_as_real(x) if x.is_complex() else x).numpy()})


def test_strict_export_takes_the_recurrence_for_the_steps_of_the_example():
    rnn = UnitaryRNN(3, 6, init="haar").eval()
    x = torch.randn(2, 4, 3)
    program = torch.export.export(rnn, (x,), strict=True)
    assert "projunn" not in str(program.graph)
    assert_close(outputs(program.module()(x)), outputs(rnn(x)))


def test_the_size_of_a_file_does_not_grow_with_the_steps():
    rnn = UnitaryRNN(3, 6)
    short, long = (torch.export.export(rnn, (torch.randn(2, steps, 3),)) for steps in (4, 784))
    assert len(short.graph.nodes) == len(long.graph.nodes) < 50


def test_the_page_shows_the_example_as_it_is():
    root = Path(__file__).parent.parent
    shown = (root / "docs" / "export.md").read_text().split("```python\n")[1].split("```")[0]
    assert indent(shown, "    ") in (root / "examples" / "export.py").read_text()


@needs_torch_2_13
def test_the_example_writes_both_files_of_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from projunn_lightning import CopyingMemory
    from tests.support.fits import trainer

    model = SequenceModel(6, 5, 8)
    fitted = trainer(max_epochs=1)
    sizes = {"delay": 3, "memory_length": 2, "alphabet_size": 4, "train_size": 64, "val_size": 8, "batch_size": 16}
    fitted.fit(model, CopyingMemory(**sizes))
    fitted.save_checkpoint("trained.ckpt")
    export("trained.ckpt")
    x = torch.randint(6, (5, 30))
    expected = outputs(model.eval()(x))
    assert_close(outputs(torch.export.load("model.pt2").module()(x)), expected)
    assert_close([torch.from_numpy(y) for y in run("model.onnx", x)], expected)
