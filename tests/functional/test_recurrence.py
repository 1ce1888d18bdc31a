import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from projunn_lightning.functional import _scan, recurrence
from projunn_lightning.functional._loop import written_out
from projunn_lightning.functional._threads import in_parts

NONLINEARITIES = ["modrelu", "relu", "tanh", "identity"]
every_kind = pytest.mark.parametrize(
    ("nonlinearity", "dtype"), list(itertools.product(NONLINEARITIES, [torch.float64, torch.complex128])), ids=str
)


def arguments(nonlinearity="modrelu", dtype=torch.float64, *, time=7, batch=3, inputs=2, size=5, bias=True):
    generator = torch.Generator().manual_seed(0)
    shapes = {"input": (time, batch, inputs), "state": (batch, size), "ih": (size, inputs), "hh": (size, size)}
    tensors = [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes.values()]
    tensors[-1] = torch.linalg.qr(tensors[-1]).Q
    real = dtype.to_real() if nonlinearity == "modrelu" else dtype
    tensors.append(0.3 * torch.randn(size, dtype=real, generator=generator) if bias else None)
    return [tensor if tensor is None else tensor.requires_grad_() for tensor in tensors]


def gradients(run, tensors, nonlinearity, grad):
    output = run(*tensors, nonlinearity)
    return output, *torch.autograd.grad(output, [t for t in tensors if t is not None and t.requires_grad], grad)


@pytest.fixture
def divided(monkeypatch):
    """A function that lets torch use a number of threads, among which every batch is divided."""
    before = torch.get_num_threads()
    monkeypatch.setattr(_scan, "STEP", 0)
    monkeypatch.setattr(_scan, "WHOLE", 0)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@every_kind
class TestIsTheLoopWrittenOut:
    def compare(self, tensors, nonlinearity, grad=None):
        grad = torch.randn_like(recurrence(*tensors, nonlinearity)) if grad is None else grad
        fast, plain = (gradients(run, tensors, nonlinearity, grad) for run in (recurrence, written_out))
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)

    def test_with_its_gradients(self, nonlinearity, dtype):
        self.compare(arguments(nonlinearity, dtype), nonlinearity)

    @pytest.mark.parametrize("length", [1, 2, 3])
    def test_for_any_length_of_the_chunks_of_the_backward_pass(self, nonlinearity, dtype, length, monkeypatch):
        monkeypatch.setattr(_scan, "CHUNK", length * 3 * 5)
        self.compare(arguments(nonlinearity, dtype), nonlinearity)

    @pytest.mark.parametrize("threads", [2, 3, 4])
    def test_for_a_batch_that_is_divided_among_threads(self, nonlinearity, dtype, threads, divided):
        divided(threads)
        self.compare(arguments(nonlinearity, dtype), nonlinearity)
        with torch.inference_mode():
            recurrence(*arguments(nonlinearity, dtype), nonlinearity)

    def test_for_a_single_step(self, nonlinearity, dtype):
        self.compare(arguments(nonlinearity, dtype, time=1, batch=1), nonlinearity)

    def test_for_tensors_that_are_not_contiguous(self, nonlinearity, dtype):
        input, state, ih, hh, bias = arguments(nonlinearity, dtype)
        tensors = [input.detach().mT.contiguous().mT.requires_grad_(), state, ih, hh.detach().mT.requires_grad_(), bias]
        assert not tensors[0].is_contiguous()
        grad = torch.randn(5, 3, 7, dtype=dtype).permute(2, 1, 0)
        self.compare(tensors, nonlinearity, grad)
        self.compare(tensors, nonlinearity, grad[:1, :1, :1].expand(7, 3, 5))

    def test_where_only_some_tensors_need_a_gradient(self, nonlinearity, dtype):
        for needed in range(5):
            tensors = arguments(nonlinearity, dtype)
            for number, tensor in enumerate(tensors):
                tensor.requires_grad_(number == needed)
            self.compare(tensors, nonlinearity)

    def test_where_states_are_zero(self, nonlinearity, dtype):
        tensors = [tensor.detach().clone() for tensor in arguments(nonlinearity, dtype)]
        tensors[0].zero_(), tensors[1].zero_()
        tensors[4] = tensors[4].abs().to(tensors[4].dtype)
        self.compare([tensor.requires_grad_() for tensor in tensors], nonlinearity)

    def test_gradcheck(self, nonlinearity, dtype):
        assert torch.autograd.gradcheck(
            lambda *tensors: recurrence(*tensors, nonlinearity), arguments(nonlinearity, dtype)
        )

    def test_passes_torch_s_check_of_operators(self, nonlinearity, dtype):
        input, state, ih, hh, bias = arguments(nonlinearity, dtype)
        tensors = (input, state, *(weight.detach().mT.contiguous().mT.requires_grad_() for weight in (ih, hh)), bias)
        torch.library.opcheck(_scan.scan, (*tensors, nonlinearity))
        states = recurrence(*tensors, nonlinearity).detach()
        for needs_input in (True, False):
            of = (states, states, *tensors, nonlinearity, needs_input)
            torch.library.opcheck(_scan.scan_backward, of, test_utils=("test_schema", "test_faketensor"))

    def test_compiles_in_one_piece(self, nonlinearity, dtype):
        tensors = arguments(nonlinearity, dtype)
        compiled = torch.compile(recurrence, backend="aot_eager", fullgraph=True)
        grad = torch.randn(7, 3, 5, dtype=dtype)
        fast, plain = (gradients(run, tensors, nonlinearity, grad) for run in (compiled, written_out))
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e15, 1e25])
def test_complex_modrelu_is_as_accurate_for_very_small_and_very_large_numbers(scale):
    tensors = [x.detach() for x in arguments("modrelu", torch.complex64, time=3)]
    tensors[0] *= scale
    tensors[1] *= scale
    tensors[4] = tensors[4].abs() + 1
    tensors = [x.requires_grad_() for x in tensors]
    grad = torch.randn(3, 3, 5, dtype=torch.complex64)
    fast, plain = (gradients(run, tensors, "modrelu", grad) for run in (recurrence, written_out))
    for found, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES[1:])
