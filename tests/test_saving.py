"""Results in folders: what was answered before is answered after, with the same bits."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from helpers import tree_equal
from numpyro.distributions import constraints

import vi_jax as vi
from experiments.posteriors import methods as named
from vi_jax import families, methods, targets
from vi_jax.families import constrained
from vi_jax.fitting import _codec

FAMILIES = sorted(set(families.__all__) - {"constrained", "gaussian_markov_chain"})
FAMILIES = [name for name in FAMILIES if name != "mixture_log_prob"]
METHODS = [name for name in named.__all__ if name != "default"]
DATA = jnp.array([0.3, -0.4, 1.2, 0.8])
EXAMPLE = {"a": jnp.zeros(2), "s": jnp.ones(())}
SUPPORTS = {"a": None, "s": constraints.positive}


def density(z):
    gap = DATA[:2] - z["a"]
    return -0.5 * jnp.sum(gap**2) + dist.Gamma(3.0, 1.0).log_prob(z["s"])


def make_target():
    return targets.from_log_density(density, EXAMPLE, SUPPORTS)


def scaled(y):
    """A model with a deterministic site."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("ratio", mean / scale)
    numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def fit(target, **options):
    return vi.fit(jax.random.key(0), target, vi.methods.laplace(), num_draws=100, **options)


@pytest.fixture(scope="module")
def fitted():
    return fit(make_target())


@pytest.fixture(scope="module")
def modelled():
    return fit(targets.from_numpyro(scaled, DATA))


@pytest.fixture(scope="module")
def folder(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "deep" / "folder"
    fitted.save(path)
    return path


@pytest.fixture(scope="module")
def model_folder(modelled, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    modelled.save(path)
    return path


def twice(value):
    """The value through strict JSON and arrays."""
    arrays = {}
    document = json.dumps(_codec.encode(value, arrays), allow_nan=False)
    return _codec.decode(json.loads(document), arrays)


def program(q, size):
    """What a guide computes, as text."""
    u = jnp.zeros(size)

    def both(q, key, u):
        return q.sample(key), q.log_prob(u)

    return str(jax.make_jaxpr(both)(q, jax.random.key(0), u))


# --- the parts


@pytest.mark.cases(
    rest=None, integration=["iaf", "low_rank", "real_nvp", "sylvester", "neural_spline"]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_guides_of_every_family_come_back(name):
    family = getattr(families, name)(3)
    q = family.guide(family.init(jax.random.key(1)))
    back = twice(q)
    assert tree_equal(jax.tree.leaves(q), jax.tree.leaves(back))
    assert type(back) is type(q)
    if isinstance(q, families.Flow):
        assert back.layer.made_by == q.layer.made_by


@pytest.mark.cases(rest=None, slow=["maf-options0", "iaf-options1", "sylvester-options4"])
@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maf", dict(hidden=[5])),
        ("iaf", dict(hidden=(4, 6))),
        ("neural_spline", dict(num_bins=np.int64(3), half_width=2, hidden=[np.int64(5)])),
        ("real_nvp", dict(hidden=(7,))),
        ("sylvester", dict(num_directions=2)),
    ],
)
def test_flows_come_back_with_their_options(name, options):
    family = getattr(families, name)(4, **options)
    q = family.guide(family.init(jax.random.key(1)))
    assert program(twice(q), 4) == program(q, 4)


@pytest.mark.slow
def test_guides_over_other_shapes_come_back():
    chain = families.gaussian_markov_chain(jnp.zeros((3, 2)))
    q = chain.guide(chain.init(jax.random.key(0)))
    assert tree_equal(jax.tree.leaves(twice(q.base)), jax.tree.leaves(q.base))
    family = constrained({"p": (constraints.simplex, (3,)), "x": (constraints.interval(0, 2), ())})
    q = family.guide(family.init(jax.random.key(0)))
    z = q.sample(jax.random.key(1))
    assert tree_equal(twice(q).sample(jax.random.key(1)), z)
    assert twice(q).log_prob(z) == q.log_prob(z)


@pytest.mark.parametrize("name", METHODS)
def test_guides_and_states_of_every_method_come_back(name):
    method = getattr(methods, name)()

    def run(key):
        state = method.init(key, lambda u: -0.5 * jnp.sum(u**2), jnp.ones(3))
        return state, method.guide(state)

    shapes = jax.eval_shape(run, jax.random.key(0))
    made = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    back = twice(made)
    assert tree_equal(jax.tree.leaves(back), jax.tree.leaves(made))
    assert type(back[0]) is type(made[0])
    assert type(back[1]) is type(made[1])


@pytest.mark.cases(rest=None, integration=["value7"])
@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        (1, [2.5, None], {"a": True, "b": ("x",)}),
        np.float32(0.1),
        jnp.int32(3),
        constraints.real,
        constraints.greater_than(jnp.float32(0.1)),
        constraints.independent(constraints.interval(-1.0, 0.3), 1),
        constraints.corr_cholesky,
        dist.MultivariateNormal(jnp.zeros(2), scale_tril=jnp.eye(2)),
    ],
)
def test_values_come_back(value):
    back = twice(value)
    assert type(back) is type(value)
    if isinstance(value, constraints.Constraint):
        x = jnp.array([0.4, 0.1, 0.2])
        np.testing.assert_array_equal(dist.biject_to(back)(x), dist.biject_to(value)(x))
        assert (back is value) == (value in (constraints.real, constraints.corr_cholesky))
    elif isinstance(value, dist.Distribution):
        np.testing.assert_array_equal(back.scale_tril, value.scale_tril)
        assert back.event_shape == value.event_shape
    else:
        assert str(back) == str(value)


