"""VARS-S, -D and -SD in the paper's form and as released, against naive twins and what the papers promise."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional.dictionaries import Kernels, PrefixMeans, Spectra, Tabulated, Union
from attention_zoo.mixers.vars.lista import SparseReconstruction
from tests.reference import naive_vars

DIM, HEADS, GRID = 12, 2, (3, 5)
FORMS = [("VarsD", "paper"), ("VarsS", "paper"), ("VarsSD", "paper")]
RELEASED = [("VarsD", "released"), ("VarsS", "released"), ("VarsSD", "released")]
RELEASED_LAM = {"VarsD": 0.3, "VarsSD": 0.3, "VarsS": 0.2}
"""VARS-S as released has lambda 3.5, under which nothing of so small tokens would be left."""


def build(name, variant="paper", grid=GRID, seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    if variant == "released":
        options.setdefault("lam", RELEASED_LAM[name])
    return az.create_mixer(name, DIM, HEADS, variant=variant, grid=grid, dtype=dtype, **options).eval()


def tokens(n=15, batch=2, seed=1, dtype=torch.float64):
    return torch.randn(batch, n, DIM, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def jitter(mixer, scale=0.1):
    """Moves what starts at the identity or at one away from it."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in mixer.parameters():
            noise = torch.rand(parameter.shape, dtype=parameter.dtype, generator=generator)
            parameter.add_(noise * scale / parameter.shape[-1])
    return mixer


