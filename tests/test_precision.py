"""Mixed precision: bfloat16 within the networks, float32 for what is counted and trained. And the
generator of a run's keys.
"""

import json

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from command_helpers import small
from helpers import tree_equal
from test_models import conv_vae, mlp_vae

import vi_jax as vi
from experiments import settings
from experiments.run import session
from experiments.run.saved import from_leaves, to_leaves
from vi_jax.models import amortised, likelihoods, networks, vae
from vi_jax.training import State

pytest_plugins = ("command_helpers",)

X_SHAPE = (9, 9)


def conv_of(dtype):
    return amortised(
        X_SHAPE,
        lambda num_outputs: networks.conv_encoder(X_SHAPE, num_outputs, (3, 4), dtype=dtype),
        lambda num_outputs: networks.conv_decoder(X_SHAPE, num_outputs, 2, (4, 3), dtype=dtype),
        vi.families.mean_field(2),
        likelihoods.bernoulli(),
        num_latents=2,
    )


MODELS = {
    "mlp": lambda dtype: vae(X_SHAPE, num_latents=2, hidden=(16, 16), dtype=dtype),
    "conv": conv_of,
}
LOSSES = {
    "analytic": vi.losses.negative_elbo,
    "iwae": lambda model: vi.losses.negative_bound(
        model, vi.bounds.iwae, vi.estimators.reparam, num_samples=5
    ),
}


@pytest.fixture
def x():
    return jax.random.bernoulli(jax.random.key(1), 0.4, (64, *X_SHAPE)).astype(jnp.float32)


def products(closed):
    """Every matrix product and convolution of a jaxpr: the dtype of its factors and that of its
    outcome.
    """
    for eqn in closed.eqns:
        out = eqn.outvars[0].aval.dtype
        if eqn.primitive.name in ("rows_times_matrix", "convolve", "spread", "correlate"):
            yield eqn.params["factors"], out
        elif eqn.primitive.name == "dot_general":
            (factors,) = {v.aval.dtype for v in eqn.invars}
            yield factors, out
        else:
            for inner in jax.extend.core.jaxprs_in_params(eqn.params):
                yield from products(inner)


@pytest.mark.parametrize("name", MODELS)
def test_products_are_of_bfloat16_and_the_last_is_summed_in_float32(name, x):
    model = MODELS[name](jnp.bfloat16)
    params = jax.eval_shape(model.init, jax.random.key(0))
    for f in (
        lambda p: model.densities.guide(p, x[0]).mean,
        lambda p: model.densities.decode(p, None, jnp.ones(2)).logits,
    ):
        found = list(products(jax.make_jaxpr(f)(params).jaxpr))
        assert len(found) == 3
        assert all(factors == jnp.bfloat16 for factors, _ in found)
        assert [out for _, out in found] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.cases(rest="slow", integration=["mlp-iwae", "conv-analytic"])
@pytest.mark.parametrize(
    ("name", "loss"), [("mlp", "analytic"), ("mlp", "iwae"), ("conv", "analytic")]
)
def test_losses_gradients_and_parameters_are_float32_and_near_those_of_float32(name, loss, x):
    values = []
    gradients = []
    starts = []
    for dtype in (None, jnp.bfloat16):
        model = MODELS[name](dtype)
        starts.append(model.init(jax.random.key(0)))
        of = jax.jit(jax.value_and_grad(LOSSES[loss](model), has_aux=True))
        (value, info), gradient = of(starts[-1], jax.random.key(2), x, 0)
        assert {
            leaf.dtype for leaf in jax.tree.leaves((value, info.metrics, gradient, starts[-1]))
        } == {jnp.dtype("float32")}
        values.append(value)
        gradients.append(gradient)
    assert tree_equal(*starts)  # the same start, whatever the precision
    np.testing.assert_allclose(values[1], values[0], rtol=1e-3)
    assert values[1] != values[0]  # something was rounded
    for rounded, exact in zip(
        jax.tree.leaves(gradients[1]), jax.tree.leaves(gradients[0]), strict=True
    ):
        assert jnp.linalg.norm(rounded - exact) < 0.05 * jnp.linalg.norm(exact)


@pytest.mark.integration
def test_a_bias_is_summed_over_the_batch_in_float32():
    """Its gradient counts 1,001 examples of 1 each: bfloat16 has 8 bits, so 1,001 is none of its
    numbers.
    """
    network = networks.mlp_encoder((1,), 1, (4,), lambda h: h, dtype=jnp.bfloat16)
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0)))
    params["Dense_1"]["kernel"] = jnp.ones((4, 1))
    gradient = jax.grad(
        lambda p: jax.vmap(network.apply, (None, 0))(p, jnp.zeros((1001, 1))).sum()
    )(params)
    np.testing.assert_array_equal(gradient["Dense_0"]["bias"], 1001.0)
    np.testing.assert_array_equal(gradient["Dense_1"]["bias"], 1001.0)


def test_an_output_is_not_rounded_to_8_bits():
    """A logit of 1 + 2^-12 passes: it would be 1 in bfloat16."""
    network = networks.mlp_decoder(
        (1,), 1, 1, (1,), lambda h: h, output_bias=np.full((1, 1), 1 + 2**-12), dtype=jnp.bfloat16
    )
    out = network.apply(network.init(jax.random.key(0)), jnp.zeros(1))
    assert out.dtype == jnp.float32
    assert out.item() == 1 + 2**-12


@pytest.mark.integration
@pytest.mark.parametrize("make", [mlp_vae, conv_vae])
def test_without_a_dtype_float64_parameters_stay_float64(make, x64):
    model = make(X_SHAPE)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model.init(jax.random.key(0)))
    assert model.densities.decode(params, None, jnp.ones(2)).logits.dtype == jnp.float64


@pytest.mark.parametrize("prng", settings.CHOICES["prng"])
def test_a_run_draws_with_the_generator_of_its_config(prng):
    """Its keys, and those of a state that comes back from a checkpoint's leaves, are of that
    kind.
    """
    config = small(prng=prng)
    assert str(jax.random.key_impl(session.keys(config).train)) == prng
    state = State(jnp.zeros((), jnp.int32), session.keys(config).train, {}, (), ())
    back = from_leaves(jax.device_get(to_leaves(state)), state)
    assert back.key.dtype == state.key.dtype
    np.testing.assert_array_equal(jax.random.key_data(back.key), jax.random.key_data(state.key))


@pytest.mark.slow
def test_after_training_the_loss_on_digits_is_within_a_thousandth(commands, tmp_path, monkeypatch):
    """The default command in both precisions: -ELBO on the test set, mean over two seeds, differs
    by less than 0.1 %.
    """
    # or a CPU would leave most roundings out
    monkeypatch.setenv("XLA_FLAGS", "--xla_allow_excess_precision=false")

    def loss(precision, seed):
        folder = tmp_path / f"{precision}-{seed}"
        fields = {"precision": precision, "seed": seed, "eval.num_importance_samples": 10}
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        commands.ok("train", "--config=configs/vae.py", *flags, f"--workdir={folder}")
        return -json.loads((folder / "summary.json").read_text())["elbo"]["mean"]

    losses = np.array(
        [[loss(precision, seed) for precision in ("float32", "bfloat16")] for seed in (0, 1)]
    )
    assert not np.array_equal(*losses.T)
    assert abs(losses[:, 1].mean() / losses[:, 0].mean() - 1) < 1e-3, losses