def test_has_no_bias_if_none_is_given(nonlinearity):
    tensors = arguments(nonlinearity, bias=False)
    fast, plain = (
        gradients(run, tensors, nonlinearity, torch.ones(7, 3, 5).double()) for run in (recurrence, written_out)
    )
    torch.testing.assert_close(fast, plain)


class TestSecondDerivatives:
    @every_kind
    def test_gradgradcheck(self, nonlinearity, dtype):
        tensors = arguments(nonlinearity, dtype, time=3, batch=2, size=3)
        assert torch.autograd.gradgradcheck(lambda *tensors: recurrence(*tensors, nonlinearity), tensors)

    def test_where_a_state_depends_on_other_arguments(self):
        """The gradient with respect to the weights must not follow the path through the state, which follows itself."""
        input, state, *weights = arguments()
        results = []
        for run in (recurrence, written_out):
            states = run(input, run(input, state, *weights, "modrelu")[-1], *weights, "modrelu")
            first = torch.autograd.grad(states.pow(3).sum(), (input, state, *weights), create_graph=True)
            second = torch.autograd.grad(sum(grad.square().sum() for grad in first), (input, state, *weights))
            results.append((first, second))
        torch.testing.assert_close(*results)

    def test_inside_of_autocast(self):
        tensors = [tensor.detach().float().requires_grad_() for tensor in arguments()]
        with torch.autocast("cpu", torch.bfloat16):
            loss = recurrence(*tensors).float().square().sum()
            (gradient,) = torch.autograd.grad(loss, tensors[0], create_graph=True)
            gradient.square().sum().backward()
        assert tensors[3].grad.abs().max() > 0


@every_kind
class TestTorchFunc:
    def results(self, transform, nonlinearity, dtype):
        """A transform of both functions, applied to the input and the recurrent matrix."""
        input, state, ih, hh, bias = (t.detach() for t in arguments(nonlinearity, dtype, time=3, batch=2, size=3))
        for run in (recurrence, written_out):
            yield transform(lambda x, w, run=run: run(x, state, ih, w, bias, nonlinearity), input, hh)

    def test_grad(self, nonlinearity, dtype):
        def transform(function, *tensors):
            return torch.func.grad(lambda *xs: function(*xs).abs().square().sum(), argnums=(0, 1))(*tensors)

        torch.testing.assert_close(*self.results(transform, nonlinearity, dtype))

    @pytest.mark.filterwarnings("ignore:`torch.jit.script.*:DeprecationWarning")  # torch's own, of itself
    def test_jvp(self, nonlinearity, dtype):
        def transform(function, *tensors):
            return torch.func.jvp(function, tensors, tuple(map(torch.ones_like, tensors)))

        torch.testing.assert_close(*self.results(transform, nonlinearity, dtype))

    def test_vmap(self, nonlinearity, dtype):
        def transform(function, input, hh):
            inputs = torch.stack([input, 2 * input])
            batched = torch.func.vmap(function, (0, None))(inputs, hh)
            return [batched, torch.stack([function(x, hh) for x in inputs])]

        for batched, one_by_one in self.results(transform, nonlinearity, dtype):
            torch.testing.assert_close(batched, one_by_one)


@pytest.mark.skipif(torch.__version__ < (2, 12), reason="torch.compile took the operator apart before")
def test_torch_compile_keeps_the_operator_and_its_backward_pass():
    torch.compiler.reset()
    operators = set()

    def record(graph, _):
        operators.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    tensors = arguments()
    compiled = torch.compile(recurrence, backend=aot_autograd(fw_compiler=record, bw_compiler=record), fullgraph=True)
    compiled(*tensors).sum().backward()
    assert {"projunn_lightning.scan.default", "projunn_lightning.scan_backward.default"} <= operators


