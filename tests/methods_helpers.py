"""A posterior over two numbers that is known by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np

import vi_jax as vi

RNG = np.random.default_rng(1)
X = np.stack([np.ones(40), RNG.normal(size=40)], 1).astype(np.float32)
Y = (RNG.uniform(size=40) < 1 / (1 + np.exp(-(X @ np.array([0.5, 1.2]))))).astype(np.float32)


def log_prior(u):
    return -0.5 * jnp.sum(u**2) / 4.0


def log_lik(u, rows):
    x, y = rows
    logits = x @ u
    return y * jax.nn.log_sigmoid(logits) + (1 - y) * jax.nn.log_sigmoid(-logits)


def logistic(u):
    return log_prior(u) + log_lik(u, (X, Y)).sum()


LOGISTIC = vi.targets.from_log_density(logistic, 2)


def run(key, method, log_density, start, *, sampled=None):
    """The last state, its MethodInfo and the number of steps: `vi.fit` without its starts and its
    diagnostics.
    """

    def advance(carry):
        state, _, number = carry
        key_step, key_rows = jax.random.split(jax.random.fold_in(key_run, number))
        density = log_density if sampled is None else sampled(key_rows)
        state, info = method.step(key_step, density, state)
        return state, info, number + 1

    def going(carry):
        _, info, number = carry
        return (number < method.num_steps) & ~info.done

    key_init, key_run = jax.random.split(key)
    start = jnp.asarray(start, jnp.result_type(float))
    state = method.init(key_init, log_density, start)
    info = vi.types.MethodInfo(jnp.zeros((), start.dtype), jnp.int32(0), jnp.bool_(False))
    return jax.jit(lambda state: jax.lax.while_loop(going, advance, (state, info, 0)))(state)


def quadrature():
    """Mean [2], covariance [2, 2] and log evidence of the logistic regression."""
    grid = jnp.linspace(-4.0, 6.0, 201)
    points = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    log_p = np.asarray(jax.jit(jax.vmap(logistic))(points), np.float64)
    points = np.asarray(points, np.float64)
    top = log_p.max()
    w = np.exp(log_p - top)
    evidence = top + np.log(w.sum() * float(grid[1] - grid[0]) ** 2)
    w /= w.sum()
    mean = w @ points
    return mean, (points - mean).T @ ((points - mean) * w[:, None]), evidence


def best_gaussian(*, full_rank):
    """Mean [2] and covariance [2, 2] of the Gaussian of highest ELBO, by Gauss-Hermite quadrature
    and BFGS.
    """
    from scipy.optimize import minimize

    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    w = jnp.asarray(np.outer(weights, weights).ravel() / (2 * np.pi))

    @jax.jit
    @jax.value_and_grad
    def loss(p):
        lower = jnp.array([[jnp.exp(p[2]), 0.0], [p[4] if full_rank else 0.0, jnp.exp(p[3])]])
        values = jax.vmap(logistic)(p[:2] + jnp.asarray(z) @ lower.T)
        return -(w @ values) - p[2] - p[3]

    with jax.enable_x64(True):
        p = minimize(
            lambda p: [np.asarray(v, np.float64) for v in loss(jnp.asarray(p))],
            np.zeros(5),
            jac=True,
            tol=1e-8,
        ).x
    lower = np.array([[np.exp(p[2]), 0.0], [p[4] if full_rank else 0.0, np.exp(p[3])]])
    return p[:2], lower @ lower.T