def test_keys_come_back():
    key = jax.random.key(7, impl="rbg")
    back = twice(key)
    assert jax.random.key_impl(back) == jax.random.key_impl(key)
    np.testing.assert_array_equal(jax.random.key_data(back), jax.random.key_data(key))


def test_classes_of_the_users_own_are_names():
    class Mine:
        pass

    back = twice({"guide": Mine(), "f": np.tanh})
    assert "Mine" in back["guide"].name
    with pytest.raises(AttributeError, match=r"Mine.*the name alone.*'sample'"):
        back["guide"].sample(jax.random.key(0))


@pytest.mark.parametrize(
    "name",
    ["os:system", "subprocess:Popen", "vi_jax.fitting:fit", "builtins:eval", "optax:NoSuch", "x"],
)
def test_only_known_classes_are_made(name):
    with pytest.raises(_codec.UnknownClass):
        _codec.decode({"class": name, "fields": {}}, {})


# --- a result without its target


@pytest.mark.integration
def test_all_that_needs_no_density_is_the_same(fitted, folder):
    back = vi.load_result(folder)
    assert str(back) == str(fitted)
    assert back.diagnostics == fitted.diagnostics
    assert back.report(details=False) == fitted.report(details=False)
    assert tree_equal(back.moments(), fitted.moments())
    assert tree_equal(back.sample(jax.random.key(5), 20), fitted.sample(jax.random.key(5), 20))
    assert tree_equal(back.resample(jax.random.key(5), 20), fitted.resample(jax.random.key(5), 20))
    assert tree_equal(back.weighted, fitted.weighted)
    assert tree_equal(back.history, fitted.history)
    assert tree_equal(jax.tree.leaves(back.state), jax.tree.leaves(fitted.state))
    assert back.names == fitted.names


@pytest.mark.slow
def test_arviz_is_the_same(fitted, folder):
    pytest.importorskip("arviz")
    before = fitted.to_arviz()
    after = vi.load_result(folder).to_arviz()
    assert after.attrs == before.attrs
    for name in ("a", "s"):
        np.testing.assert_array_equal(after["posterior"][name], before["posterior"][name])


def test_the_density_is_asked_for_in_a_sentence(folder):
    back = vi.load_result(folder)
    with pytest.raises(
        ValueError, match=r"without its log density: vi.load_result\(folder, target"
    ):
        back.target.log_density(jnp.zeros(3))
    with pytest.raises(ValueError, match="predictive wants the target"):
        back.predictive(jax.random.key(0))


