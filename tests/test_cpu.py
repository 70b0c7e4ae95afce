"""`speed.cpu`: the same numbers, whichever way they are computed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmkit.attention import CausalSelfAttention, attention, causal_mask
from llmkit.model import GPT, GPTConfig
from llmkit.speed import cpu
from llmkit.speed.cpu import FEW_ROWS, causal_attention, fast_matmul, product, stripes


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    monkeypatch.setattr("llmkit.speed.cpu.is_amd", lambda: True)


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
    monkeypatch.setattr("llmkit.speed.cpu.LARGE", O * 144)
    ours = product(model)(x)
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
    torch.testing.assert_close(product(model)(x), plain(x, model.weight, model.bias))
    with fast_matmul():
        assert precisions == [torch.get_float32_matmul_precision()]
    assert torch.get_float32_matmul_precision() == "highest"


class Own(nn.Linear):
    pass


def striped(model: nn.Linear) -> bool:
    """Whether `product` gives a layer to `linear`."""
    return getattr(product(model), "func", None) is cpu.linear


@pytest.mark.parametrize(
    "model",
    [
        layer(C=16),  # small
        layer(dtype=torch.float64),
        layer(dtype=torch.bfloat16),
        layer(device="meta"),
        Own(144, 1024),  # which may do something else
    ],
    ids=lambda model: f"{type(model).__name__}-{model.weight.dtype}-{model.weight.device}",
)
def test_what_is_left_to_pytorch(model):
    assert striped(layer())
    assert not striped(model)
    strided = layer()
    strided.weight.data = strided.weight.data.t().contiguous().t()
    assert not striped(strided)


def test_other_processors_are_left_alone(monkeypatch):
    monkeypatch.undo()
    for about in ({"cpu_name": "AMD EPYC"}, {"cpu_name": "Xeon"}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda about=about: about, raising=False)
        cpu.is_amd.cache_clear()
        assert striped(layer()) is ("AMD" in str(about))
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    cpu.is_amd.cache_clear()
    assert not cpu.is_amd()
    cpu.is_amd.cache_clear()


def test_each_thread_gets_a_stripe():
    assert [stripes(1536, threads) for threads in (1, 2, 3, 8, 40)] == [2, 2, 3, 8, 48]
    assert stripes(50257, 2) == 29
    assert stripes(1009, 2) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("T", [1, 7, 64])
def test_plain_products_and_the_fused_kernel_attend_alike(monkeypatch, dtype, T):
    torch.manual_seed(0)
    leaves = [torch.randn(2, 3, T, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    monkeypatch.setattr(cpu, "fuses", lambda *_: False)
    plain = causal_attention(*leaves)
    gradients = torch.autograd.grad(plain.float().square().sum(), leaves)
    monkeypatch.setattr(cpu, "fuses", lambda *_: True)
    fused = causal_attention(*leaves)
    expected = torch.autograd.grad(fused.float().square().sum(), leaves)
    exact, _ = attention(*(leaf.double() for leaf in leaves), causal_mask(T))
    tolerance = dict(atol=1e-5) if dtype == torch.float32 else dict(atol=0.1, rtol=0.1)
    assert torch.allclose(plain.double(), exact, **tolerance)
    assert torch.allclose(fused.double(), exact, **tolerance)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(ours, theirs, **tolerance)


def test_the_fused_kernel_is_taken_where_it_is_the_faster(monkeypatch):
    here = torch.device("cpu")
    for amd in (True, False):
        monkeypatch.setattr(cpu, "is_amd", lambda amd=amd: amd)
        assert cpu.fuses(257, here, torch.bfloat16)
        assert cpu.fuses(16, torch.device("cuda"), torch.bfloat16)
        assert not cpu.fuses(256, here, torch.bfloat16)
        assert cpu.fuses(256, here, torch.float32) is not amd


@pytest.mark.parametrize("T", [16, 300])
def test_attention_with_dropout_is_left_to_plain_products(monkeypatch, T):
    """PyTorch's fused kernel for a CPU knows no dropout: it would take its slow way."""
    monkeypatch.setattr(cpu, "is_amd", lambda: False)
    monkeypatch.setattr(cpu, "fused_attention", None)
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 8, T, 4)
    out = causal_attention(q, k, torch.ones(2, 8, T, 4), dropout=0.25)  # (B, H, T, D)
    assert out.mean().item() == pytest.approx(1, abs=0.02)  # what is kept makes up for the rest
    assert (out[:, :, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.25)
    v = torch.zeros(2, 8, T, 4).index_fill(2, torch.tensor([T - 1]), 1.0)
    assert causal_attention(q, k, v, dropout=0.25)[:, :, :-1].abs().max() == 0  # no look ahead


def test_tuned_drops_by_the_byte_in_training_only(monkeypatch):
    torch.manual_seed(0)
    asked, plain = [], cpu.byte_dropout
    monkeypatch.setattr(cpu, "byte_dropout", lambda x, p: asked.append(p) or plain(x, p))
    model = GPT(GPTConfig(11, 8, n_layer=1, n_head=2, n_embd=16, dropout=0.25))
    ids = torch.arange(8)[None]
    expected = model.eval()(ids)
    with cpu.tuned(model):
        torch.testing.assert_close(model(ids), expected)
        assert set(asked) == {0.0}
        asked.clear()
        x = torch.ones(100_000)
        y = model.train().drop(x)  # the layer itself
        assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert y.mean().item() == pytest.approx(1, abs=0.01)
        assert asked == [0.25]
    asked.clear()
    model(ids)
    assert asked == []
    assert not any("forward" in vars(part) for part in model.modules())


def test_gelu_by_a_sigmoid_is_pytorchs():
    """Both ways, for small and for huge numbers; elsewhere than on a CPU in float32, PyTorch's."""
    torch.manual_seed(0)
    x = torch.cat([torch.randn(10_000) * 3, torch.tensor([0.0, -0.0, 1e-30, 88, -88, 1e6, -1e6])])
    dy = torch.randn_like(x)
    ours, exact = (part.requires_grad_() for part in (x.clone(), x.double()))
    y, expected = cpu.quick_gelu(ours), F.gelu(exact, approximate="tanh")
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    y.backward(dy)
    expected.backward(dy.double())
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    for dtype in (torch.bfloat16, torch.float64):
        plain = F.gelu(x.to(dtype), approximate="tanh")
        assert torch.equal(cpu.quick_gelu(x.to(dtype)), plain)


def test_tuned_bends_by_the_sigmoid_and_leaves_other_layers_alone(monkeypatch):
    asked, plain = [], cpu.quick_gelu
    monkeypatch.setattr(cpu, "quick_gelu", lambda x: asked.append(x.shape) or plain(x))
    model = GPT(GPTConfig(11, 8, n_layer=2, n_head=2, n_embd=16))
    ids = torch.arange(8)[None]
    expected = model(ids)
    model.exact = torch.nn.GELU()  # by the error function: another one
    with cpu.tuned(model):
        torch.testing.assert_close(model(ids), expected)
        assert asked == [(1, 8, 64)] * 2
        assert "forward" not in vars(model.exact)
    model(ids)
    assert len(asked) == 2
    assert not any("forward" in vars(part) for part in model.modules())


def test_tuned_holds_inside_the_with_and_no_longer(monkeypatch):
    """In training (bfloat16, where plain products are taken) and after an error."""
    calls = []
    spy = lambda *args: calls.append(args) or causal_attention(*args)  # noqa: E731
    monkeypatch.setattr(cpu, "causal_attention", spy)
    model, ids = GPT(GPTConfig(11, 8, n_layer=2, n_head=2, n_embd=16)), torch.arange(8)[None]
    expected = model(ids)
    with cpu.tuned(model):
        torch.testing.assert_close(model(ids), expected)
        assert len(calls) == 2  # a layer each
    with pytest.raises(RuntimeError, match="planted"), cpu.tuned(model):
        raise RuntimeError("planted")
    model(ids)
    assert len(calls) == 2
    layers = [part for part in model.modules() if isinstance(part, CausalSelfAttention)]
    assert not any("attend" in vars(layer) for layer in layers)


def test_fast_matmul_keeps_float32_precision_and_puts_the_setting_back():
    a, b = torch.randn(2, 300, 300, requires_grad=True)
    before = torch.get_float32_matmul_precision()
    plain = a @ b
    with cpu.fast_matmul():
        fast = a @ b
        (gradient,) = torch.autograd.grad(fast.sum(), a)
    assert torch.get_float32_matmul_precision() == before
    exact = a.double() @ b.double()
    assert (fast - exact).abs().max() < 4 * (plain - exact).abs().max()
    assert torch.allclose(gradient, b.detach().sum(dim=1).expand(300, 300), atol=1e-3)
    with pytest.raises(KeyError), cpu.fast_matmul():
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_fast_matmul_is_taken_on_amds_processors_and_where_nothing_is_lost(monkeypatch):
    monkeypatch.setattr(cpu, "is_amd", lambda: True)
    monkeypatch.setattr(cpu, "_medium_is_exact", lambda: False)
    with cpu.fast_matmul():
        assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(cpu, "_medium_is_exact", lambda: True)
    monkeypatch.setattr(cpu, "is_amd", lambda: False)  # on Intel's, MKL is at home
    with cpu.fast_matmul():
        assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(cpu, "is_amd", lambda: True)
    with cpu.fast_matmul():
        assert torch.get_float32_matmul_precision() == "medium"
    with cpu.fast_matmul("cuda"):  # there "medium" would mean TF32
        assert torch.get_float32_matmul_precision() == "highest"
