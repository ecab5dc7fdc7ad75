"""Simulation-based calibration: ranks of simulated latents among the samples of their posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vi_jax.targets.tracing import OF_TRACING, first_line
from vi_jax.types import Array

_COMPILED = "Cannot apply JAX transformations to a function lowered and compiled"


class Calibration(NamedTuple):
    """Of each latent, over simulations."""

    # [N, D] in (0, 1): of the guide's samples, those below the latent that made the data
    share: Array
    # [D], of the Kolmogorov-Smirnov test that shares are uniform: SBC, the marginals are exact
    uniform_p: Array
    # [D], of the same test of shares against 1 - shares: VSBC, the means are not biased
    symmetric_p: Array

    @property
    def mean_share(self) -> Array:
        """[D]: under 0.5 where the guide lies above the truth, over 0.5 where below."""
        return self.share.mean(0)


def calibrate(
    key: Array,
    simulate: Callable[[Array], tuple[Array, Any]],
    infer: Callable[[Array, Any], Any],
    *,
    num_simulations: int = 500,
    num_draws: int = 200,
    batch_size: int = 50,
) -> Calibration:
    """Samples latents from the prior and data from them, infers, and ranks each latent among the
    guide's samples.

    With the exact posterior the ranks are uniform (Talts et al. 2018, theorem 1). A variational
    guide is too narrow and fails that; whether it is *centred* shows in the symmetry of the ranks
    (Yao et al. 2018, sec. 3.2 and proposition 2), which is what point estimates need.

    Args:
      key: one typed PRNG key.
      simulate: key -> (z [D], data), from the prior and the likelihood.
      infer: (key, data) -> a guide over [D]: an encoder, or a method's init and steps run to their
        end; traced under vmap. For vi.fit, or anything else that is not traced, see
        `calibrate_fits`.
      num_simulations: N; p-values are asymptotic, take some hundreds.
      num_draws: of each guide.
      batch_size: simulations at a time.

    Returns:
      A Calibration; p-values near 0 speak against. With D latents, compare with 0.05 / D. They are
      nan where draws were.

    Raises:
      TypeError: an infer that cannot be traced.
    """

    def one(key: Array) -> Array:
        key_simulate, key_infer, key_draws = jax.random.split(key, 3)
        z, data = simulate(key_simulate)
        return _share(infer(key_infer, data).sample(key_draws, (num_draws,)), z)

    try:
        share = jax.lax.map(
            one, jax.random.split(key, num_simulations), batch_size=min(batch_size, num_simulations)
        )
    except TypeError as error:
        if isinstance(error, OF_TRACING) or _COMPILED in str(error):
            raise TypeError(
                "infer is traced here, once for all simulations, and it runs something that "
                "cannot be: vi.fit, a compiled program, "
                "or Python or NumPy that asks for numbers of the data. Take "
                "vi.diagnostics.calibrate_fits(key, simulate, fit), "
                f"which calls fit for one simulation after another. ({first_line(error)})"
            ) from error
        raise
    return _calibration(share)


def calibrate_fits(
    key: Array,
    simulate: Callable[[Array], tuple[Any, Any]],
    fit: Callable[[Array, Any], Any],
    *,
    num_simulations: int = 200,
    num_draws: int = 200,
    report: Callable[[int, int], None] | None = None,
) -> Calibration:
    """`calibrate` of any Python function: a fit for each simulated data set, one after another, as
    VSBC is meant (Yao et al. 2018).

    With `vi.fit` it is one line (`vi.fit(...).resample(key, 200)` calibrates the corrected samples
    in place of the guide's):

        fit = lambda key, x: vi.fit(key, vi.targets.from_numpyro(model, x))

    but vi.fit compiles anew for each data set, some seconds, which JAX's own cache on disk
    (`jax_compilation_cache_dir`) makes a third of. A method's loop under one `jax.jit` with the
    data as arguments compiles once, here and under `calibrate`:

        method = vi.methods.bam()

        @jax.jit
        def fit(key, x):
            target = vi.targets.from_numpyro(model, x)
            key_init, key_steps, key_draws = jax.random.split(key, 3)

            def advance(carry):
                number, state, _ = carry
                key_step = jax.random.fold_in(key_steps, number)
                state, info = method.step(key_step, target.log_density, state)
                return number + 1, state, info.done

            start = method.init(key_init, target.log_density, jnp.zeros(target.size))
            unfinished = lambda carry: (carry[0] < method.num_steps) & ~carry[2]
            carry = (jnp.int32(0), start, jnp.bool_(False))
            _, state, _ = jax.lax.while_loop(unfinished, advance, carry)
            u = method.guide(state).sample(key_draws, (200,))
            return jax.vmap(target.constrain)(u)

    Args:
      key: one typed PRNG key.
      simulate: key -> (z, data), from the prior and the likelihood; z an array, or a dict of some
        of the sites; not traced.
      fit: (key, data) -> what was found: a Result of vi.fit (the samples of `sample`, which are the
        guide's), a guide over what z is, or samples of it, leaves [S, ...]; a dict of samples may
        hold more than z.
      num_simulations: N; p-values are asymptotic, take some hundreds.
      num_draws: S, of a Result or a guide.
      report: called with the simulations that are done, and N, after each.

    Returns:
      A Calibration; its D latents are the numbers of z, raveled, by leaf: a dict's in the order of
      its sorted names.

    Raises:
      ValueError: samples that are not of the shape of z. FloatingPointError: samples that are not
      numbers. These, and whatever `fit` raises, end the run,
        with a note of the simulation's number and of its key: to leave a simulation out because its
        fit failed would bias the ranks.
    """
    shares = []
    for number in range(num_simulations):
        key_one = jax.random.fold_in(key, number)
        key_simulate, key_fit, key_draws = jax.random.split(key_one, 3)
        z, data = simulate(key_simulate)
        try:
            shares.append(_shares(_draws_of(fit(key_fit, data), key_draws, num_draws), z))
        except Exception as error:
            error.add_note(
                f"in simulation {number} of {num_simulations}; to run it alone: key_simulate, "
                "key_fit, _ = "
                f"jax.random.split(jax.random.fold_in(key, {number}), 3); z, data = "
                "simulate(key_simulate); fit(key_fit, data)"
            )
            raise
        if report is not None:
            report(number + 1, num_simulations)
    return _calibration(jnp.stack(shares))


def _draws_of(found: Any, key: Array, num_draws: int) -> Any:
    """Samples of a Result, of a guide, or what are samples already; those of a LocalResult as one
    dict where its sites have names.
    """
    if not hasattr(found, "sample"):
        return found
    shape = num_draws if hasattr(found, "guide") else (num_draws,)
    draws = found.sample(key, shape)
    is_pair = (
        isinstance(draws, tuple)
        and len(draws) == 2
        and all(isinstance(part, dict) for part in draws)
    )
    return draws[0] | draws[1] if is_pair else draws


def _shares(draws: Any, z: Any) -> Array:
    """[D]: of the samples of z, those below it; or an error that says what does not fit."""
    draws = _like(draws, z)
    pairs = zip(jax.tree.leaves(draws), jax.tree.leaves(z), strict=True)
    shares = jnp.concatenate([jnp.ravel(_share(*pair)) for pair in pairs])
    if not bool(jnp.all(jnp.isfinite(shares))):
        raise FloatingPointError("fit gave samples that are not numbers: run that fit alone.")
    return shares


def _like(draws: Any, z: Any) -> Any:
    """Samples of z with arrays as leaves, [S, ...] for z [...]: of a dict, those that z names.

    Raises:
      ValueError: some are missing, or a shape is not that of z.
    """
    z = jax.tree.map(jnp.asarray, z)
    if isinstance(z, dict) and isinstance(draws, dict):
        missing = [name for name in z if name not in draws]
        if missing:
            raise ValueError(
                f"z has {', '.join(missing)}, of which fit gave no samples; it gave "
                f"{', '.join(draws) or 'none'}."
            )
        draws = {name: draws[name] for name in z}
    draws = jax.tree.map(jnp.asarray, draws)
    structures: list[Any] = [jax.tree.structure(draws), jax.tree.structure(z)]
    is_like = structures[0] == structures[1]
    if is_like:
        pairs = zip(jax.tree.leaves(draws), jax.tree.leaves(z), strict=True)
        is_like = all(x.ndim and x.shape[1:] == leaf.shape for x, leaf in pairs)
    if not is_like:
        raise ValueError(
            "samples have to be of the shapes of z with their number in front; got "
            f"{jax.tree.map(jnp.shape, draws)} for z of {jax.tree.map(jnp.shape, z)}."
        )
    return draws


def _share(draws: Array, z: Array) -> Array:
    """Of the samples [S, ...], those below z [...], in (0, 1); nan where one is nan."""
    share = (jnp.sum(draws < z, axis=0) + 0.5) / (draws.shape[0] + 1)
    return jnp.where(jnp.any(jnp.isnan(draws), axis=0), jnp.nan, share)


def _calibration(share: Array) -> Calibration:
    return Calibration(share, jax.vmap(_uniform_p, 1)(share), jax.vmap(_symmetric_p, 1)(share))


def _uniform_p(x: Array) -> Array:
    num = x.shape[0]
    x = jnp.sort(x)
    grid = jnp.arange(num)
    distance = jnp.maximum(jnp.max((grid + 1) / num - x), jnp.max(x - grid / num))
    return kolmogorov(distance * num**0.5)


def _symmetric_p(x: Array) -> Array:
    """Kolmogorov-Smirnov of shares against 1 - shares: the distance of a sample from its own mirror
    image, max_k |S_k| / N with S_k the sum of the signs of x - 1/2 from the outside in, a random
    walk under symmetry (Butler 1969).
    """
    num = x.shape[0]
    order = jnp.argsort(-jnp.abs(x - 0.5))
    walk = jnp.cumsum(jnp.sign(x - 0.5)[order])
    return brownian_supremum(jnp.max(jnp.abs(walk)) / num**0.5)


def kolmogorov(x: Array) -> Array:
    """Pr(sup |B| > x) of a Brownian bridge: 2 sum_j (-1)^(j-1) exp(-2 j^2 x^2)."""
    j = jnp.arange(1, 101)
    tail = 2 * jnp.sum((-1.0) ** (j - 1) * jnp.exp(-2 * (j * x) ** 2))
    return jnp.where(x < 0.2, 1.0, jnp.clip(tail, 0.0, 1.0))


def brownian_supremum(x: Array) -> Array:
    """Pr(sup_{t <= 1} |W_t| > x) of a Brownian motion: 1 - (4/pi) sum_k (-1)^k / (2k+1)
    exp(-(2k+1)^2 pi^2 / (8 x^2)).
    """
    k = jnp.arange(50)
    odd = 2 * k + 1
    below = (4 / jnp.pi) * jnp.sum(
        (-1.0) ** k / odd * jnp.exp(-((odd * jnp.pi) ** 2) / (8 * jnp.maximum(x, 1e-3) ** 2))
    )
    return jnp.clip(1 - below, 0.0, 1.0)