@pytest.mark.integration
def test_deterministic_sites_are_known_at_the_weighted_samples(modelled, model_folder):
    back = vi.load_result(model_folder)
    assert tree_equal(back.moments(), modelled.moments())
    assert "ratio" in back.moments()["mean"]
    if modelled.diagnostics.trusted:
        draws = back.resample(jax.random.key(5), 20)
        expected = modelled.resample(jax.random.key(5), 20)
        assert draws.keys() == expected.keys()
        for name, values in draws.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-6)
    with pytest.raises(ValueError, match=r"some of its sites; use moments\(\) and resample\(\)"):
        back.sample(jax.random.key(5))
    with pytest.raises(ValueError, match="loaded without its model"):
        back.predictive(jax.random.key(5))


# --- with the target


@pytest.mark.integration
def test_a_result_without_its_target_is_saved_again(model_folder, tmp_path):
    bare = vi.load_result(model_folder)
    bare.save(tmp_path)
    again = vi.load_result(tmp_path, targets.from_numpyro(scaled, DATA))
    assert str(again) == str(bare)
    assert tree_equal(again.weighted.u, bare.weighted.u)
    assert tree_equal(vi.load_result(tmp_path).moments(), bare.moments())


def test_with_its_target_a_result_is_as_it_was(modelled, model_folder):
    back = vi.load_result(model_folder, targets.from_numpyro(scaled, DATA))
    assert type(back) is vi.Result
    assert tree_equal(back.moments(), modelled.moments())
    assert tree_equal(back.sample(jax.random.key(5), 20), modelled.sample(jax.random.key(5), 20))
    assert tree_equal(
        back.predictive(jax.random.key(5), num_draws=5),
        modelled.predictive(jax.random.key(5), num_draws=5),
    )
    u = modelled.weighted.u[0]
    assert back.target.log_density(u) == modelled.target.log_density(u)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (lambda: targets.from_numpyro(scaled, DATA + 0.5), "another log density: at one of its"),
        (lambda: targets.from_numpyro(scaled, DATA[:3]), "another log density"),
        (make_target, r"2 latents \(mean, scale\); the target is over 3 latents \(a\[0\], "),
        (lambda: scaled, "expects a Target of vi.targets, as was fitted; got function"),
    ],
)
def test_another_target_is_refused(model_folder, target, said):
    with pytest.raises(ValueError, match=said):
        vi.load_result(model_folder, target())


# --- folders


def test_a_folder_without_a_result_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "not-there"):
        with pytest.raises(ValueError, match=r"holds no saved result: there is no result\.json"):
            vi.load_result(path)