def compare(mixer, x, twin):
    """Outputs, and gradients by the tokens and all parameters but the output projection's."""
    x = x.requires_grad_()
    named = [(n, p) for n, p in mixer.named_parameters() if n.partition(".")[0] not in ("proj", "norm")]
    probe = torch.randn(len(x), HEADS, x.shape[1], DIM // HEADS, dtype=torch.float64)
    results = []
    for reading in (mixer.mix, twin):
        out = reading(*mixer.project(x))
        gradients = torch.autograd.grad((out * probe).sum(), [x, *(p for _, p in named)])
        results.append((out, gradients))
    assert results[0][0].abs().max() > 1e-3
    assert_close(*results, rtol=1e-10, atol=1e-10)


def exact_eigenvalue(monkeypatch):
    """The twin's largest eigenvalue is exact, so that the mixer's bound has to be too."""
    exact = lambda gram: torch.linalg.matrix_norm(gram, 2)[..., None, None].detach()  # noqa: E731
    monkeypatch.setattr("attention_zoo.functional.dictionaries.largest_eigenvalue", exact)


@pytest.fixture(params=["matrix", "convolutions", "unrolled"])
def form(request, monkeypatch):
    """All forms of the static dictionary, whatever the grid's size."""
    monkeypatch.setattr(SparseReconstruction, "most_tabulated", 10**6 if request.param == "matrix" else 0)
    monkeypatch.setattr(SparseReconstruction, "fewest_unrolled", 0 if request.param == "unrolled" else 10**6)


@pytest.mark.usefixtures("form")
class TestNaiveTwinsOfKernels:
    @pytest.mark.parametrize(("grid", "prefix"), [((3, 5), 0), ((2, 2), 1), ((1, 7), 3), ((7, 2), 0)])
    @pytest.mark.parametrize(("steps", "size"), [(1, 3), (3, 5)])
    def test_vars_s(self, grid, prefix, steps, size):
        options = {"steps": steps, "kernel_size": size, "num_kernels": 3, "lam": 0.1, "num_prefix_tokens": prefix}
        m = jitter(build("VarsS", grid=grid, **options))

        def twin(q, k, v):
            return naive_vars.vars_s(v, m.kernel, m.gamma, m.w1, m.w2, 0.1, steps, grid, prefix)

        compare(m, tokens(prefix + grid[0] * grid[1]), twin)

    @pytest.mark.parametrize(("grid", "prefix"), [((3, 4), 0), ((2, 3), 2)])
    def test_vars_sd(self, grid, prefix, monkeypatch):
        exact_eigenvalue(monkeypatch)
        m = jitter(build("VarsSD", grid=grid, num_kernels=2, kernel_size=3, lam=0.1, num_prefix_tokens=prefix))

        def twin(q, k, v):
            learned = (m.rand_matrix, m.kernel, m.gamma_static, m.gamma, m.w1, m.w2)
            eigenvalue = lambda gram: torch.linalg.matrix_norm(gram, 2).detach()  # noqa: E731
            return naive_vars.vars_sd(q, v, *learned, 0.1, 3, grid, prefix, eigenvalue)

        compare(m, tokens(prefix + grid[0] * grid[1]), twin)

    @pytest.mark.parametrize("name", ["VarsS", pytest.param("VarsSD", marks=pytest.mark.slow)])
    def test_compiled(self, name):
        mixer, x = build(name, steps=2, num_prefix_tokens=1, dtype=torch.float32), tokens(16, dtype=torch.float32)
        torch.compiler.reset()
        assert_close(torch.compile(mixer, fullgraph=True, backend="eager")(x), mixer(x))


class TestNaiveTwins:
    @pytest.mark.parametrize("name", ["VarsD", "VarsSD"])
    @pytest.mark.parametrize("prefix", [0, 2])
    def test_released_d_and_sd(self, name, prefix):
        m = jitter(build(name, "released", num_prefix_tokens=prefix))

        def twin(q, k, v):
            learned = (m.rand_matrix, m.learned_k, m.learned_lam, m.learned_L)
            return naive_vars.released_vars(q, v, *learned, 0.3, 5, getattr(m, "kernel", None))

        compare(m, tokens(15 + prefix), twin)

    @pytest.mark.parametrize("grid", [(4, 4), (3, 3), (2, 5), (1, 1)])
    def test_released_s(self, grid):
        m = build("VarsS", "released", grid=grid)
        m.L.mul_(torch.linspace(1, 2, DIM))

        def twin(q, k, v):
            return naive_vars.released_vars_s(v, m.kernel, m.kernel2, m.L, 0.2, 3, grid)

        compare(m, tokens(grid[0] * grid[1]), twin)

    def test_released_performer(self):
        m = az.create_mixer("Performer", DIM, HEADS, variant="released", dtype=torch.float64)
        compare(m, tokens(), lambda q, k, v: naive_vars.released_performer(q, k, v, m.rand_matrix))


class TestWhatThePaperSays:
    @pytest.mark.parametrize(("name", "variant"), FORMS)
    @pytest.mark.parametrize("prefix", [0, 2])
    def test_without_steps_or_with_steps_of_no_length_it_is_linear_attention(self, name, variant, prefix):
        x = tokens(15 + prefix)
        for options in ({"steps": 0, "lam": 0.3}, {"steps": 1, "lam": 0.3}):
            mixer = build(name, variant, num_prefix_tokens=prefix, **options)
            with torch.no_grad():
                mixer.w2.fill_(1e30)
            q, k, v = mixer.project(x)
            atoms = mixer.dictionary(x)
            assert_close(mixer.mix(q, k, v), atoms @ atoms.mT @ v)

    @pytest.mark.parametrize(("name", "variant"), FORMS)
    @pytest.mark.parametrize("prefix", [0, 3])
    def test_energy_falls_with_every_step(self, name, variant, prefix):
        mixer, x = build(name, variant, steps=12, num_prefix_tokens=prefix), 2 * tokens(15 + prefix)
        q, _, v = mixer.project(x)
        _, lista = mixer.problem(q, v)
        atoms, values = mixer.dictionary(x), v
        energies = [(atoms @ u - values).square().sum() / 2 + mixer.lam * u.abs().sum() for u in lista.path()]
        assert all(after < before for before, after in zip(energies, energies[1:], strict=False))
        steps = lista.step_size.expand(2, HEADS, 1, 1)[..., 0, 0]
        largest = torch.linalg.matrix_norm(atoms.mT @ atoms, 2)
        assert (steps * largest <= 1 + 1e-12).all()

    def test_strong_sparsity_silences_all_but_a_start(self):
        for name, variant in FORMS:
            assert build(name, variant, lam=1e6).mix(*build(name).project(tokens())).abs().max() == 0

    @pytest.mark.parametrize("silenced", ["kernels", "features"])
    def test_sd_with_one_part_silent_is_the_other(self, silenced, monkeypatch):
        exact_eigenvalue(monkeypatch)
        both = build("VarsSD", steps=3, lam=0.1)
        q, k, v = both.project(tokens())
        part = jitter(build("VarsD" if silenced == "kernels" else "VarsS", steps=3, lam=0.1))
        dictionary, lista = both.problem(q, v)
        kernels, features = dictionary.parts
        alone, mute = (features, kernels) if silenced == "kernels" else (kernels, features)
        monkeypatch.setattr(mute, "encode", lambda x: torch.zeros(2, HEADS, mute.num_atoms, 6).to(x))
        coded = dictionary.decode(lista_of(dictionary, v, lista.step_size))
        assert_close(coded, alone.decode(lista_of(alone, v, lista.step_size)))
        assert part.steps == both.steps

    def test_kernels_move_with_the_image(self):
        """Away from the border, where nothing is cut."""
        mixer = build("VarsS", grid=(20, 20), steps=1, kernel_size=3)
        image = torch.zeros(1, 20, 20, DIM, dtype=torch.float64)
        image[:, 9:11, 9:11] = tokens(4, 1).unflatten(1, (2, 2))
        moved = image.roll((2, -3), (1, 2))
        out = [mixer(i.flatten(1, 2)).unflatten(1, (20, 20)) for i in (image, moved)]
        assert_close(out[0].roll((2, -3), (1, 2)), out[1])

    def test_atoms_of_features_and_whole_kernels_have_unit_length(self):
        atoms = build("VarsSD", grid=(7, 7), kernel_size=3).dictionary(tokens(49))
        assert atoms.shape == (2, HEADS, 49, 5 * 49 + 12)
        lengths = atoms.norm(dim=2)
        assert_close(lengths[..., -12:], torch.ones(2, HEADS, 12, dtype=torch.float64))
        inner = lengths[..., : 5 * 49].unflatten(-1, (5, 7, 7))[..., 1:-1, 1:-1]
        assert_close(inner, torch.ones_like(inner))
        assert (lengths <= 1 + 1e-9).all()


def lista_of(dictionary, v, step_size):
    """ISTA on a dictionary."""
    drive = dictionary.encode(v)
    codes = drive
    for _ in range(3):
        codes = codes - step_size * (dictionary.encode(dictionary.decode(codes)) - drive)
        codes = codes.sign() * (codes.abs() - 0.1 * step_size).relu()
    return codes


class TestOperators:
    @pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 4), (7, 7)])
    @pytest.mark.parametrize("kind", ["kernels", "prefix", "union", "matrix", "spectra"])
    def test_encode_and_decode_are_adjoint(self, kind, grid):
        torch.manual_seed(0)
        spectra = torch.randn(2, 3, grid[0], grid[1] // 2 + 1, dtype=torch.complex128)
        kernels = Kernels(torch.randn(2, 3, 5, 5, dtype=torch.float64), grid, 2)
        means = PrefixMeans(2, grid[0] * grid[1])
        dictionaries = {
            "kernels": kernels,
            "prefix": means,
            "union": Union(kernels, means),
            "matrix": Tabulated(Union(kernels, means), torch.eye(means.num_spatial + 2).double().expand(1, 2, -1, -1)),
            "spectra": Spectra(spectra, spectra[:, 0], grid),
        }
        dictionary = dictionaries[kind]
        number = grid[0] * grid[1] + (0 if kind == "spectra" else 2)
        values = torch.randn(3, 2, number, 4, dtype=torch.float64)
        codes = torch.randn(3, 2, dictionary.num_atoms, 4, dtype=torch.float64)
        assert dictionary.encode(values).shape == codes.shape
        inner = [(dictionary.encode(values) * codes).sum(), (values * dictionary.decode(codes)).sum()]
        assert_close(*inner)

    @pytest.mark.parametrize("grid", [(1, 1), (2, 9), (14, 14)])
    def test_bound_of_kernels_is_tight_on_a_large_grid(self, grid):
        torch.manual_seed(0)
        for size in (1, 3, 5):
            kernels = Kernels(torch.randn(2, 3, size, size, dtype=torch.float64), grid)
            identity = torch.eye(grid[0] * grid[1], dtype=torch.float64).expand(1, 2, -1, -1)
            largest = torch.linalg.matrix_norm(kernels.decode(kernels.encode(identity))[0], 2)
            assert (kernels.bound().flatten() >= largest * (1 - 1e-12)).all()
            if size == 1 or grid == (14, 14):
                assert (kernels.bound().flatten() <= largest * 1.2).all()


@pytest.mark.parametrize(("name", "variant"), FORMS + RELEASED)
class TestPathAndDictionary:
    def test_path_ends_in_the_map_and_has_one_map_a_step(self, name, variant):
        mixer, x = build(name, variant, steps=2), tokens()
        path = mixer.attention_path(x)
        assert path.shape == (3, 2, HEADS, 15, 15)
        assert_close(path[-1], mixer.attention_map(x))
        for steps in (0, 1):
            assert_close(path[steps], build(name, variant, steps=steps).attention_map(x))

    def test_map_is_the_derivative(self, name, variant):
        mixer, x = jitter(build(name, variant, grid=(2, 3))), tokens(6)
        weights = mixer.attention_map(x)
        assert weights.abs().max() > 1e-4
        assert_close(weights, az.SelfMixer.map_weights(mixer, *mixer.project(x)), rtol=1e-9, atol=1e-12)

    def test_maps_need_no_gradients(self, name, variant):
        mixer, x = build(name, variant), tokens()
        with torch.inference_mode():
            inside = mixer.attention_map(x)
        assert_close(inside.clone(), mixer.attention_map(x).detach())

    def test_dictionary_decodes_the_codes(self, name, variant):
        mixer, x = build(name, variant), tokens()
        atoms = mixer.dictionary(x)
        q, _, v = mixer.project(x)
        dictionary, lista = mixer.problem(q, mixer.split(v))
        codes = lista.solve()
        decoded = dictionary.decode(codes)
        if (name, variant) == ("VarsS", "released"):
            assert atoms.shape == (2, HEADS, 15, 6 * 5 * 15)
            own = atoms.unflatten(-1, (6, -1))  # each channel has atoms of its own
            expected = torch.einsum("bhnca,bhca->bhnc", own, codes[..., 0].unflatten(1, (HEADS, 6)))
            decoded = decoded[..., 0].unflatten(1, (HEADS, 6)).mT
        else:
            expected = atoms @ codes
        assert_close(decoded, expected)


LAYOUTS = {
    "VarsD": {"rand_matrix": (2, 6, 12), "L": (2,), "learned_k": (12, 12), "learned_lam": (1,), "learned_L": (1,)},
    "VarsSD": {
        "rand_matrix": (2, 6, 12),
        "kernel": (1, 2, 16, 12),
        "L": (2,),
        "learned_k": (24, 24),
        "learned_lam": (1,),
        "learned_L": (1,),
    },
    "VarsS": {
        "kernel": (12, 5, 1, 4, 3, 2),
        "kernel2": (12, 1, 1, 4, 3, 2),
        "L": (12,),
        "kernel_norm": (),
        "norm.bn.weight": (12,),
        "norm.bn.bias": (12,),
        "norm.bn.running_mean": (12,),
        "norm.bn.running_var": (12,),
        "norm.bn.num_batches_tracked": (),
    },
    "Performer": {"rand_matrix": (2, 6, 12)},
}
"""What the authors' layers hold beside ``qkv`` (``v`` in VARS-S) and ``proj``: 12 channels, 2 heads, a 4 x 4 grid."""


@pytest.mark.parametrize("name", list(LAYOUTS))
class TestReleased:
    def mixer(self, name, **options):
        torch.manual_seed(0)
        lam = {} if name == "Performer" else {"lam": RELEASED_LAM[name]}
        return az.create_mixer(name, DIM, HEADS, variant="released", grid=(4, 4), **lam, **options)

    def test_state_has_the_released_names_and_shapes(self, name):
        mixer = self.mixer(name)
        rows = DIM * len(mixer.projections)
        layout = {"qkv.weight": (rows, DIM), "proj.weight": (DIM, DIM), "proj.bias": (DIM,), **LAYOUTS[name]}
        assert {n: tuple(t.shape) for n, t in mixer.state_dict().items()} == layout
        assert mixer.load_state_dict({n: torch.rand(shape) for n, shape in layout.items()}, strict=True)

    def test_trains(self, name):
        mixer = self.mixer(name, qkv_bias=True).train()
        mixer(2 * tokens(16, dtype=torch.float32)).square().sum().backward()
        for parameter_name, parameter in mixer.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name

    def test_compiles_as_one_graph(self, name):
        mixer, x = self.mixer(name).eval(), tokens(16, dtype=torch.float32)
        torch.compiler.reset()
        assert_close(torch.compile(mixer, fullgraph=True, backend="eager")(x), mixer(x))

    def test_bfloat16_autocast(self, name):
        mixer, x = self.mixer(name).eval(), tokens(16, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = mixer(x)
        out.float().square().sum().backward()
        assert out.dtype == torch.bfloat16
        assert_close(out.float(), mixer(x), rtol=0.1, atol=0.1)

    def test_empty_batch(self, name):
        assert self.mixer(name).eval()(torch.zeros(0, 16, DIM)).shape == (0, 16, DIM)

    def test_default_steps_and_lambda(self, name):
        if name != "Performer":
            mixer = az.create_mixer(name, DIM, HEADS, variant="released", grid=(4, 4))
            assert (mixer.steps, mixer.lam) == ((3, 3.5) if name == "VarsS" else (5, 0.3))
            paper = az.create_mixer(name, DIM, HEADS)
            assert (paper.steps, paper.lam) == (3, 0.3)


def test_released_singular_value_follows_the_kernels_in_training():
    mixer = build("VarsS", "released", grid=(4, 4))
    start = mixer.L.clone()
    assert_close(start, naive_vars.released_l(mixer.kernel.detach()))
    power = mixer.kernel.detach().square().sum((1, 2, 5)).flatten(1).amax(1)  # the singular value that it stands for
    assert ((power / start > 1) & (power / start <= 2)).all()
    with torch.no_grad():
        mixer.kernel.mul_(2)
    mixer(tokens(16))
    assert_close(mixer.L, start)
    for _ in range(100):
        mixer.train()(tokens(16))
    assert_close(mixer.L, 0.9 * start + 0.1 * 4 * start)


class TestRefusals:
    @pytest.mark.parametrize("name", ["VarsD", "VarsS", "VarsSD"])
    @pytest.mark.parametrize(
        ("option", "value"), [("steps", -1), ("lam", -0.1), ("variant", "published"), ("attn_drop", 0.1)]
    )
    def test_options_of_all(self, name, option, value):
        with pytest.raises(az.InputError, match=f"{name}.*{option}"):
            az.create_mixer(name, DIM, HEADS, **{option: value})

    @pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
    @pytest.mark.parametrize(("option", "value"), [("kernel_size", 4), ("kernel_size", 0), ("num_kernels", 0)])
    def test_kernels(self, name, option, value):
        with pytest.raises(az.InputError, match=f"{name}.*{option}={value}"):
            az.create_mixer(name, DIM, HEADS, **{option: value})

    @pytest.mark.parametrize("name", ["VarsS", "VarsSD"])
    def test_released_needs_a_grid_and_keeps_to_it(self, name):
        with pytest.raises(az.InputError, match=rf"{name}.*grid=\(height, width\)"):
            az.create_mixer(name, DIM, HEADS, variant="released")
        with pytest.raises(az.InputError, match=rf"{name}.*grid=\(3, 5\)"):
            build(name, "released")(tokens(16))

    def test_released_s_has_no_place_for_prefix_tokens(self):
        with pytest.raises(az.InputError, match="VarsS.*num_prefix_tokens=1"):
            build("VarsS", "released", num_prefix_tokens=1)

    def test_performer(self):
        with pytest.raises(az.InputError, match="Performer.*variant='published'"):
            az.create_mixer("Performer", DIM, HEADS, variant="published")
