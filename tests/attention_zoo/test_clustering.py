"""The clustering reading, every registered cross-mixer by being registered, and the self-mixers with centres."""

import copy
import functools
import pickle

import pytest
import sklearn.cluster
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import clustering
from tests.reference import naive_clustering as naive

CROSS = az.list_mixers("cross")
DIM, HEADS = 12, 2
LLOYD = {"metric": "euclidean", "reduce": "mean"}
FORMS = [{"metric": metric, "reduce": reduce} for metric in ("dot", "euclidean") for reduce in ("sum", "mean")]
VARIANTS = [(name, {}) for name in CROSS] + [("KMeansCross", LLOYD)]
every = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=[n + ("-lloyd" if o else "") for n, o in VARIANTS])


def build(name, dtype=torch.float64, seed=0, num_heads=HEADS, **options):
    torch.manual_seed(seed)
    return az.create_mixer(name, DIM, num_heads, dtype=dtype, **options).eval()


def random(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def inputs(queries=5, pixels=9, batch=2, dtype=torch.float64):
    return random(batch, queries, DIM, dtype=dtype), random(batch, pixels, DIM, seed=2, dtype=dtype)


@every
class TestEveryCrossMixer:
    def test_samples_do_not_meet(self, name, options):
        mixer, (queries, pixels) = build(name, **options), inputs(batch=3)
        for together, alone in zip(mixer(queries, pixels), mixer(queries[1:2], pixels[1:2]), strict=True):
            assert_close(together[1:2], alone)

    def test_empty_batch(self, name, options):
        updated, logits = build(name, **options)(*inputs(batch=0))
        assert updated.shape == (0, 5, DIM) and logits.shape == (0, 5, 9)

    def test_the_order_of_pixels_does_not_matter_to_queries(self, name, options):
        mixer, (queries, pixels), order = build(name, **options), inputs(), torch.randperm(9)
        updated, logits = mixer(queries, pixels)
        assert_close(mixer(queries, pixels[:, order]), (updated, logits[:, :, order]))

    def test_permuting_queries_permutes_both_outputs(self, name, options):
        mixer, (queries, pixels), order = build(name, **options), inputs(), torch.randperm(5)
        updated, logits = mixer(queries, pixels)
        assert_close(mixer(queries[:, order], pixels), (updated[:, order], logits[:, order]))

    def test_gradients(self, name, options):
        queries, pixels = (x.requires_grad_() for x in inputs(queries=3, pixels=4, batch=1))
        assert torch.autograd.gradcheck(build(name, **options), (queries, pixels))

    def test_every_parameter_gets_a_gradient(self, name, options):
        mixer = build(name, qkv_bias=True, **options).train()
        updated, logits = mixer(*inputs())
        (updated.square().sum() + logits.square().sum()).backward()
        for parameter_name, parameter in mixer.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name

    def test_float32_agrees_with_float64(self, name, options):
        double, single = build(name, **options), build(name, torch.float32, **options)
        single.load_state_dict(double.state_dict())
        expected = [out.float() for out in double(*inputs(pixels=64))]
        single_inputs = [x.float() for x in inputs(pixels=64)]
        assert_close(list(single(*single_inputs)), expected, rtol=1e-4, atol=1e-4)

    def test_bfloat16_autocast(self, name, options):
        mixer = build(name, torch.float32, **options)
        queries, pixels = (x.requires_grad_() for x in inputs(dtype=torch.float32))
        with torch.autocast("cpu", torch.bfloat16):
            updated, logits = mixer(queries, pixels)
        (updated.square().sum() + logits.float().square().sum()).backward()
        assert queries.grad.isfinite().all() and pixels.grad.isfinite().all()
        assert_close((updated, logits.float()), mixer(queries, pixels), rtol=0.1, atol=0.1)

    def test_compiles_as_one_graph(self, name, options):
        mixer, x = build(name, torch.float32, **options), inputs(dtype=torch.float32)
        torch.compiler.reset()  # all mixers share one forward, which torch compiles a few times at most
        compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
        assert_close(compiled(*x), mixer(*x))

    def test_state_copies_and_pickles(self, name, options):
        mixer, x = build(name, **options), inputs()
        other = build(name, seed=5, **options)
        other.load_state_dict(mixer.state_dict())
        for twin in (other, copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
            assert_close(twin(*x), mixer(*x), rtol=0, atol=0)

    def test_attention_map_is_what_is_read(self, name, options):
        mixer, x = build(name, **options), inputs()
        q, k, _ = mixer.project(*x)
        weights = mixer.attention_map(*x)
        assert weights.shape == (2, HEADS, 5, 9)
        each_pixel = torch.eye(9, dtype=torch.float64).expand(2, HEADS, 9, 9)
        assert_close(mixer.read(mixer.affinity(q, k), each_pixel), weights)

    def test_mask_logits_of_a_predictor_serve_all_heads(self, name, options):
        mixer, mask_logits, v = build(name, **options), random(2, 1, 5, 9), random(2, HEADS, 9, 6, seed=2)
        assert_close(mixer.read(mask_logits, v), mixer.read(mask_logits.expand(2, HEADS, 5, 9), v))

    def test_assignments_sum_to_one_over_the_queries(self, name, options):
        shares = build(name, **options).assignments(*inputs())
        assert shares.shape == (2, HEADS, 5, 9)
        assert shares.min() >= 0
        assert_close(shares.sum(2), torch.ones(2, HEADS, 9, dtype=torch.float64))

    def test_logits_are_the_affinity(self, name, options):
        for num_heads in (1, HEADS):
            mixer = build(name, num_heads=num_heads, **options)
            queries, pixels = inputs()
            q, k = mixer.q(queries), mixer.k(pixels)
            expected = q @ k.mT
            if options.get("metric") == "euclidean":
                expected = expected - q.square().sum(-1, keepdim=True) / 2
            # dot products add up over the heads, so their mean is that of the full width over the heads
            assert_close(mixer(queries, pixels)[1], expected * (DIM / num_heads) ** -0.5 / num_heads)

    def test_widths_that_do_not_fit(self, name, options):
        mixer, (queries, pixels) = build(name, **options), inputs()
        with pytest.raises(az.InputError, match=rf"{name}.*queries of shape \(2, 5, 11\)"):
            mixer(queries[..., :-1], pixels)
        with pytest.raises(az.InputError, match=rf"{name}.*pixels of shape \(2, 9, 11\)"):
            mixer(queries, pixels[..., :-1])
        with pytest.raises(az.InputError, match=rf"{name}.*pixels of shape \(1, 9, 12\)"):
            mixer(queries, pixels[:1])

    def test_heads_that_do_not_divide(self, name, options):
        for dim, num_heads in ((10, 3), (0, 1), (4, 0)):
            with pytest.raises(az.InputError, match=f"{name}.*num_heads={num_heads}"):
                az.create_mixer(name, dim, num_heads, **options)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(CROSS),
    queries=st.integers(1, 7),
    pixels=st.integers(1, 20),
    batch=st.integers(1, 3),
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 9),
)
def test_any_shape(name, queries, pixels, batch, num_heads, head_dim):
    dim = num_heads * head_dim
    mixer = az.create_mixer(name, dim, num_heads)
    updated, logits = mixer(torch.randn(batch, queries, dim), torch.randn(batch, pixels, dim))
    assert updated.shape == (batch, queries, dim) and updated.isfinite().all()
    assert logits.shape == (batch, queries, pixels) and logits.isfinite().all()