def changed(folder, tmp_path, change):
    """A copy of a folder whose document was changed."""
    document = json.loads((folder / "result.json").read_text())
    arrays = (folder / document["arrays"]).read_bytes()
    (tmp_path / document["arrays"]).write_bytes(arrays)
    change(document)
    (tmp_path / "result.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(format=99, vi_jax="9.9"), "format 99, written by vi_jax 9.9"),
        (lambda d: d.update(what="other"), "not one that result.save"),
        (lambda d: d.update(sha256="0"), "damaged, or of another document: its SHA-256"),
        (lambda d: d.update(arrays="arrays-0.npz"), r"not whole: arrays-0\.npz is missing"),
        (lambda d: d.update(arrays="../x.npz"), r"not whole: arrays\.npz is missing"),
        (lambda d: d.pop("target"), "damaged .*'target'"),
        (lambda d: d["result"]["dict"].pop(), "damaged"),
        (
            lambda d: d.update(target={"class": "os:system", "fields": {}}),
            "the class os.system, which this environment has not",
        ),
    ],
)
def test_a_damaged_or_newer_folder_is_refused_in_a_sentence(folder, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        vi.load_result(changed(folder, tmp_path, change))


def test_a_torn_document_is_refused(folder, tmp_path):
    text = (folder / "result.json").read_text()
    for part in ("", text[: len(text) // 2], "[]"):
        (tmp_path / "result.json").write_text(part)
        with pytest.raises(ValueError, match=r"damaged|not one that"):
            vi.load_result(tmp_path)


def test_saving_anew_replaces_and_leaves_the_rest(fitted, tmp_path):
    (tmp_path / "notes.txt").write_text("theirs")
    fitted.save(tmp_path)
    later = dataclasses.replace(fitted, num_steps=77, history={"value": np.ones(3)})
    later.save(tmp_path)
    assert str(vi.load_result(tmp_path)) == str(later)
    assert len(list(tmp_path.iterdir())) == 3
    assert (tmp_path / "notes.txt").read_text() == "theirs"


@pytest.mark.integration
def test_a_kill_between_the_files_leaves_the_earlier_result(
    fitted, modelled, tmp_path, monkeypatch
):
    fitted.save(tmp_path)

    def killed(path, value):
        raise OSError("the disk is full")

    monkeypatch.setattr("vi_jax.files.documents.write_json", killed)
    with pytest.raises(OSError, match="full"):
        dataclasses.replace(fitted, history={"value": np.ones(3)}).save(tmp_path)
    assert str(vi.load_result(tmp_path)) == str(fitted)


def test_the_details_are_kept_once_they_were_computed(fitted, tmp_path):
    fitted.__dict__.pop("details", None)
    fitted.save(tmp_path / "before")
    with pytest.raises(ValueError, match="without its log density"):
        str(vi.load_result(tmp_path / "before").details)


@pytest.mark.integration
def test_double_precision_comes_back_and_is_not_cut(tmp_path, monkeypatch):
    with jax.enable_x64(True):
        result = fit(make_target())
        assert result.weighted.u.dtype == jnp.float64
        result.save(tmp_path)
        back = vi.load_result(tmp_path, make_target())
        assert tree_equal(back.sample(jax.random.key(0), 9), result.sample(jax.random.key(0), 9))
        assert tree_equal(back.moments(), result.moments())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"of float64, which JAX takes with .*jax_enable_x64"):
            vi.load_result(tmp_path)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param(
            lambda: vi.methods.advi(families.maf, num_steps=5, max_ascent=20),
            {},
            marks=pytest.mark.slow,
        ),
        (lambda: vi.methods.pathfinder(), dict(num_starts=3, combine="stack")),
    ],
)
def test_other_methods_and_stacks_give_the_same_bits(method, options, tmp_path):
    result = vi.fit(jax.random.key(0), make_target(), method(), num_draws=200, **options)
    result.save(tmp_path)
    back = vi.load_result(tmp_path)
    assert str(back) == str(result)
    assert tree_equal(back.sample(jax.random.key(5), 20), result.sample(jax.random.key(5), 20))
    assert tree_equal(back.moments(), result.moments())
    u = result.weighted.u[:7]
    log_q = jax.jit(result.guide.log_prob)(u)
    np.testing.assert_array_equal(jax.jit(back.guide.log_prob)(u), log_q)


# --- local latent variables


def hierarchy(x):
    return targets.from_local_rows(
        lambda mu: dist.Normal(0.0, 5.0).log_prob(mu).sum(),
        lambda mu, z, x: (
            dist.Normal(mu[0], 1.0).log_prob(z[:, 0]) + dist.Normal(z[:, 0], 0.7).log_prob(x)
        ),
        x,
        1,
        1,
        batch_size=4,
    )


@pytest.mark.slow
def test_a_result_with_local_latents_comes_back(tmp_path):
    x = jnp.linspace(-1.0, 2.0, 8)
    method = vi.methods.local_advi(num_steps=50)
    result = vi.fit(jax.random.key(0), hierarchy(x), method, num_draws=100)
    result.save(tmp_path)
    back = vi.load_result(tmp_path)
    assert str(back) == str(result)
    assert back.report() == result.report()
    with pytest.raises(ValueError, match="without its target, which its rows and sites"):
        back.sample(jax.random.key(1), 5)
    whole = vi.load_result(tmp_path, hierarchy(x))
    assert tree_equal(whole.sample(jax.random.key(1), 5), result.sample(jax.random.key(1), 5))
    with pytest.raises(ValueError, match="of another log density"):
        vi.load_result(tmp_path, hierarchy(x + 1.0))
    with pytest.raises(ValueError, match=r"1 of each of 8 rows; the target is over .* 7 rows"):
        vi.load_result(tmp_path, hierarchy(x[:7]))
    with pytest.raises(ValueError, match=r"expects a LocalTarget of vi.targets.*; got Target"):
        vi.load_result(tmp_path, make_target())
