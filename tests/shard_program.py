"""Run by test_shard.py in processes of their own: `python shard_program.py [COORDINATOR PROCESSES
ID]` prints JSON.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from jax.sharding import PartitionSpec as P

import vi_jax as vi
from experiments.build import binarise
from experiments.run import processes
from experiments.run.streaming import make_streaming_run
from vi_jax.training import on_layout

NUM_STEPS = 15


def vae_losses(layout, make_run=vi.make_run):
    """The loss of each of 15 steps: one layer of every kind, epochs of seven batches, averaged
    parameters.
    """
    model = vi.models.vae((8, 8), num_latents=4, hidden=(32,))
    optimizer = optax.adam(1e-2)
    x = np.random.default_rng(0).integers(0, 2, (100, 8, 8)).astype(np.float32)
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer, ema_decay=0.99)
    state = vi.init_state(jax.random.key(0), model.init, optimizer, ema=True, layout=layout)
    run = make_run(step, batch_size=16, layout=layout)
    data = x
    losses = []
    if make_run is not make_streaming_run:
        data = jnp.asarray(x) if layout is None else layout.replicate(x)
    for _ in range(NUM_STEPS):
        state, info = run(state, data, 1)
        losses.append(float(info.metrics["loss"]))
    return losses, state


def tree_losses(layout, make_run=vi.make_run):
    """The losses of ten steps on examples that are dictionaries of an image and a label."""
    model = vi.models.conditional_vae((4, 4), 3, num_latents=2, hidden=(8,))
    optimizer = optax.adam(1e-2)
    data = {
        "image": np.random.default_rng(0).integers(0, 2, (40, 4, 4)).astype(np.float32),
        "label": np.arange(40, dtype=np.int32) % 3,
    }
    step = vi.make_step(vi.losses.negative_elbo(model), optimizer)
    state = vi.init_state(jax.random.key(0), model.init, optimizer, layout=layout)
    run = make_run(step, batch_size=16, layout=layout)
    if make_run is not make_streaming_run:
        data = jax.tree.map(jnp.asarray, data) if layout is None else layout.replicate(data)
    return [float(run(state, data, 10)[1].metrics["loss"])]


def slices(state):
    """The part of each device in the kernels of the parameters and in all that is kept of them."""
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    kernels = [leaf for path, leaf in flat if getattr(path[-1], "key", "") == "kernel"]
    return sorted({leaf.size // leaf.addressable_shards[0].data.size for leaf in kernels})


def collectives(layout):
    """{kind: number} in the compiled training step."""
    model = vi.models.vae((8, 8), num_latents=4, hidden=(32,))
    optimizer = optax.adam(1e-2)
    step = vi.make_step(
        vi.losses.negative_elbo(model),
        optimizer,
        prepare=lambda key, levels: binarise(key, levels, 256),
    )
    step = on_layout(step, layout)
    state = jax.eval_shape(lambda: vi.init_state(jax.random.key(0), model.init, optimizer))
    state = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        state,
        layout.shardings(state),
    )
    batch = jax.ShapeDtypeStruct(
        (16, 8, 8), jnp.float32, sharding=layout.shardings(jnp.zeros((16, 8, 8)))
    )
    text = jax.jit(step).lower(state, batch).compile().as_text()
    found = re.findall(
        r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(", text
    )
    return {kind: found.count(kind) for kind in set(found)}


def over_draws(mesh):
    """IWAE and its gradient with K = 64 draws over the devices, by the wrapped guide and by
    shard_map, and on one device.
    """
    params = {"loc": jnp.arange(3.0) / 3, "log_scale": jnp.full(3, -0.5)}

    def target(z):
        return -0.5 * jnp.sum((z - 1.0) ** 2) - 30.0 * (jnp.sum(z) > 2.0)

    def bound(params, over):
        q = dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)
        q = vi.shard.over_draws(q, mesh) if over else q
        return vi.estimators.dreg(jax.random.key(3), vi.bounds.iwae, target, q, num_samples=64)

    both = [
        jax.jit(jax.value_and_grad(lambda p, over=over: bound(p, over)))(params)
        for over in (False, True)
    ]
    # one device has no weight
    log_w = jnp.where(
        jnp.arange(64) < 8, -jnp.inf, jax.random.normal(jax.random.key(4), (64,)) * 30
    )
    spread = jax.shard_map(
        lambda w: vi.shard.iwae(w, "data"), mesh=mesh, in_specs=P("data"), out_specs=P()
    )
    mapped = [jax.jit(jax.value_and_grad(f))(log_w) for f in (vi.bounds.iwae, spread)]
    return jax.tree.map(lambda leaf: np.asarray(leaf, float).tolist(), [both, mapped])


def fit(mesh):
    """What 8 starts on a funnel come to: the history of the best, the ELBO of each, moments, and
    how the steps compiled.
    """
    target = vi.targets.from_log_density(
        lambda u: -0.5 * u[0] ** 2 - 0.5 * (u[1] ** 2) * jnp.exp(-u[0]) - 0.5 * u[0], 2
    )
    result = vi.fit(
        jax.random.key(1),
        target,
        vi.methods.gsm(num_steps=50),
        num_starts=8,
        num_draws=200,
        mesh=mesh,
    )
    mean = result.moments()["mean"]
    return [
        result.history["value"].tolist(),
        list(result.starts),
        np.asarray(mean).tolist(),
        result.sample(jax.random.key(2), 3).tolist(),
    ]


def main():
    cluster = sys.argv[1:]
    if cluster:
        jax.distributed.initialize(cluster[0], int(cluster[1]), int(cluster[2]))
    out = {"devices": len(jax.devices())}
    if len(jax.devices()) == 1:
        out["vae"] = vae_losses(None)[0]
        out["tree"] = tree_losses(None)
        out["fit"] = fit(None)
        print(json.dumps(out))
        return
    for name, sizes, explicit in (
        ("data", (-1, 1), False),
        ("fsdp", (2, -1), False),
        ("explicit", (4, 2), True),
    ):
        if explicit and cluster:
            continue
        layout = vi.shard.make_layout(vi.shard.make_mesh(*sizes, explicit=explicit))
        out[name], state = vae_losses(layout)
        out[f"{name} slices"] = slices(state)
        if not cluster:
            out[f"{name} collectives"] = collectives(layout)
    layout = vi.shard.make_layout(vi.shard.make_mesh())
    if not cluster:
        out["stepwise"] = vae_losses(layout, vi.make_stepwise_run)[0]
    out["streaming"] = vae_losses(layout, make_streaming_run)[0]
    out["tree"] = tree_losses(layout)
    out["tree, streaming"] = tree_losses(layout, make_streaming_run)
    out["fit"] = [fit(vi.shard.make_mesh())] + (
        [] if cluster else [fit(vi.shard.make_mesh(4, 2, explicit=True))]
    )
    out["from the first"] = processes.from_first(lambda: {"process": jax.process_index()})
    if not cluster:
        out["draws"] = {size: over_draws(vi.shard.make_mesh(size, -1)) for size in (2, 8)}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