class TestCrossMixersEqualTheirEquations:
    def check(self, mixer, read):
        """Compare the queries, and their gradients, with ``C + proj(read(q, k, v))`` of tensors (N, D)."""
        x = [part.requires_grad_() for part in inputs()]
        probe = random(2, 5, DIM, seed=3)
        mixed = naive.per_head(read, *mixer.project(*x))
        expected = x[0] + mixer.proj(mixed.transpose(1, 2).flatten(2))
        updated, _ = mixer(*x)
        wanted = [*x, mixer.v.weight, mixer.proj.weight]
        gradients = [torch.autograd.grad((out * probe).sum(), wanted) for out in (updated, expected)]
        assert_close((updated, gradients[0]), (expected, gradients[1]), rtol=1e-10, atol=1e-10)

    def test_cross_attention(self):
        self.check(build("CrossAttention"), naive.softmax_read)

    def test_cross_attention_is_torchs(self):
        self.check(build("CrossAttention"), F.scaled_dot_product_attention)

    def test_cluster_cross(self):
        def read(q, k, v):
            return naive.soft_update(v, naive.probabilities(q, k, "dot"), "sum")

        self.check(build("ClusterCross"), read)

    def test_the_full_update_has_cross_attention_beside_the_clustering(self):
        def read(q, k, v):
            return naive.soft_update(v, naive.probabilities(q, k, "dot"), "sum") + naive.softmax_read(q, k, v)

        mixer = build("ClusterCross", complement=True)
        self.check(mixer, read)
        assert_close(mixer.assignments(*inputs()), build("ClusterCross").assignments(*inputs()))

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_k_means_cross(self, form):
        def read(q, k, v):
            chosen = naive.assign(q, k, form["metric"])
            return naive.hard_update(v, chosen, len(q), form["reduce"], empty=torch.zeros_like(q))

        self.check(build("KMeansCross", **form), read)

    def test_k_means_cross_is_argmax_times_values(self):
        def read(q, k, v):
            one_hot = torch.zeros(len(q), len(k), dtype=v.dtype)
            return one_hot.scatter_(0, (q @ k.mT).argmax(0, keepdim=True), 1.0) @ v

        self.check(build("KMeansCross"), read)

    def test_sharp_clustering_is_k_means(self):
        cluster, k_means = build("ClusterCross"), build("KMeansCross")
        k_means.load_state_dict(cluster.state_dict())
        for mixer in (cluster, k_means):
            mixer.scale = 1e6
        assert_close(cluster(*inputs()), k_means(*inputs()))
        assert_close(cluster.assignments(*inputs()), k_means.assignments(*inputs()))

    def test_the_choice_carries_no_gradient(self):
        mixer = build("KMeansCross")
        queries, pixels = inputs()
        updated, _ = mixer(queries, pixels)
        assert torch.autograd.grad(updated.sum(), [mixer.q.weight, mixer.k.weight], allow_unused=True) == (None, None)