@every_kind
@pytest.mark.parametrize("needs_input", [True, False], ids=["with input", "without input"])
def test_its_floating_point_operations_are_counted_as_those_of_the_loop(nonlinearity, dtype, needs_input):
    tensors = arguments(nonlinearity, dtype)
    tensors[0].requires_grad_(needs_input)
    forward, backward = [], []
    for run in (recurrence, written_out):
        with FlopCounterMode(display=False) as counter:
            states = run(*tensors, nonlinearity)
        forward.append(counter.get_total_flops())
        with FlopCounterMode(display=False) as counter:
            states.abs().sum().backward()
        backward.append(counter.get_total_flops())
    assert forward[0] == forward[1] == 2 * 7 * 3 * 5 * (2 + 5)
    computed_again = forward[0] if nonlinearity == "modrelu" and dtype.is_complex else 0
    assert backward[0] == backward[1] + computed_again


def test_a_batch_may_be_empty():
    tensors = arguments(batch=0)
    recurrence(*tensors).sum().backward()
    assert (tensors[3].grad == 0).all()


def test_the_gradient_of_complex_modrelu_is_accurate_where_z_is_small():
    torch.manual_seed(0)
    input, state = 1e-3 * torch.randn(1, 50, 4, dtype=torch.complex64), torch.zeros(50, 4, dtype=torch.complex64)
    tensors = [input, state, torch.eye(4).cfloat(), torch.eye(4).cfloat(), torch.ones(4)]
    single, double = tensors, [t.to(torch.complex128 if t.is_complex() else torch.float64) for t in tensors]
    grad = torch.randn(1, 50, 4, dtype=torch.complex64)
    for run in (single, double):
        for tensor in run:
            tensor.requires_grad_()
        recurrence(*run).backward(grad.to(run[0].dtype))
    torch.testing.assert_close(single[0].grad, double[0].grad.to(torch.complex64), rtol=1e-4, atol=0.1)


def test_refuses_an_unknown_nonlinearity_and_modrelu_without_a_bias():
    tensors = arguments()
    with pytest.raises(ValueError, match="unknown nonlinearity 'sigmoid'"):
        recurrence(*tensors, "sigmoid")
    with pytest.raises(ValueError, match="modReLU needs a bias"):
        recurrence(*tensors[:4])


def test_runs_on_the_meta_device():
    tensors = [tensor.detach().to("meta").requires_grad_() for tensor in arguments()]
    output = recurrence(*tensors)
    output.backward(torch.empty_like(output))
    assert output.shape == (7, 3, 5)
    assert tensors[3].grad.shape == (5, 5)


def test_autocast_leaves_double_precision():
    tensors = arguments()
    with torch.autocast("cpu", torch.bfloat16):
        output = recurrence(*tensors)
        output.sum().backward()
    torch.testing.assert_close(output, recurrence(*tensors))


def test_computes_in_the_dtype_of_autocast():
    tensors = [tensor.detach().float().requires_grad_() for tensor in arguments()]
    with torch.autocast("cpu", torch.bfloat16):
        output = recurrence(*tensors)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), recurrence(*tensors), rtol=0.05, atol=0.05)
    output.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in tensors)


def test_is_exported_as_torch_s_own_operators():
    class Model(nn.Module):
        def forward(self, *tensors):
            return recurrence(*tensors)

    tensors = tuple(tensor.detach() for tensor in arguments())
    program = torch.export.export(Model(), tensors)
    assert "projunn" not in str(program.graph)
    torch.testing.assert_close(program.module()(*tensors), recurrence(*tensors))


def test_saves_only_inputs_and_outputs_for_the_backward_pass():
    tensors = arguments(time=50)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        output = recurrence(*tensors)
    assert sum(sizes) == output.numel() + sum(tensor.numel() for tensor in tensors)


class TestABatchThatIsDividedAmongThreads:
    def gradients(self, **tensors):
        tensors = arguments("modrelu", torch.float32, time=20, batch=9, size=30, **tensors)
        return gradients(recurrence, tensors, "modrelu", torch.ones(20, 9, 30))

    def test_gives_the_same_bits_from_run_to_run(self, divided):
        divided(2)
        torch.testing.assert_close(self.gradients(), self.gradients(), rtol=0, atol=0)

    def test_follows_the_number_of_threads(self, divided, monkeypatch):
        parts = []
        monkeypatch.setattr(_scan, "in_parts", lambda run, size, n: parts.append(n) or in_parts(run, size, n))
        for threads in (2, 1, 3):
            divided(threads)
            self.gradients()
        assert parts == [2, 2, 1, 1, 3, 3]

    def test_by_several_threads_of_the_program(self, divided):
        divided(2)
        expected = self.gradients()
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda _: self.gradients(), range(8)):
                torch.testing.assert_close(found, expected)

    def test_under_gradient_checkpointing_and_autocast(self, divided):
        divided(2)
        tensors = arguments("tanh", torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain = gradients(recurrence, tensors, "tanh", torch.ones(7, 3, 5, dtype=torch.bfloat16))

            def checkpointed(*inputs):
                return checkpoint(recurrence, *inputs, use_reentrant=False)

            again = gradients(checkpointed, tensors, "tanh", torch.ones(7, 3, 5, dtype=torch.bfloat16))
        torch.testing.assert_close(again, plain)

    def test_is_one_if_the_work_is_small(self):
        assert _scan._divisions(torch.empty(784, 2, 64, device="meta")) == 1
