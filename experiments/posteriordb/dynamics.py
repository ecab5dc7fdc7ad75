"""Ordinary differential equations with noisy observations, by the classical Runge-Kutta method in a
scan.

Fixed steps: differentiable in reverse, quick to compile, and the same cost wherever the parameters
are.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

STEPS = 20  # Runge-Kutta steps between observations


def lotka_volterra(y_init, y, ts, *, steps=STEPS):
    """Pelts of hares u and lynxes v: du/dt = (theta_1 - theta_2 v) u, dv/dt = (-theta_3 + theta_4
    u) v, in years.

    log y_init ~ N(log z_init, sigma^2), log y_t ~ N(log z(t), sigma^2), a sigma for each animal;
    theta_1, theta_3 ~ N(1, 0.5^2) and theta_2, theta_4 ~ N(0.05, 0.05^2), all positive, z_init ~
    LogNormal(log 10, 1), sigma ~ LogNormal(-1, 1) (Carpenter 2018, Predator-prey population
    dynamics). Integrated in log z, which stays finite where a population nearly dies out.
    """
    centre = jnp.array([1.0, 0.05, 1.0, 0.05])
    spread = jnp.array([0.5, 0.05, 0.5, 0.05])
    theta = numpyro.sample("theta", dist.TruncatedNormal(centre, spread, low=0.0).to_event(1))
    z_init = numpyro.sample("z_init", dist.LogNormal(jnp.log(10.0), 1.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
    turn = jnp.stack([theta[1], theta[3]])
    sign = jnp.array([1.0, -1.0])

    def velocity(_, log_z):
        return sign * (jnp.stack([theta[0], theta[2]]) - turn * jnp.exp(log_z[::-1]))

    log_z = jnp.log(z_init)
    path = runge_kutta(
        velocity, log_z, jnp.concatenate([jnp.zeros(1), jnp.asarray(ts, float)]), steps
    )
    centres = jnp.concatenate([log_z[None], path])
    observed = jnp.concatenate([jnp.asarray(y_init, float)[None], jnp.asarray(y, float)])
    numpyro.sample("y", dist.LogNormal(centres, sigma).to_event(2), obs=observed)


def one_comp_mm_elim_abs(t0, D, V, times, C_hat, *, steps=STEPS):
    """A drug's concentration: absorbed at a first-order rate, eliminated by Michaelis-Menten
    kinetics.

    dC/dt = (D/V) k_a exp(-k_a t) - (V_m/V) C / (K_m + C), C(t0) = 0; log C_hat ~ N(log C, sigma^2);
    k_a, K_m, V_m, sigma ~ half-Cauchy(1) (stat_comp_benchmarks, Betancourt).
    """
    k_a, k_m, v_m, sigma = (
        numpyro.sample(name, dist.HalfCauchy(1.0)) for name in ("k_a", "K_m", "V_m", "sigma")
    )
    dose = float(D)
    volume = float(V)

    def velocity(t, c):
        c = jnp.maximum(c, 0.0)
        return dose / volume * k_a * jnp.exp(-k_a * t) - v_m / volume * c / (k_m + c)

    grid = jnp.concatenate([jnp.asarray(t0, float)[None], jnp.asarray(times, float)])
    path = runge_kutta(velocity, jnp.zeros_like(k_a), grid, steps)
    log_c = jnp.log(jnp.maximum(path, 1e-30))
    numpyro.sample("C_hat", dist.LogNormal(log_c, sigma).to_event(1), obs=jnp.asarray(C_hat, float))


def runge_kutta(velocity, state, times, steps: int):
    """The solution of dx/dt = velocity(t, x) at times[1:], started from `state` at times[0].

    Args:
      velocity: (t, x) -> dx/dt, of x's shape.
      state: x at times[0].
      times: [T + 1], increasing.
      steps: steps of the classical fourth-order method in every interval.

    Returns:
      [T, *state.shape]; the error falls as steps^-4 where the velocity is smooth.
    """

    def interval(x, ends):
        start = ends[0]
        h = (ends[1] - ends[0]) / steps

        def step(i, x):
            t = start + i * h
            a = velocity(t, x)
            b = velocity(t + 0.5 * h, x + 0.5 * h * a)
            c = velocity(t + 0.5 * h, x + 0.5 * h * b)
            d = velocity(t + h, x + h * c)
            return x + h / 6.0 * (a + 2.0 * (b + c) + d)

        x = jax.lax.fori_loop(
            0, steps, step, x
        )  # a static count: a scan, differentiable in reverse
        return x, x

    return jax.lax.scan(interval, state, jnp.stack([times[:-1], times[1:]], axis=1))[1]
