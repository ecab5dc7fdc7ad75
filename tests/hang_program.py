"""Programs that a thread pool of few threads can stop for ever, run by test_hang.py in processes
of their own: `python hang_program.py NAME [NUMBER...]`.
"""

import sys
import time

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)


def plain(steps=1_000, num_calls=16, batch=16, size=40):
    """The smallest: batched Cholesky factorisations that do not depend on each other, no vi_jax."""
    starts = [jnp.broadcast_to(size * jnp.eye(size) + k, (batch, size, size)) for k in range(16)]

    @jax.jit
    def run(matrices):
        def step(matrices, _):
            return [a + 1e-9 * jnp.linalg.cholesky(a) for a in matrices], None

        return jax.lax.scan(step, matrices, None, length=steps)[0]

    return jax.block_until_ready(run(starts[:num_calls]))


def guarded(*numbers):
    """The same beside vi_jax."""
    import vi_jax.linalg  # noqa: F401

    return plain(*numbers)


def ascents(steps=1_000, num_latents=302, num_paths=4, num_posteriors=2):
    """What stopped the fit of a horseshoe: the Gaussians on the way of four ascents at once, each
    by a QR and a Cholesky factorisation; here of two posteriors.
    """
    from vi_jax.methods.pathfinder import advance, begin

    scales = jnp.logspace(-1, 1, num_latents)
    eps = jax.random.normal(jax.random.key(1), (num_paths, 10, num_latents))

    def log_density(u):
        return -0.25 * jnp.sum((u / scales) ** 4) - 0.5 * jnp.sum((u[1:] - u[:-1]) ** 2)

    @jax.jit
    def run(starts):
        def step(several, _):
            moved = [
                jax.vmap(lambda eps, one: advance(eps, log_density, one, tolerance=0.0)[0])(
                    eps, states
                )
                for states in several
            ]
            return moved, None

        several = [jax.vmap(lambda start: begin(start, memory=32))(start) for start in starts]
        return jax.lax.scan(step, several, None, length=steps)[0]

    starts = jax.random.normal(jax.random.key(0), (num_posteriors, num_paths, num_latents))
    return jax.block_until_ready(run(list(starts)))


def processes(steps=300, batch=12, size=40):
    """A user's Gaussian process priors, under batches of samples, by NumPyro and with gradients."""
    import numpyro.distributions as dist

    import vi_jax as vi

    x = jnp.linspace(0.0, 1.0, size)
    gaps = (x[:, None] - x) ** 2

    def log_joint(z):
        total = 0.0
        for length, height in jnp.exp(0.1 * z).reshape(-1, 2):
            covariance = height * jnp.exp(-gaps / length**2) + 0.1 * jnp.eye(size)
            total += dist.MultivariateNormal(jnp.zeros(size), covariance).log_prob(jnp.sin(x))
        return total

    @jax.jit
    def run(key, mean):
        def step(mean, key):
            def elbo(mean):
                q = dist.Normal(mean, 0.1).to_event(1)
                return vi.elbo(key, log_joint, q, num_samples=batch)

            return mean + 1e-3 * jax.grad(elbo)(mean), None

        return jax.lax.scan(step, mean, jax.random.split(key, steps))[0]

    return jax.block_until_ready(run(jax.random.key(0), jnp.zeros(8)))


def horseshoe(num_weights, *seeds):
    """Fits of a regression under a horseshoe prior, 2 p + 2 latents, by the defaults."""
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import vi_jax as vi

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, num_weights))
    weights = np.zeros(num_weights)
    weights[:4] = [3, -2, 2, -3]
    y = x @ weights + rng.normal(size=100)

    def model(x, y):
        tau = numpyro.sample("tau", dist.HalfCauchy(0.1))
        lam = numpyro.sample("lam", dist.HalfCauchy(1.0).expand([num_weights]).to_event(1))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([num_weights]).to_event(1))
        s = numpyro.sample("s", dist.HalfNormal(2.0))
        numpyro.sample("y", dist.Normal(x @ (z * lam * tau), s), obs=y)

    for seed in seeds:
        began = time.perf_counter()
        result = vi.fit(jax.random.key(seed), vi.targets.from_numpyro(model, x, y), fallback=0)
        assert np.isfinite(result.diagnostics.elbo)
        print(f"FIT {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(int, sys.argv[2:]))
    print("DONE")
