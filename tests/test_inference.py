"""llmkit.inference: the same linear layer, whichever way it multiplies a few rows."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmkit import runtime
from llmkit.runtime import fast_matmul
from llmkit.speed.linear import FEW_ROWS, quick_linear, stripes


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    monkeypatch.setattr("llmkit.speed.linear.is_amd", lambda: True)


def layer(C=144, O=1024, **options):  # noqa: E741
    torch.manual_seed(0)
    return nn.Linear(C, O, **options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("O", [1024, 29 * 37, 1009])  # cut in 2, in 29, and not at all
@pytest.mark.parametrize("shape", [(144,), (1, 1, 144), (2, 2, 144), (FEW_ROWS, 144)])
def test_a_few_rows_give_values_and_gradients_of_the_formula(monkeypatch, shape, O, bias):  # noqa: E741
    calls, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *args: calls.append(args) or bmm(*args))
    model, x = layer(O=O, bias=bias), torch.randn(shape, requires_grad=True)
    exact, y = copy.deepcopy(model).double(), x.detach().double().requires_grad_()
    monkeypatch.setattr("llmkit.speed.linear.LARGE", O * 144)
    with quick_linear(model):
        ours = model(x)
    assert len(calls) == 1
    theirs = torch.einsum("...i,oi->...o", y, exact.weight) + (exact.bias if bias else 0)
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad.double(), y.grad, atol=1e-4, rtol=1e-4)
    for name, parameter in model.named_parameters():
        expected = exact.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(FEW_ROWS + 1, 144), (3, 2, 144), (0, 144)])
def test_more_rows_and_none_are_left_to_pytorchs_faster_library(monkeypatch, shape):
    model, x, precisions, plain = layer(), torch.randn(shape), [], F.linear

    def linear(*args):
        precisions.append(torch.get_float32_matmul_precision())
        return plain(*args)

    monkeypatch.setattr(F, "linear", linear)
    with quick_linear(model):
        torch.testing.assert_close(model(x), plain(x, model.weight, model.bias))
    with fast_matmul():
        assert precisions == [torch.get_float32_matmul_precision()]
    assert torch.get_float32_matmul_precision() == "highest"


class Own(nn.Linear):
    pass


@pytest.mark.parametrize(
    "model",
    [
        layer(C=16),  # small
        layer(dtype=torch.float64),
        layer(dtype=torch.bfloat16),
        layer(device="meta"),
        Own(144, 1024),  # which may do something else
        nn.Bilinear(144, 8, 1024),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.weight.dtype}-{model.weight.device}",
)
def test_what_is_not_touched(model):
    with quick_linear(model):
        assert "forward" not in vars(model)
    strided = layer()
    strided.weight.data = strided.weight.data.t().contiguous().t()
    with quick_linear(strided):
        assert "forward" not in vars(strided)


def test_other_processors_are_left_alone(monkeypatch):
    monkeypatch.undo()
    model = layer()
    for about, touched in [
        ({"cpu_name": "AMD EPYC"}, True),
        ({"cpu_name": "Xeon"}, False),
        ({}, False),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda about=about: about, raising=False)
        runtime.is_amd.cache_clear()
        with quick_linear(model):
            assert ("forward" in vars(model)) is touched
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    runtime.is_amd.cache_clear()
    assert not runtime.is_amd()
    runtime.is_amd.cache_clear()


def test_afterwards_all_is_as_before():
    model = nn.Sequential(layer(), nn.Sequential(layer(1024, 144)))
    mine = model[1][0].forward = lambda x: x  # somebody else's
    with pytest.raises(RuntimeError, match="planted"), quick_linear(model):
        raise RuntimeError("planted")
    assert "forward" not in vars(model[0])
    with quick_linear(model):
        assert "forward" in vars(model[0])
        with quick_linear(model):  # two texts at a time
            pass
        assert "forward" in vars(model[0])
        twin = copy.deepcopy(model[0])
        with torch.no_grad():
            twin.weight.zero_()
            twin.bias.zero_()
            assert (twin(torch.randn(144)) == 0).all()  # a copy has weights of its own
            assert (model[0](torch.randn(144)) != 0).any()
    assert "forward" not in vars(model[0])
    assert vars(model[1][0])["forward"] is mine


def test_each_thread_gets_a_stripe():
    assert [stripes(1536, threads) for threads in (1, 2, 3, 8, 40)] == [2, 2, 3, 8, 48]
    assert stripes(50257, 2) == 29
    assert stripes(1009, 2) == 1
