"""Hierarchical latents: a density over named latents, written as a probabilistic program.

    def generate(params, context, site):  # p: from the top down
        z2 = site("z2", normal(params["loc"], params["scale"]))
        site("z1", normal(*network(params["p1"], z2)))

    p = Program(params, context, generate)

What `site` does decides what the program computes: it samples, scores or replays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from vi_jax.distributions.shapes import sample_over
from vi_jax.distributions.transports import from_noise, to_noise

Array = jax.Array
# (params, context, site) -> anything; site(name, density, given=None) -> z
SiteFunction = Callable[[Any, Any, Callable[..., Any]], Any]


class Visit(NamedTuple):
    """A site as a program visits it."""

    density: Any  # of this latent, given those before it
    before: frozenset[str]  # the latents that were visited before it
    given: frozenset[str]  # those that the density depends on: declared, or all before it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Program:
    """The density of the latents {name: z} of a program: a guide or a prior as a pytree.

    `function(params, context, site)` calls `site(name, density)` once for each latent, and goes on
    with the z that it returns: a sample, or the value that is scored. A density is one with an
    event of its own, so that `log_prob` of one z is a scalar. `site(name, density, given=names)`
    declares which of the latents before it the density depends on, `given=()` none; all of them if
    not said.

    All numbers are in `params` and `context`, pytrees, so that `freeze`, `jit` and `grad` see
    them; the function is made once, not anew at each call.
    """

    params: Any
    context: Any  # what is conditioned on: features of x, labels; None for nothing
    function: SiteFunction = field(metadata={"static": True})
    given: Mapping[str, Any] = field(default_factory=dict)  # latents of `condition`

    @property
    def has_rsample(self) -> bool:
        """Whether the samples of all latents are reparameterised."""
        kinds: list[bool] = []

        def one(program: Program, key: Array) -> Any:
            z, densities = program._run(_draw(key))
            kinds.extend(getattr(p, "has_rsample", True) for p in densities.values())
            return z

        # by shapes alone: its own leaves may be shapes too
        jax.eval_shape(one, self, jax.eval_shape(lambda: jax.random.key(0)))
        return all(kinds)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> dict[str, Any]:
        """Samples {name: z}, each leaf [*sample_shape, ...]."""
        return sample_over(lambda key: self._run(_draw(key))[0], key, sample_shape)

    def log_prob(self, value: Mapping[str, Any]) -> Array:
        """log p(z) of one z, nats: the sum over its latents."""
        terms = [p.log_prob(value[name]) for name, p in self.at(value).items()]
        return sum(terms[1:], terms[0])

    def at(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """{name: density of that latent given those before it} at one z, in the program's order.

        Raises:
          ValueError: z has other latents than the program.
        """
        return {name: visit.density for name, visit in self.visits(value).items()}

    def visits(self, value: Mapping[str, Any]) -> dict[str, Visit]:
        """{name: Visit} at one z, in the program's order; errors as for `at`."""
        value = _latents(value)
        found: dict[str, Visit] = {}

        def replay(name: str, p: Any, given: Sequence[str] | None) -> Any:
            before = frozenset(found)
            needs = before if given is None else frozenset(given)
            if not needs <= before:
                raise ValueError(
                    f"the site {name!r} is given {sorted(needs - before)}, which the program "
                    f"has not visited; before it are {sorted(before)}."
                )
            if name not in value:
                raise ValueError(
                    f"the program visits the site {name!r}, and z has only {sorted(value)}."
                )
            found[name] = Visit(p, before, needs)
            return value[name]

        self._run(replay)
        if set(found) != set(value):
            raise ValueError(
                f"z has the latents {sorted(value)}; the program visits only {sorted(found)}."
            )
        return found

    def to_noise(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """eps of one z: `from_noise` undone."""
        return {name: to_noise(p, value[name]) for name, p in self.at(value).items()}

    def from_noise(self, eps: Mapping[str, Any]) -> dict[str, Any]:
        """z of one eps, differentiable in all parameters; a later latent by those before it too."""
        return self._run(lambda name, p, given: from_noise(p, eps[name]))[0]

    def mean_path(self) -> dict[str, Any]:
        """{name: the mean of the site's density given the means of the sites before it}.

        It is E[z] at sites whose density depends on no other latent, and elsewhere the mean to
        first order in the latents before it.

        Raises:
          AttributeError, NotImplementedError: the density of a site states no mean.
        """
        return self._run(lambda name, p, given: p.mean)[0]

    def condition(self, values: Mapping[str, Any]) -> "Program":
        """p(the other latents | these), for latents that are visited before all others.

        Args:
          values: {name: z}.

        Raises:
          ValueError: (when it is used) one of them comes after a latent that is not given: then
            the program is not the conditional density; or the program has no such site.
        """
        return Program(self.params, self.context, self.function, {**self.given, **values})

    def _run(
        self, at_site: Callable[[str, Any, Sequence[str] | None], Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """{name: z} and {name: density} of one run whose free sites are filled by `at_site`."""
        z: dict[str, Any] = {}
        densities: dict[str, Any] = {}
        met: set[str] = set()

        def site(name: str, p: Any, given: Sequence[str] | None = None) -> Any:
            if name in met:
                raise ValueError(f"the program visits the site {name!r} twice; names are unique.")
            met.add(name)
            if name in self.given:
                if z:
                    raise ValueError(
                        f"condition is on latents that come before all others; {name!r} comes "
                        f"after {sorted(z)}."
                    )
                return self.given[name]
            if getattr(p, "batch_shape", ()):
                raise ValueError(
                    f"the density of the site {name!r} needs an event of its own; got batch "
                    f"shape {p.batch_shape}. Use .to_event(n)."
                )
            free = None if given is None else [each for each in given if each not in self.given]
            z[name] = at_site(name, p, free)
            densities[name] = p
            return z[name]

        self.function(self.params, self.context, site)
        if set(self.given) - met:
            raise ValueError(
                f"condition is on {sorted(set(self.given) - met)}, for which the program has no "
                f"site; it has {sorted(met)}."
            )
        if not z:
            raise ValueError(
                "the program has no site; its function calls site(name, density) for each latent."
            )
        return z, densities


def paired(function: SiteFunction) -> tuple[SiteFunction, SiteFunction]:
    """The guide's function and the prior's, from one for both: where the guide follows the
    generative path (ladders, bidirectional inference).

    It calls `site(name, p, q)` for each latent, with p the prior's density there and q a
    function p -> the guide's density; only the guide's program calls it, so that it alone may use
    the features of x. `given` is that of p.

    Returns:
      (function of q, function of p), each for `Program`.
    """

    def guide(params: Any, context: Any, site: Callable[..., Any]) -> Any:
        return function(params, context, lambda name, p, q, given=None: site(name, q(p)))

    def prior(params: Any, context: Any, site: Callable[..., Any]) -> Any:
        return function(params, context, lambda name, p, q, given=None: site(name, p, given))

    return guide, prior


def _draw(key: Array) -> Callable[[str, Any, Any], Any]:
    """Fills each site with a sample, by keys of (key, the number of the site in the program)."""
    count = 0

    def at_site(name: str, p: Any, given: Any) -> Any:
        nonlocal count
        count += 1
        return p.sample(jax.random.fold_in(key, count - 1))

    return at_site


def _latents(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"a Program is a density over {{name: z}}; got {type(value).__name__}.")
    return value