TWINS = {"KMeans": naive.k_means_mixer, "Cluster": naive.cluster_mixer}


@pytest.mark.parametrize("name", TWINS)
class TestSelfMixers:
    @pytest.mark.parametrize("iterations", [1, 3])
    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_equal_their_equations(self, name, form, iterations):
        mixer = build(name, num_clusters=4, iterations=iterations, **form)
        x, probe = random(2, 9, DIM).requires_grad_(), random(2, HEADS, 9, DIM // HEADS, seed=3)
        q, k, v = mixer.project(x)
        learned = mixer.centres.expand(2, -1, -1, -1)
        twin = functools.partial(TWINS[name], iterations=iterations, **form)
        outs = mixer.mix(q, k, v), naive.per_head(twin, q, k, v, learned)
        wanted = [x, mixer.qkv.weight, mixer.centres]
        gradients = [torch.autograd.grad((out * probe).sum(), wanted, retain_graph=True) for out in outs]
        assert_close(outs[0], outs[1], rtol=1e-10, atol=1e-10)
        assert_close(*gradients, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_one_centre_gives_everyone_the_mean(self, name, form):
        mixer = build(name, num_clusters=1, **form)
        q, k, v = mixer.project(random(2, 9, DIM))
        assert_close(mixer.mix(q, k, v), v.mean(2, keepdim=True).expand_as(v))

    @pytest.mark.parametrize("form", FORMS, ids=str)
    def test_the_number_of_tokens_does_not_change_the_scale(self, name, form):
        mixer = build(name, **form)
        few = random(1, 12, DIM)
        many = few.repeat(1, 20, 1)
        assert_close(mixer(many)[:, :12], mixer(few))

    def test_assignments_sum_to_one_over_the_centres(self, name):
        shares = build(name, num_clusters=4).assignments(random(2, 9, DIM))
        assert shares.shape == (2, HEADS, 4, 9)
        assert_close(shares.sum(2), torch.ones(2, HEADS, 9, dtype=torch.float64))

    @pytest.mark.parametrize(
        ("option", "value"),
        [("num_clusters", 0), ("iterations", 0), ("metric", "cosine"), ("reduce", "max"), ("attn_drop", 0.1)],
    )
    def test_options_that_do_not_fit(self, name, option, value):
        with pytest.raises(az.InputError, match=f"{name}.*{option}"):
            az.create_mixer(name, DIM, HEADS, **{option: value})


@pytest.mark.parametrize(("option", "value"), [("metric", "cosine"), ("reduce", "max")])
def test_options_of_k_means_cross_that_do_not_fit(option, value):
    with pytest.raises(az.InputError, match=f"KMeansCross.*{option}"):
        az.create_mixer("KMeansCross", DIM, HEADS, **{option: value})


def test_sharp_clustering_of_tokens_is_k_means():
    cluster, k_means = build("Cluster", num_clusters=4), build("KMeans", num_clusters=4)
    with torch.no_grad():
        cluster.centres.mul_(1e6)
    k_means.load_state_dict(cluster.state_dict())
    x = random(2, 9, DIM)
    assert_close(cluster.assignments(x), k_means.assignments(x))


class TestLloyd:
    def scikit_learn(self, points, centres, iterations=1):
        fitted = sklearn.cluster.KMeans(len(centres), init=centres.numpy(), n_init=1, max_iter=iterations, tol=0)
        return torch.from_numpy(fitted.fit(points.numpy()).cluster_centers_)

    def data(self):
        """60 points, and of those the first 4 as centres, so that no cluster is empty."""
        points = random(60, 6)
        return points, points[:4]

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("iterations", [1, 2, 100])
    def test_self_mixer(self, iterations):
        points, centres = self.data()
        mixer = build("KMeans", num_heads=1, num_clusters=4, iterations=iterations, **LLOYD)
        mixer.centres.data = centres[None]
        assert_close(mixer.cluster(points[None, None])[1][0, 0], self.scikit_learn(points, centres, iterations))

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_cross_mixer(self):
        points, centres = self.data()
        mixer = build("KMeansCross", num_heads=1, **LLOYD)
        affinity = mixer.affinity(centres[None, None], points[None, None])
        assert_close(mixer.read(affinity, points[None, None])[0, 0], self.scikit_learn(points, centres))

    def test_an_empty_cluster_keeps_its_centre(self):
        points, centres = self.data()
        far = torch.full((1, 6), 1e3, dtype=torch.float64)
        mixer = build("KMeans", num_heads=1, num_clusters=5, **LLOYD)
        mixer.centres.data = torch.cat((centres, far))[None]
        moved = mixer.cluster(points[None, None])[1][0, 0]
        assert_close(moved[4:], far)
        assert_close(moved[:4], self.scikit_learn(points, centres))


class TestFunctions:
    @settings(max_examples=25, deadline=None)
    @given(
        heads=st.integers(1, 3),
        pixels=st.integers(1, 30),
        centres=st.integers(1, 8),
        width=st.integers(1, 5),
        reduce=st.sampled_from(["sum", "mean"]),
    )
    def test_collecting_is_the_product_with_one_hot(self, heads, pixels, centres, width, reduce):
        values = random(2, heads, pixels, width).requires_grad_()
        index = torch.randint(centres, (2, heads, pixels), generator=torch.Generator().manual_seed(0))
        probe = random(2, heads, centres, width, seed=2)
        collected = clustering.collect(values, index, centres, reduce=reduce)
        product = clustering.weights(clustering.one_hot(index, centres, values.dtype), reduce) @ values
        gradients = [torch.autograd.grad((out * probe).sum(), values)[0] for out in (collected, product)]
        assert_close((collected, gradients[0]), (product, gradients[1]), rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("reduce", ["sum", "mean"])
    def test_gradients_of_gradients(self, reduce):
        values, index = random(1, 2, 6, 3).requires_grad_(), torch.tensor([0, 2, 2, 0, 1, 2])
        collect = functools.partial(clustering.collect, index=index, num_centres=4, reduce=reduce)
        assert torch.autograd.gradcheck(collect, (values,))
        assert torch.autograd.gradgradcheck(lambda v: collect(v).square(), (values,))

    def test_long_sums_of_bfloat16(self):
        values = torch.ones(1, 1, 5000, 2, dtype=torch.bfloat16)
        total = clustering.collect(values, torch.zeros(1, 1, 5000, dtype=torch.long), 1)
        assert total.dtype == torch.bfloat16
        assert_close(total.float(), torch.full((1, 1, 1, 2), 5000.0), rtol=0.01, atol=0)

    @pytest.mark.parametrize("metric", ["dot", "euclidean"])
    def test_nearest(self, metric):
        centres, pixels = random(2, 1, 6, 5), random(2, 1, 40, 5, seed=2)
        index = clustering.hard_assignment(clustering.affinity(centres, pixels, metric=metric, scale=0.3))
        expected = [naive.assign(centres[b, 0], pixels[b, 0], metric) for b in range(2)]
        assert index[:, 0].tolist() == expected

    def test_the_first_of_equals_is_chosen(self):
        centres = random(1, 1, 1, 5).expand(1, 1, 3, 5)
        index = clustering.hard_assignment(clustering.affinity(centres, random(1, 1, 7, 5)))
        assert index.eq(0).all()
