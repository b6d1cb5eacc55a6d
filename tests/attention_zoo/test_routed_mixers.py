"""Mixers that choose what is read: heads, clusters, windows and keys; and the losses of their own."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.losses import with_auxiliary_loss
from attention_zoo.mixers.protocols import AuxiliaryLoss, Kept
from attention_zoo.mixers.registry import mixer_class
from attention_zoo.mixers.token_aware_pooling import TokenAwarePooling, dilated_mean, likeness

DIM, HEADS = 20, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def build(name, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, DIM, HEADS, dtype=torch.float64, **options).eval()


def tokens(number, batch=2, seed=1):
    return torch.randn(batch, number, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    return module


def softmax_of(q, k):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


@pytest.mark.parametrize(
    "outer", [mixer_class("Kuramoto"), mixer_class("MixtureOfHeads"), az.Axial, az.TokenAwarePooling]
)
@pytest.mark.parametrize("inner", ["Nothing", "KMeansCross", 3, ""])
def test_a_mixer_that_cannot_be_inside_is_refused_by_the_one_outside(outer, inner):
    with pytest.raises(az.InputError, match=f"^{outer.__name__}: mixer={inner}") as refusal:
        outer(12, 2, mixer=inner)
    assert len(str(refusal.value).splitlines()) == 1


def test_oscillators_are_coupled_by_queries_alone():
    with pytest.raises(az.InputError, match="^Kuramoto: mixer=GatedConv: GatedConv: "):
        az.create_mixer("Kuramoto", 12, 2, mixer="GatedConv", grid=(2, 2))


class TestMixtureOfHeads:
    @pytest.mark.parametrize("inside", ["DotProduct", "VarsD", "Linear"])
    def test_shared_heads_of_equal_weight_are_the_reading_inside(self, inside):
        mixer, plain = build("MixtureOfHeads", mixer=inside, shared=HEADS), build(inside)
        plain.load_state_dict({name: mixer.state_dict().get(name, value) for name, value in plain.state_dict().items()})
        inner = {f"inside.{name}": value for name, value in plain.state_dict().items()}
        mixer.load_state_dict({**mixer.state_dict(), **{n: v for n, v in inner.items() if n in mixer.state_dict()}})
        with torch.no_grad():
            mixer.of_shared.weight.zero_()
        assert_close(mixer(tokens(7)), plain(tokens(7)), **EXACT)

    def test_the_released_gates(self):
        mixer, x = randomise(build("MixtureOfHeads", shared=2, routed=2, topk=1)), tokens(7)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in mixer.qkv(x).chunk(3, -1))
        heads = (softmax_of(q, k) @ v).transpose(1, 2)  # (B, N, H, D)
        chances = F.softmax(x @ mixer.of_routed.weight.T, -1)
        mask = F.one_hot(chances.topk(1, -1).indices, 2).sum(-2)
        routed = chances * mask / (chances * mask).sum(-1, keepdim=True) * 1
        shared = F.softmax(x @ mixer.of_shared.weight.T, -1) * 2
        kinds = F.softmax(x @ mixer.of_kinds.weight.T, -1) * 2
        gates = torch.cat((shared * kinds[..., :1], routed * kinds[..., 1:]), -1)
        assert_close(mixer(x), mixer.proj((heads * gates[..., None]).flatten(2)), **EXACT)

    def test_the_loss_is_topk_where_loads_are_even_and_grows_with_the_imbalance(self):
        mixer = build("MixtureOfHeads", shared=0, routed=4, topk=2, balance=1.0).train()
        chances = torch.eye(4, dtype=torch.float64)[None].expand(3, -1, -1)
        even = torch.roll(chances, 1, -1) + chances
        assert_close(mixer.imbalance(chances, even), torch.tensor(2.0, dtype=torch.float64))
        one = torch.tensor([[[1.0, 0, 0, 0]]], dtype=torch.float64).expand(3, 5, 4)
        assert mixer.imbalance(one, one + one.roll(1, -1)) == 4.0
        with torch.no_grad():
            mixer.of_routed.weight.zero_()
        mixer(tokens(9))
        assert_close(az.auxiliary_loss(mixer), torch.tensor(2.0, dtype=torch.float64))

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"shared": 3, "routed": 2}, "shared=3 and routed=2 must be num_heads=4"),
            ({"shared": 5}, "shared=5 and routed=-1"),
            ({"shared": 1, "topk": 4}, "topk=4 must be 1 to routed=3"),
            ({"shared": 1, "topk": 0}, "topk=0 must be 1 to routed=3"),
            ({"mixer": "GatedConv", "grid": (2, 2)}, "GatedConv does not read queries"),
            ({"mixer": "MixtureOfHeads"}, "MixtureOfHeads does not read queries"),
            ({"mixer": 3}, "mixer=3"),
        ],
    )
    def test_refusals(self, options, named):
        with pytest.raises(az.InputError, match=f"MixtureOfHeads.*{named}"):
            build("MixtureOfHeads", **options)

    def test_queries_stand_for_tokens_where_there_are_none(self):
        mixer = randomise(build("MixtureOfHeads", shared=1))
        q, k, v = mixer.project(tokens(7))
        q, _ = mixer.split_tokens(q)
        gates = mixer.gates(q.transpose(1, 2).flatten(2))
        assert_close(mixer.drop_projections().mix(q, k, v), softmax_of(q, k) @ v * gates, **EXACT)


class TestRouting:
    def test_one_cluster_is_attention_of_unit_queries_and_keys(self):
        mixer, plain = build("Routing", clusters=1), build("DotProduct")
        plain.load_state_dict(mixer.state_dict(), strict=False)
        q, k, v = mixer.project(tokens(7))
        assert_close(mixer.mix(q, k, v), plain.mix(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v), **EXACT)

    @pytest.mark.parametrize(("number", "clusters"), [(7, 3), (16, 4), (5, 8)])
    def test_naive_form(self, number, clusters):
        mixer = build("Routing", clusters=clusters)
        q, k, v = mixer.project(tokens(number))
        size = max(2, -(-number // clusters))
        q_hat, k_hat = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        expected = torch.zeros_like(v)
        for b in range(2):
            for h in range(HEADS):
                taken = torch.zeros(number, 1, dtype=torch.float64)
                for centroid in mixer.centroids[h]:
                    asked, read = ((x[b, h] @ centroid).topk(size).indices for x in (q_hat, k_hat))
                    expected[b, h, asked] += softmax_of(q_hat[b, h, asked], k_hat[b, h, read]) @ v[b, h, read]
                    taken[asked] += 1
                expected[b, h] /= taken.clamp(min=1)
        assert_close(mixer.mix(q, k, v), expected, **EXACT)

    def test_the_first_batch_moves_centroids_to_the_means_and_later_ones_a_little(self):
        mixer, x = build("Routing", clusters=2, decay=0.9).train(), tokens(9)
        q, k, _ = mixer.project(x)
        both = F.normalize(torch.cat((q, k), 2), dim=-1)
        for stays in (0.0, 0.9):
            before = mixer.centroids.clone()
            mixer(x)
            nearest = (both @ before.mT).argmax(-1)
            for h in range(HEADS):
                for c in range(2):
                    mean = F.normalize(both[:, h][nearest[:, h] == c].sum(0), dim=0)
                    expected = stays * before[h, c] + (1 - stays) * mean if mean.any() else before[h, c]
                    assert_close(mixer.centroids[h, c], expected, **EXACT)
        assert mixer.updates == 2

    def test_the_loss_pulls_to_the_nearest_centroid(self):
        mixer, x = build("Routing", clusters=1, commitment=1.0).train(), tokens(9).requires_grad_()
        mixer(x)
        q, k, _ = mixer.project(x)
        both = F.normalize(torch.cat((q, k), 2), dim=-1)
        expected = (both - mixer.centroids).square().mean()
        loss = az.auxiliary_loss(mixer)
        assert_close(loss, expected, **EXACT)
        assert torch.autograd.grad(loss, x)[0].abs().sum() > 0

    def test_evaluation_changes_nothing(self):
        mixer = build("Routing")
        before = copy.deepcopy(mixer.state_dict())
        mixer(tokens(9))
        assert_close(mixer.state_dict(), before, rtol=0, atol=0)


class TestVariedSizeWindow:
    @pytest.mark.parametrize("prefix", [0, 2])
    def test_windows_that_stay_are_window_attention(self, prefix):
        host = {"grid": (4, 6), "num_prefix_tokens": prefix, "window": 2}
        moving, plain = build("VariedSizeWindow", **host), randomise(build("Window", **host))
        moving.load_state_dict({**moving.state_dict(), **plain.state_dict()})
        assert_close(moving(tokens(24 + prefix)), plain(tokens(24 + prefix)), **EXACT)

    @pytest.mark.parametrize("grid", [(4, 4), (5, 3), (1, 1)])
    def test_naive_form(self, grid):
        mixer = randomise(build("VariedSizeWindow", grid=grid, window=2))
        w = tuple(min(2, n) for n in grid)
        size = tuple(-(-n // side) * side for n, side in zip(grid, w, strict=True))
        x = tokens(grid[0] * grid[1])
        q, k, v = mixer.project(x)
        q = q[..., : DIM // HEADS]
        image = F.pad(x.transpose(1, 2).unflatten(-1, grid), (0, size[1] - grid[1], 0, size[0] - grid[0]))
        means = F.leaky_relu(F.avg_pool2d(image, w))
        scale, offset = (conv(means).unflatten(1, (HEADS, 2)) for conv in (mixer.scales, mixer.offsets))

        def at(values, row, column):  # bilinear, zero outside
            total = torch.zeros(values.shape[-1], dtype=torch.float64)
            for r in (int(row // 1), int(row // 1) + 1):
                for c in (int(column // 1), int(column // 1) + 1):
                    if 0 <= r < grid[0] and 0 <= c < grid[1]:
                        total += (1 - abs(row - r)) * (1 - abs(column - c)) * values[r * grid[1] + c]
            return total

        expected = torch.zeros_like(v)
        with torch.no_grad():
            for b in range(2):
                for h in range(HEADS):
                    for row in range(grid[0]):
                        for column in range(grid[1]):
                            wr, wc = row // w[0], column // w[1]
                            keys, values, bias = [], [], []
                            for r in range(wr * w[0], wr * w[0] + w[0]):
                                for c in range(wc * w[1], wc * w[1] + w[1]):
                                    middle = wr * w[0] + (w[0] - 1) / 2, wc * w[1] + (w[1] - 1) / 2
                                    sx, sy = scale[b, h, :, wr, wc].tolist()
                                    ox, oy = offset[b, h, :, wr, wc].tolist()
                                    pr = r + sy * (r - middle[0]) + oy * (size[0] - 1) / 2 / (size[0] // w[0])
                                    pc = c + sx * (c - middle[1]) + ox * (size[1] - 1) / 2 / (size[1] // w[1])
                                    keys.append(at(k[b, h], pr, pc))
                                    values.append(at(v[b, h], pr, pc))
                                    bias.append(mixer.relative_bias[h, row - r + 1, column - c + 1])
                            score = torch.stack(keys) @ q[b, h, row * grid[1] + column] / (DIM // HEADS) ** 0.5
                            weights = (score + torch.stack(bias)).softmax(0)
                            expected[b, h, row * grid[1] + column] = weights @ torch.stack(values)
        assert_close(mixer.mix(*mixer.project(x)), expected, **EXACT)

    def test_gradients_where_windows_have_moved(self):
        mixer = randomise(build("VariedSizeWindow", grid=(2, 3), window=2))
        assert torch.autograd.gradcheck(mixer, (tokens(6, batch=1).requires_grad_(),))


class TestSparsifier:
    def test_keeping_all_keys_is_dot_product(self):
        mixer, plain = build("Sparsifier", grid=(3, 5), keep=1.0), build("DotProduct")
        plain.load_state_dict(mixer.state_dict(), strict=False)
        assert_close(mixer(tokens(15)), plain(tokens(15)), **EXACT)

    def test_a_query_reads_its_share_and_a_prefix_token_all(self):
        mixer = build("Sparsifier", grid=(3, 5), keep=0.25, num_prefix_tokens=1)
        read = (mixer.attention_map(tokens(16)) > 0).sum(-1)
        assert (read[..., 0] == 16).all() and (read[..., 1:] == 4).all()

    def test_the_guess_learns_from_its_own_loss_alone(self):
        mixer, x = build("Sparsifier", grid=(3, 5)), tokens(15)
        guess = [name for name, _ in mixer.named_parameters() if name.startswith(("guess", "basis"))]
        in_evaluation = _gradients(mixer, mixer(x).square().sum())
        in_training = _gradients(mixer.train(), mixer(x).square().sum())
        q, k, _ = mixer.project(x)
        of_loss = _gradients(mixer, mixer.loss(mixer.guessed(q, k), q, k))
        for name in in_training:
            assert_close(in_training[name], (of_loss if name in guess else in_evaluation)[name], **EXACT)
            assert ((of_loss[name] != 0).any() == (name in guess)) and (
                (in_evaluation[name] == 0).all() == (name in guess)
            )

    def test_a_guess_that_is_trained_finds_the_largest_weights(self):
        mixer, x = build("Sparsifier", grid=(2, 4), reduce_tokens=1, reduce_width=1, keep=0.25), 3 * tokens(8, batch=8)
        q, k, _ = mixer.project(x)
        best = softmax_of(q, k).detach()

        def mass():
            return (best * mixer.chosen(mixer.guessed(q, k))).sum(-1).mean()

        optimiser, before = torch.optim.Adam(mixer.parameters(), 0.03), mass()
        for _ in range(60):
            optimiser.zero_grad()
            F.mse_loss(mixer.guessed(q, k), best).backward()
            optimiser.step()
        assert mass() > before + 0.05

    def test_another_grid_resamples(self):
        mixer = build("Sparsifier", grid=(4, 4))
        with torch.no_grad():
            mixer.basis_in.copy_(torch.ones_like(mixer.basis_in))
        mixer.set_grid((6, 3))
        assert_close(mixer.on_grid(mixer.basis_in, 18), torch.ones(18, 2, dtype=torch.float64))
        assert mixer(tokens(18)).shape == (2, 18, DIM)


class TestTokenAwarePooling:
    def build(self, **options):
        torch.manual_seed(0)
        return TokenAwarePooling(DIM, HEADS, dtype=torch.float64, grid=(3, 4), **options).eval()

    def test_one_scale_is_the_mixer_inside(self):
        mixer = self.build(scales=1, mixer="VarsD", num_prefix_tokens=1)
        assert_close(mixer(tokens(13)), mixer.inside(tokens(13)), **EXACT)

    @pytest.mark.parametrize("dilation", [1, 2, 5])
    def test_the_released_pooling(self, dilation):
        image = tokens(12).transpose(1, 2).unflatten(-1, (3, 4))
        unfolded = F.unfold(image, 3, dilation=dilation, padding=dilation)
        assert_close(dilated_mean(image, dilation), unfolded.unflatten(1, (DIM, 9)).mean(2).unflatten(-1, (3, 4)))

    def test_the_released_loss(self):
        weights = torch.rand(3, HEADS, 7, 7, dtype=torch.float64).softmax(-1) ** 3
        mean = weights.mean(1)
        score = mean.mean(1, keepdim=True)
        mean, score = (mean > 2 / 7) * mean, (score > 2 / 7) * score
        assert_close(likeness(weights), F.cosine_similarity(score, mean, dim=-1).mean())
        same = torch.eye(7, dtype=torch.float64)[:1].expand(2, HEADS, 7, 7)
        assert_close(likeness(same), torch.tensor(1.0, dtype=torch.float64))

    def test_gradients_and_the_loss_in_training(self):
        mixer = self.build(diversity=1.0).train()
        out = mixer(3 * tokens(12))
        (out.square().sum() + az.auxiliary_loss(mixer)).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())

    def test_in_a_model(self):
        model = VisionTransformer(img_size=16, patch_size=4, embed_dim=DIM, depth=2, num_heads=HEADS, num_classes=3)
        az.swap_mixers(model, "TokenAwarePooling", mixer="DotProduct", scales=2)
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)


class TestOwnLosses:
    def test_a_model_hands_out_the_sum_once(self):
        model = VisionTransformer(img_size=16, patch_size=4, embed_dim=DIM, depth=2, num_heads=HEADS, num_classes=3)
        az.swap_mixers(model, "Routing", commitment=1.0)
        outputs = with_auxiliary_loss(model.train(), model(torch.randn(2, 3, 16, 16)))
        assert outputs.aux_loss > 0 and outputs.logits.shape == (2, 3)
        assert az.auxiliary_loss(model) == 0.0
        assert with_auxiliary_loss(model, az.Outputs(outputs.logits, (), 0.5)).aux_loss == 0.5

    def test_a_mixer_without_one_adds_nothing(self):
        mixer = build("DotProduct").train()
        mixer(tokens(7))
        assert az.auxiliary_loss(mixer) == 0.0 and not isinstance(mixer, AuxiliaryLoss)

    def test_a_model_with_a_kept_loss_copies_and_pickles(self):
        mixer = build("Routing").train()
        mixer(tokens(7))
        assert mixer.own_loss.value is not None
        for twin in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
            assert isinstance(twin.own_loss, Kept) and twin.own_loss.value is None

    @pytest.mark.parametrize("name", ["MixtureOfHeads", "Routing"])
    def test_compiles_as_one_graph_in_training(self, name):
        mixer, x = build(name, grid=(3, 3)).train(), tokens(9)
        torch.compiler.reset()
        compiled = torch.compile(copy.deepcopy(mixer), fullgraph=True, backend="aot_eager")
        assert_close(compiled(x), mixer(x))
        assert_close(az.auxiliary_loss(compiled), az.auxiliary_loss(mixer))


def _gradients(mixer, loss):
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))
