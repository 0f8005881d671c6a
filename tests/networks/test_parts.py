"""The parts of the skeleton, each against what its paper says in plain operations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.attention import SelfAttention, TransformerLayer, attend
from trilemma.networks.blocks import ConvNeXt, DenseBlock, DoubleConv, DoubleConvs, MBConv, ResidualBlock
from trilemma.networks.embeddings import Sinusoidal, TimeAndClass
from trilemma.networks.norms import ConditionedNorm, GroupNorm, Style, TokenNorm, norm_of
from trilemma.networks.resampling import DOWN, UP, Pool, StridedDown


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


STYLE = Style(embedding=6)
PLAIN = Style(entry="bottom")


class TestEntry:
    def test_added_is_before_the_norm(self) -> None:
        part = awake(ConditionedNorm(8, STYLE))
        h, e = rand(2, 8, 3, 3), rand(2, 6, seed=1)
        torch.testing.assert_close(part(h, e), part.norm(h + part.embed(e)[:, :, None, None]))

    def test_adagn_scales_and_shifts_what_is_normalised(self) -> None:
        """B: AdaGN(h, y) = y_s GroupNorm(h) + y_b; here y_s = 1 + W_s e, so that zero weights leave the norm alone."""
        part = awake(ConditionedNorm(8, Style(embedding=6, entry="adagn")))
        h, e = rand(2, 8, 3, 3), rand(2, 6, seed=1)
        y = part.embed(e)
        expected = (1 + y[:, :8, None, None]) * part.norm(h) + y[:, 8:, None, None]
        torch.testing.assert_close(part(h, e), expected)

    @pytest.mark.parametrize("entry", ["after", "bottom"])
    def test_elsewhere_the_norm_is_alone(self, entry: str) -> None:
        part = ConditionedNorm(8, Style(embedding=6, entry=entry))  # type: ignore[arg-type]
        assert part.embed is None
        h = rand(2, 8, 3, 3)
        torch.testing.assert_close(part(h, None), functional.group_norm(h, 2, eps=1e-6))

    def test_layer_norm_is_over_channels_and_positions(self) -> None:
        h = rand(2, 8, 3, 3) * 3 + 2
        found = norm_of("layer", None, 1e-6)(8)(h)
        torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.var((1, 2, 3), correction=0), torch.ones(2))


class TestBlocks:
    def test_biggan_down_is_a_block_on_the_averaged_features(self) -> None:
        """Averaging commutes with the 1×1 shortcut, and stands before the first convolution."""
        block = awake(ResidualBlock(8, 12, STYLE, "down"))
        x, e = rand(1, 8, 6, 6), rand(1, 6)
        h = functional.avg_pool2d(functional.silu(block.norm1(x)), 2)
        h = block.conv2(functional.silu(block.norm2(block.conv1(h), e)))
        torch.testing.assert_close(block(x, e), h + functional.avg_pool2d(block.shortcut(x), 2))

    def test_biggan_up_repeats_and_takes_any_size(self) -> None:
        block = awake(ResidualBlock(8, 8, STYLE, "up"))
        x, e = rand(1, 8, 3, 3), rand(1, 6)
        h = functional.silu(block.norm1(x)).repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = block.conv2(functional.silu(block.norm2(block.conv1(h), e)))
        torch.testing.assert_close(block(x, e, (6, 6)), h + x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        assert block(x, e, (5, 6)).shape == (1, 8, 5, 6)

    @pytest.mark.parametrize("kind", [ResidualBlock, MBConv])
    def test_residual_blocks_begin_as_the_identity(self, kind: type[nn.Module]) -> None:
        x = rand(2, 8, 5, 5)
        assert torch.equal(kind(8, 8, STYLE)(x, rand(2, 6)), x)

    def test_convnext_begins_near_the_identity(self) -> None:
        x = rand(2, 8, 5, 5)
        torch.testing.assert_close(ConvNeXt(8, 8, STYLE)(x, rand(2, 6)), x, atol=1e-5, rtol=0)

    def test_squeeze_and_excitation_weighs_whole_channels(self) -> None:
        """With the last step of the excitation at zero every channel is halved: sigmoid(0)."""
        block = awake(MBConv(8, 8, PLAIN))
        x = rand(2, 8, 5, 5)
        assert block.expand[0].out_channels == 32
        assert block.excite[1].out_channels == 2
        for part in (block.excite[3].weight, block.excite[3].bias):
            nn.init.zeros_(part)
        h = functional.silu(block.entry(block.depthwise(block.expand(block.norm(x))), None))
        torch.testing.assert_close(block(x, None), x + block.project(h / 2), atol=1e-4, rtol=1e-4)

    def test_a_linked_double_convolution_is_act_of_the_sum(self) -> None:
        """D 2.3: F.gelu(self.residual_conv(x) + self.double_conv(x))."""
        style = Style(norm_of("layer", None, 1e-5), nn.GELU, "bottom")
        block = awake(DoubleConv(6, 10, style, "link"))
        x = rand(2, 6, 5, 5)
        inner = block.norm2(block.conv2(functional.gelu(block.norm1(block.conv1(x), None))))
        torch.testing.assert_close(block(x, None), functional.gelu(block.shortcut(x) + inner))

    @pytest.mark.parametrize(("end", "act"), [("norm", nn.Identity()), ("activation", nn.GELU())])
    def test_how_a_double_convolution_without_a_link_ends(self, end: Any, act: nn.Module) -> None:
        block = awake(DoubleConv(6, 10, Style(activation=nn.GELU, entry="bottom"), end, middle=4))
        x = rand(2, 6, 5, 5)
        assert block.conv1.out_channels == block.conv2.in_channels == 4
        inner = block.norm2(block.conv2(functional.gelu(block.norm1(block.conv1(x), None))))
        torch.testing.assert_close(block(x), act(inner))

    def test_of_the_linked_ones_each_sum_is_rescaled(self) -> None:
        """D 2.3, 4DoubleConvBlocks."""
        block = awake(DoubleConv(6, 6, Style(activation=nn.GELU, entry="bottom", rescale=True), "link"))
        x = rand(2, 6, 5, 5)
        inner = block.norm2(block.conv2(functional.gelu(block.norm1(block.conv1(x), None))))
        torch.testing.assert_close(block(x), functional.gelu((x + inner) / math.sqrt(2)))

    @pytest.mark.parametrize(
        ("links", "ends"),
        [
            ("none", ["activation"]),
            ("same", ["link", "norm"]),
            ("all", ["link", "link"]),
            ("same", ["link", "link", "link", "norm"]),
        ],
    )
    def test_which_double_convolutions_are_linked(self, links: Any, ends: list[str]) -> None:
        """E's is not; D's baseline links the first of two, AdditionalResLink both, 4DoubleConvBlocks three of four."""
        block = DoubleConvs(6, 10, PLAIN, repeats=len(ends), links=links)
        assert [part.end for part in block.parts] == ends
        assert [part.shortcut is not None for part in block.parts] == [end == "link" for end in ends]
        assert [part.conv2.out_channels for part in block.parts] == [6] * (len(ends) - 1) + [10]

    @pytest.mark.parametrize(("inputs", "outputs", "middle"), [(64, 128, 128), (256, 256, 256), (512, 128, 256)])
    def test_the_middle_of_d_s_last_double_convolution(self, inputs: int, outputs: int, middle: int) -> None:
        """On the way down its output's width, on the way up half its input's."""
        for links in ("same", "all"):
            parts = DoubleConvs(inputs, outputs, PLAIN, repeats=2, links=links).parts  # type: ignore[arg-type]
            assert [part.conv1.out_channels for part in parts] == [inputs, middle]

    def test_each_dense_convolution_sees_all_before_it(self) -> None:
        block = DenseBlock(6, 10, PLAIN)
        assert [conv.in_channels for conv in block.convs] == [6, 16, 26, 36]
        assert block.fuse.in_channels == 46

    def test_a_convnext_block_is_depthwise_seven_wide(self) -> None:
        """Its norm is over the channels of a position: no position sees another but by the convolution."""
        block = awake(ConvNeXt(8, 8, PLAIN))
        x = rand(1, 8, 9, 9).requires_grad_()
        (whole,) = torch.autograd.grad(block(x, None)[0, :, 4, 4].sum(), x)
        (own,) = torch.autograd.grad(block.depthwise(x)[0, 3, 4, 4], x)
        seen = whole.abs().sum((0, 1)).nonzero()
        assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == ([1, 1], [7, 7])
        assert (own[0, 3] != 0).sum() == 49
        assert own[0, [0, 1, 2, 4, 5, 6, 7]].abs().max() == 0


class TestResampling:
    @pytest.mark.parametrize("size", [(8, 6), (7, 5), (4, 3)])
    def test_aligned_corners_stay_where_they_are(self, size: tuple[int, int]) -> None:
        """A plane is a plane again, between the same corners; unaligned, its edges are flat."""
        rows, columns = torch.linspace(0, 3, 4)[:, None], torch.linspace(0, 2, 3)
        x = (5 * rows + columns)[None, None]
        wanted = 5 * torch.linspace(0, 3, size[0])[:, None] + torch.linspace(0, 2, size[1])
        torch.testing.assert_close(UP["bilinear_aligned"](1, PLAIN)(x, None, size)[0, 0], wanted)
        if size == (8, 6):
            assert (UP["bilinear"](1, PLAIN)(x, None, size)[0, 0] - wanted).abs().max() > 0.5

    def test_blurring_is_channel_by_channel(self) -> None:
        """D's filter, 1/16 of [[1, 2, 1], [2, 4, 2], [1, 2, 1]], then the pooling."""
        x = torch.zeros(1, 2, 6, 6)
        x[0, 0, 2, 2] = 16.0
        found = Pool(2, PLAIN, "max", blur=True)(x, None)
        assert found[0, 0].tolist() == [[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]]
        assert found[0, 1].abs().max() == 0

    def test_the_summed_filter_makes_every_channel_the_same(self) -> None:
        x = rand(2, 3, 8, 8)
        found = DOWN["blurred_summed"](3, PLAIN)(x, None)
        kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
        # D's code: the filter repeated over [in_channels, in_channels].
        same = functional.conv2d(x, kernel.repeat(3, 3, 1, 1), padding="same")
        torch.testing.assert_close(found, functional.max_pool2d(same, 2))
        torch.testing.assert_close(found[:, :1].expand(-1, 3, -1, -1), found)

    @pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 3)])
    def test_every_way_down_rounds_up(self, size: tuple[int, int]) -> None:
        for down in DOWN.values():
            found = down(8, STYLE)(rand(1, 8, *size), rand(1, 6))
            assert found.shape[-2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)

    def test_averages_leave_a_constant_as_it_is(self) -> None:
        x = torch.full((1, 4, 5, 7), 3.0)
        assert torch.equal(DOWN["average"](4, STYLE)(x, None), torch.full((1, 4, 3, 4), 3.0))

    def test_same_padding_is_tensorflows(self) -> None:
        """SAME with stride 2 pads even sizes at the end only and odd ones on both sides."""
        down = StridedDown(1, PLAIN, same=True)
        nn.init.ones_(down.conv.weight)
        nn.init.zeros_(down.conv.bias)  # type: ignore[arg-type]
        assert down(torch.ones(1, 1, 4, 4), None)[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]
        assert down(torch.ones(1, 1, 3, 3), None)[0, 0].tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_attention_head_by_head() -> None:
    """softmax(q kᵀ/√d) v in each head, heads being consecutive channels of q, k and v."""
    part = awake(SelfAttention(8, 2, PLAIN))
    x = rand(2, 8, 3, 4)
    q, k, v = part.qkv(part.norm(x)).flatten(2).split(8, dim=1)
    heads = []
    for channels in (slice(0, 4), slice(4, 8)):
        scores = torch.einsum("ncl,ncm->nlm", q[:, channels], k[:, channels]) / math.sqrt(4)
        heads.append(torch.einsum("nlm,ncm->ncl", scores.softmax(-1), v[:, channels]))
    expected = x + part.project(torch.cat(heads, 1).reshape(2, 8, 3, 4))
    torch.testing.assert_close(part(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rescale", [False, True])
def test_a_transformer_layer_is_pytorch_s(rescale: bool) -> None:
    """PyTorch's own, normalised first; √2 is the blocks', so `rescale` changes nothing here."""
    torch.manual_seed(0)
    part = TransformerLayer(12, 4, Style(rescale=rescale, zero_init=False))
    x = rand(2, 12, 5, 3)
    theirs = nn.TransformerEncoderLayer(12, 4, 12, 0.0, "gelu", batch_first=True, norm_first=True)
    given = awake(theirs).state_dict()
    names = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "project.", "norm1.": "norm.", "norm2.": "feed.0."}
    names |= {"linear1.": "feed.1.", "linear2.": "feed.3."}
    part.load_state_dict(
        {ours + kind: given[name + kind] for name, ours in names.items() for kind in ("weight", "bias")}
    )
    expected = theirs.train()(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(part(x), expected)


def test_a_transformer_layer_begins_as_multihead_attention_does() -> None:
    """In the same draws of weights, and with the same zero biases; as the identity if that is how branches begin."""
    torch.manual_seed(0)
    part = TransformerLayer(64, 4, Style(zero_init=False))
    theirs = nn.MultiheadAttention(64, 4)
    assert part.qkv.weight.std().item() == pytest.approx(theirs.in_proj_weight.std().item(), rel=0.02)
    assert part.qkv.bias.abs().max() == part.project.bias.abs().max() == 0 < part.project.weight.std()
    asleep, x = TransformerLayer(64, 4, Style()), rand(1, 64, 3, 3)
    assert torch.equal(asleep(x), x)


def test_token_norm_is_over_the_channels_of_a_position() -> None:
    h = rand(2, 8, 3, 5) * 3 + 2
    found = TokenNorm(8)(h)
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 3, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.var(1, correction=0), torch.ones(2, 3, 5))


def test_raw_sinusoids_are_all_there_is_of_a_time() -> None:
    """D: what the blocks' linear layers are given is silu of the sinusoids, and of the class's vector with them."""
    time, label = torch.tensor([3.0, 400.0]), torch.tensor([1, 0])
    raw = TimeAndClass(None, 16, 3)
    assert [name for name, _ in raw.named_parameters()] == ["label.weight"] and raw.dim == 16
    torch.testing.assert_close(raw(time, None), functional.silu(Sinusoidal(16)(time)))
    torch.testing.assert_close(raw(time, label), functional.silu(Sinusoidal(16)(time) + raw.label(label)))


def test_the_slowest_frequency_at_the_endpoint() -> None:
    """Ho et al. divide by half − 1, so that the last frequency is 1/10 000 exactly."""
    assert Sinusoidal(8, endpoint=True).frequencies[-1].item() == pytest.approx(1e-4)
    assert Sinusoidal(8).frequencies[-1].item() == pytest.approx(10000 ** (-3 / 4))


@pytest.mark.parametrize("size", [(5, 7), (28, 28), (32, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 5.0, 200.0])
def test_group_norm_is_the_same_in_either_memory_format(size: tuple[int, int], mean: float, dtype: torch.dtype) -> None:
    """Both ways of taking it, with gradients and without, against double precision; at means far from zero too, but in
    fp32, where PyTorch's own way loses digits."""
    if mean > 100 and dtype is torch.float32:
        mean = 20.0
    norm = GroupNorm(4, 16, eps=1e-6)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    x = (rand(3, 16, *size) * 2 + mean).to(dtype)
    wanted = x.double().requires_grad_()
    expected = functional.group_norm(wanted, 4, norm.weight.double(), norm.bias.double(), 1e-6)
    expected.backward(rand(*x.shape, seed=3).double())
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 0.03, "atol": 0.1}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.detach().clone(memory_format=memory_format)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            with torch.no_grad():
                torch.testing.assert_close(norm(given).double(), expected, **tolerance)
            given.requires_grad_()
            found = norm(given)
        torch.testing.assert_close(found.double(), expected, **tolerance)
        found.backward(rand(*x.shape, seed=3).to(found.dtype))
        assert given.grad is not None
        torch.testing.assert_close(given.grad.double(), wanted.grad, **tolerance)


@pytest.mark.parametrize("tokens", [49, 600])
def test_attention_in_bf16_is_close(tokens: int) -> None:
    q, k, v = (rand(2, 3, tokens, 8, seed=i) for i in range(3))
    expected = functional.scaled_dot_product_attention(q, k, v)
    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)
