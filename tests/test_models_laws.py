"""What every model obeys, for each member of vi_jax/models: its terms are those of its densities,
its samples are examples, a batch is a loop, every parameter moves, bounds are in their order.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import all_finite, assert_mean, keys, normal, undeclared

import vi_jax as vi
from vi_jax.models import gated, likelihoods, priors
from vi_jax.models.table_vae import Column
from vi_jax.types import Drawn

SHAPE = (3, 2)
DRAWS = 1_000


class Case(NamedTuple):
    """A small instance, how it is trained, and what its terms are closed in."""

    model: vi.Model
    has_label: bool = False
    hides_labels: bool = False  # of some rows
    columns: tuple = ()  # their numbers among COLUMNS, of a table
    num_steps: int = 0  # of sequences of its rows
    num_units: int = 0  # of trials of counts
    is_discrete: bool = False
    drawn: tuple[str, ...] = ()  # sites whose KL is taken at the draw
    has_levels: bool = False  # x are whole numbers
    is_softened: bool = False  # its densities are not those of its terms
    num_words: int = 0  # of documents
    num_covariates: int = 0  # of documents


def with_gates():
    return vi.models.amortised(
        SHAPE,
        lambda num_outputs: gated.gated_mlp_encoder(SHAPE, num_outputs, (4, 3)),
        lambda num_outputs: gated.gated_mlp_decoder(SHAPE, num_outputs, 2, (3, 4)),
        vi.families.mean_field(2),
        likelihoods.bernoulli(),
        num_latents=2,
    )


def with_prior(prior):
    return vi.models.vae(SHAPE, num_latents=2, hidden=(4,), prior=prior, kl="drawn")


COLUMNS = (
    Column("gaussian"),
    Column("categorical", num_levels=3),
    Column("zero_inflated_negative_binomial"),
    Column("log_normal", scale=0.7),
    Column("bernoulli"),
    Column("gaussian"),
    Column("ordinal", num_levels=4),
    Column("student_t"),
    Column("poisson"),
    Column("negative_binomial"),
    Column("zero_inflated_poisson"),
)


ALL = tuple(range(len(COLUMNS)))
QUICK = (0, 1, 3, 4, 5, 6, 8)  # to compile
SOME = (0, 4, 5)


def table(columns=ALL, **options):
    return vi.models.table_vae(
        [COLUMNS[number] for number in columns],
        num_latents=2,
        hidden=(4,),
        num_covariates=2,
        has_exposure=True,
        **options,
    )


def table_rows(num, columns=ALL):
    """Rows of some of COLUMNS, of which a quarter of the entries is missing."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (num, 4))
    real = rng.standard_normal((num, 4))
    classes = [rng.integers(0, levels, num) for levels in (3, 2, 4)]
    each = [
        *(real[:, 0], classes[0], counts[:, 0], np.exp(real[:, 1]), classes[1], real[:, 2]),
        *(classes[2], real[:, 3], counts[:, 1], counts[:, 2], counts[:, 3]),
    ]
    observed = rng.random((num, len(COLUMNS))) < 0.75
    return {
        "values": jnp.asarray((np.stack(each, 1) * observed)[:, columns], jnp.float32),
        "observed": jnp.asarray(observed[:, columns]),
        "exposure": jnp.asarray(np.exp(rng.standard_normal(num)), jnp.float32),
        "covariates": jnp.asarray(rng.standard_normal((num, 2)), jnp.float32),
    }


def sequence():
    return vi.models.sequence_vae(
        [COLUMNS[number] for number in SOME],
        num_latents=2,
        width=4,
        num_covariates=2,
        has_exposure=True,
    )


def poisson_lds():
    return vi.models.poisson_lds([Column("poisson")] * 3, num_latents=2, num_passes=12)


def slds():
    return vi.models.slds(
        [Column("poisson")] * 3, num_latents=2, num_states=2, num_passes=30, max_steps=8
    )


def lfads():
    sizes = dict(num_latents=2, width=3, generator_width=3, num_factors=2)
    return vi.models.lfads([Column("poisson")] * 3, **sizes)


def driven():
    sizes = dict(num_latents=2, width=3, generator_width=3, num_factors=2, controller_width=3)
    return vi.models.lfads([Column("poisson")] * 3, num_inputs=2, **sizes)


def gpfa():
    return vi.models.gpfa([Column("poisson")] * 3, num_latents=2, num_passes=12, max_steps=8)


def trials(num, num_steps, num_units):
    """Counts, of which a quarter is missing."""
    rng = np.random.default_rng(0)
    observed = rng.random((num, num_steps, num_units)) < 0.75
    counts = rng.poisson(1.0, observed.shape)
    return {
        "values": jnp.asarray(counts * observed, jnp.float32),
        "observed": jnp.asarray(observed),
    }


def sequences(num, columns, num_steps):
    """Sequences of such rows, of 2 to `num_steps` steps."""
    rows = table_rows(num * num_steps, columns)
    x = {name: leaf.reshape(num, num_steps, *leaf.shape[1:]) for name, leaf in rows.items()}
    lengths = 2 + jnp.arange(num) % (num_steps - 1)
    is_there = jnp.arange(num_steps) < lengths[:, None]
    x["observed"] &= is_there[..., None]
    return {**x, "values": jnp.where(x["observed"], x["values"], 0.0)}


def documents(num, num_words, num_covariates):
    """Each of all words but those that occur 0 times in it."""
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(num_words) for _ in range(num)])
    rows = {
        "ids": jnp.asarray(ids, jnp.int32),
        "counts": jnp.asarray(rng.poisson(1.0, ids.shape), jnp.float32),
    }
    if num_covariates:
        shape = (num, num_covariates)
        rows["covariates"] = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return rows


OF_DOCUMENTS = dict(num_latents=3, hidden=4)
TWO = dict(num_latents=(3, 2), hidden=((4,), (4,)))
THREE = dict(num_latents=(3, 2, 1), hidden=((4,),) * 3)
STACKED = dict(
    num_features=3, num_latents=2, features_hidden=(4,), hidden=(4,), classifier_hidden=(4,)
)
# {name: () -> Case}; every function of vi_jax.models that makes a model has a row
CASES = {
    "vae": lambda: Case(vi.models.vae(SHAPE, num_latents=2, hidden=(4,))),
    "vae, full rank": lambda: Case(
        vi.models.vae(SHAPE, num_latents=2, hidden=(4,), family=vi.families.full_rank)
    ),
    "amortised, gated": lambda: Case(with_gates()),
    "vae, mixture prior": lambda: Case(with_prior(priors.mixture_of_gaussians(2, 3)), drawn=("z",)),
    "vae, vamp prior": lambda: Case(with_prior(priors.vamp(SHAPE, 3, centre=0.5)), drawn=("z",)),
    "vae, flow prior": lambda: Case(with_prior(priors.flow(2)), drawn=("z",)),
    "vae, standard normal": lambda: Case(
        vi.models.vae(SHAPE, num_latents=2, hidden=(4,), prior=priors.standard_normal(2))
    ),
    "hierarchical_vae": lambda: Case(vi.models.hierarchical_vae(SHAPE, **TWO), drawn=("z1",)),
    "ladder_vae": lambda: Case(vi.models.ladder_vae(SHAPE, **THREE)),
    "ladder_vae, layer norm": lambda: Case(vi.models.ladder_vae(SHAPE, **TWO, norm="layer")),
    "bidirectional_vae": lambda: Case(
        vi.models.bidirectional_vae(SHAPE, num_latents=(2, 2), width=4)
    ),
    "conv_bidirectional_vae": lambda: Case(
        vi.models.conv_bidirectional_vae(SHAPE, num_latents=(1, 2), halvings=(0, 1), width=3)
    ),
    "dlgm": lambda: Case(vi.models.dlgm(SHAPE, **TWO)),
    "dlgm, rank one": lambda: Case(
        vi.models.dlgm(SHAPE, **TWO, family=vi.families.rank_one_precision)
    ),
    "dlgm, flow": lambda: Case(
        vi.models.dlgm(SHAPE, **TWO, family=vi.families.planar, kl="drawn"), drawn=("xi1", "xi2")
    ),
    "sigmoid_belief_net": lambda: Case(
        vi.models.sigmoid_belief_net(SHAPE, num_latents=(3, 2)), is_discrete=True, drawn=("z1",)
    ),
    "discrete_vae": lambda: Case(
        vi.models.discrete_vae(SHAPE, num_latents=3, hidden=(4,)), is_discrete=True
    ),
    "conditional_vae": lambda: Case(
        vi.models.conditional_vae(SHAPE, 3, num_latents=2, hidden=(4,)), has_label=True
    ),
    "semi_supervised_vae": lambda: Case(
        vi.models.semi_supervised_vae(
            SHAPE, 3, num_latents=2, hidden=(4,), classifier_hidden=(4,), num_data=4
        ),
        has_label=True,
        hides_labels=True,
    ),
    "stacked_semi_supervised_vae": lambda: Case(
        vi.models.stacked_semi_supervised_vae(SHAPE, 3, **STACKED, num_data=4),
        has_label=True,
        hides_labels=True,
        drawn=("z1",),
    ),
    "table_vae": lambda: Case(table(QUICK), columns=QUICK),
    "table_vae, hiding": lambda: Case(table(SOME, hide=0.3, heteroscedastic=True), columns=SOME),
    "sequence_vae": lambda: Case(sequence(), columns=SOME, num_steps=3),
    "poisson_lds": lambda: Case(poisson_lds(), num_steps=3, num_units=3),
    "slds": lambda: Case(slds(), num_steps=3, num_units=3),
    "lfads": lambda: Case(lfads(), num_steps=3, num_units=3),
    "lfads, inputs": lambda: Case(driven(), num_steps=3, num_units=3),
    "gpfa": lambda: Case(gpfa(), num_steps=3, num_units=3),
    "table_vae, linearised": lambda: Case(
        table(SOME, guide="linearised_encoder", decoder_hidden=()), columns=SOME
    ),
    "vq_vae": lambda: Case(
        vi.models.vq_vae(
            SHAPE,
            num_positions=2,
            num_codes=12,  # more than vectors of a batch, so that some are unused
            code_size=2,
            network=vi.models.architectures.mlp((4,)),
            prior_width=2,
        ),
        is_softened=True,
    ),
    "diffusion": lambda: Case(
        vi.models.diffusion(SHAPE, 2, hidden=(4,), num_steps=2),
        drawn=("diffusion",),
        has_levels=True,
        is_softened=True,
    ),
    "prodlda": lambda: Case(vi.models.documents.prodlda(7, **OF_DOCUMENTS), num_words=7),
    "scholar": lambda: Case(
        vi.models.documents.scholar(7, 2, **OF_DOCUMENTS), num_words=7, num_covariates=2
    ),
    "nvdm": lambda: Case(vi.models.documents.nvdm(7, **OF_DOCUMENTS), num_words=7),
    "nvdm, shares": lambda: Case(
        vi.models.documents.nvdm(7, shares=True, **OF_DOCUMENTS), num_words=7
    ),
    "amortised_lda": lambda: Case(
        vi.models.documents.amortised_lda(7, **OF_DOCUMENTS), num_words=7, is_softened=True
    ),
    "etm": lambda: Case(vi.models.documents.etm(7, embedding_size=3, **OF_DOCUMENTS), num_words=7),
    "from_densities": lambda: Case(
        vi.models.from_densities(*_by_hand(vi.models.vae(SHAPE, num_latents=2, hidden=(4,))))
    ),
}
NOT_MODELS = {"Column", "architectures", "documents", "gated", "likelihoods", "networks", "priors"}


def _by_hand(model):
    d = model.densities
    return model.init, d.guide, d.prior, d.decode, d.log_lik


@functools.cache
def case_of(name):
    return CASES[name]()


def params_of(name):
    """Away from the start, where many a layer is 0."""
    params = jax.jit(case_of(name).model.init)(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    moved = [
        leaf + 0.3 * jnp.asarray(normal(number, *leaf.shape), leaf.dtype)
        for number, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, moved)


def examples(case, num=4):
    if case.num_words:
        return documents(num, case.num_words, case.num_covariates)
    if case.num_units:
        return trials(num, case.num_steps, case.num_units)
    if case.num_steps:
        return sequences(num, case.columns, case.num_steps)
    if case.columns:
        return table_rows(num, case.columns)
    kind = jnp.int32 if case.has_levels else jnp.float32
    x = jnp.asarray(normal(100, num, *SHAPE) > 0, kind)
    if not case.has_label:
        return x
    labelled = {"image": x, "label": jnp.arange(num) % 3}
    return {**labelled, "has_label": jnp.arange(num) == 1} if case.hides_labels else labelled


def one_of(x, row=0):
    return jax.tree.map(lambda leaf: leaf[row], x)


def total(kl: Any):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(kl))


def loss_of(case):
    if case.is_discrete:
        return vi.losses.negative_bound(
            case.model, vi.bounds.iwae, vi.estimators.vimco, num_samples=4
        )
    return vi.losses.negative_elbo(case.model)


SLOW_TO_COMPILE = {
    *("amortised_lda", "bidirectional_vae", "dlgm", "dlgm, flow", "dlgm, rank one", "gpfa"),
    *("lfads", "lfads, inputs", "poisson_lds", "sequence_vae", "stacked_semi_supervised_vae"),
    "table_vae, linearised",
}
VERY_SLOW_TO_COMPILE = {
    *("conv_bidirectional_vae", "ladder_vae, layer norm", "slds", "table_vae, hiding")
}


def marks_of(name):
    if name in VERY_SLOW_TO_COMPILE:
        return (pytest.mark.slow,)
    return (pytest.mark.integration,) if name in SLOW_TO_COMPILE else ()


each = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks_of(name)) for name in sorted(CASES)]
)


def test_every_model_has_a_case():
    tested = {name.split(",")[0] for name in CASES}
    of_documents = set(vi.models.documents.__all__) - {
        "Bag",
        "amortisation_gap",
        "shares",
        "topics",
    }
    assert tested == (set(vi.models.__all__) - NOT_MODELS) | of_documents
    for room in ("priors", "gated"):
        module = getattr(vi.models, room)
        made = {n for n, f in vars(module).items() if getattr(f, "__module__", "").endswith(room)}
        made = {n for n in made if not n.startswith("_") and n[0].islower()}
        used = {"mixture_of_gaussians", "vamp", "flow", "standard_normal"}
        assert made <= used | {"gated_mlp_encoder", "gated_mlp_decoder"}, f"{room}: {made}"


@pytest.mark.cases(
    rest="slow",
    default=["vae", "vae, full rank", "discrete_vae", "nvdm"],
    integration=[
        "sequence_vae",
        "dlgm",
        "table_vae",
        "hierarchical_vae",
        "semi_supervised_vae",
        "sigmoid_belief_net",
        "poisson_lds",
    ],
)
@each
def test_its_terms_are_those_of_its_densities(name):
    """E[log_lik - KL] = E_q[log p(x, z) - log q(z)]; log p(x | z) is that of what it decodes."""
    case = case_of(name)
    model = case.model
    params = params_of(name)
    x = one_of(examples(case))

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def both(key, params):
        key_terms, key_z, key_p = jax.random.split(key, 3)
        terms = model.terms(key_terms, params, x)
        q = model.densities.guide(params, x)
        z = q.sample(key_z)
        log_w = vi.losses.log_joint(model, params, x)(z) - q.log_prob(z)
        decoded = model.densities.decode(params, x, z).log_prob(x).sum()
        gap = decoded - model.densities.log_lik(params, x, z)
        p = model.densities.prior(params, x)
        z_p = p.sample(key_p)
        # the integral of p q / (p + q) by samples of either: each is the density of its samples
        shares = (
            jax.nn.sigmoid(p.log_prob(z) - q.log_prob(z)),
            jax.nn.sigmoid(q.log_prob(z_p) - p.log_prob(z_p)),
        )
        return terms.log_lik - total(terms.kl), log_w, gap, terms, shares

    elbo, log_w, gap, terms, shares = both(keys(1, DRAWS), params)
    assert_mean(np.asarray(shares[0], np.float64) - np.asarray(shares[1], np.float64), 0.0)
    assert all_finite(terms)
    assert {site for site, kl in terms.kl.items() if isinstance(kl, Drawn)} == set(case.drawn)
    np.testing.assert_allclose(gap, 0.0, atol=2e-5)
    if case.is_softened:
        return  # its own tests compare the two
    assert_mean(np.asarray(elbo, np.float64) - np.asarray(log_w, np.float64), 0.0)
    # K draws are worth more than one: ELBO <= IWAE_K, in expectation
    iwae = jax.vmap(vi.bounds.iwae)(log_w.reshape(-1, 10))
    slack = np.asarray(iwae) - np.asarray(elbo).reshape(-1, 10).mean(1)
    assert slack.mean() > -5 * slack.std() / len(slack) ** 0.5


@pytest.mark.cases(rest=None, integration=["table_vae"])
@each
def test_its_samples_are_examples(name):
    case = case_of(name)
    x = one_of(examples(case))

    def made(key, params, x):
        key_z, key_x = jax.random.split(key)
        p = case.model.generate(key_z, params, x)
        return p.sample(key_x), p.mean

    sample, mean = jax.jit(made)(jax.random.key(2), params_of(name), x)
    assert jax.tree.structure(sample) == jax.tree.structure(x)
    for ours, given in zip(jax.tree.leaves(sample), jax.tree.leaves(x), strict=True):
        assert ours.shape == given.shape
    is_of_values = bool(case.columns) or case.num_units > 0
    of_documents = (case.num_words,) if case.num_words else SHAPE
    assert mean.shape == (x["values"].shape if is_of_values else of_documents)
    assert case.has_levels or all_finite(mean)  # numpyro states no mean of classes
    has_label = case.has_label and not case.hides_labels  # where it is hidden, it is drawn
    context = ["label"] * has_label + ["exposure", "covariates"] * bool(case.columns)
    context += ["covariates"] * bool(case.num_covariates)
    assert all(np.array_equal(sample[name], x[name]) for name in context)
    again = jax.eval_shape(case.model.terms, jax.random.key(0), params_of(name), sample)
    assert again.log_lik.shape == ()


@pytest.mark.cases(
    rest="slow",
    default=["vae", "discrete_vae", "nvdm", "from_densities"],
    integration=[
        "sequence_vae",
        "dlgm",
        "table_vae",
        "ladder_vae",
        "vq_vae",
        "semi_supervised_vae",
        "diffusion",
        "sigmoid_belief_net",
        "gpfa",
    ],
)
@each
def test_two_steps_move_every_parameter_and_a_batch_is_a_loop(name):
    case = case_of(name)
    x = examples(case)
    optimizer = optax.adam(0.1)
    step = jax.jit(vi.make_step(loss_of(case), optimizer))
    state = vi.init_state(jax.random.key(0), case.model.init, optimizer)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state.params))
    first = state.params
    for _ in range(2):
        state, metrics = step(state, x)
        assert np.isfinite(metrics["loss"])
    still = [
        jax.tree_util.keystr(path)
        for (path, before), after in zip(
            jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(state.params), strict=True
        )
        if np.array_equal(before, after)
    ]
    assert not still

    @jax.jit
    def both(key, params, x):
        batch = vi.losses.batch_terms(key, case.model, params, x)
        row_keys = jax.random.split(jax.random.clone(key), 4)
        each = jax.lax.map(lambda row: case.model.terms(row[0], params, row[1]), (row_keys, x))
        return batch, each

    batch, alone = both(jax.random.key(3), state.params, x)
    for a, b in zip(jax.tree.leaves(batch), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_what_a_prior_declares_is_what_it_depends_on():
    for name in sorted(CASES):
        case = case_of(name)
        params = params_of(name)
        x = one_of(examples(case))
        p = case.model.densities.prior(params, x)
        if isinstance(p, vi.distributions.Program):
            assert undeclared(p, p.sample(jax.random.key(0))) == []


@pytest.mark.integration
def test_layer_norm_hides_the_size_and_the_level_of_what_comes_to_an_activation():
    """The guide of an image that the first layer's weights and bias scale is the same."""
    model = vi.models.ladder_vae(SHAPE, **TWO, norm="layer")
    params = jax.jit(model.init)(jax.random.key(0))
    first = params["up"]["z1"]
    scaled = jax.tree.map(lambda leaf: 7.0 * leaf, first["Dense_0"])
    x = examples(case_of("vae"))[0]
    others = {**params, "up": {**params["up"], "z1": {**first, "Dense_0": scaled}}}
    ours = model.densities.guide(params, x).context
    theirs = model.densities.guide(others, x).context
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), ours, theirs)
    with pytest.raises(ValueError, match="'none' or 'layer'"):
        vi.models.ladder_vae(SHAPE, **TWO, norm="batch")


@pytest.mark.integration
def test_a_ladder_merges_two_gaussians_by_their_precisions():
    model = vi.models.ladder_vae(SHAPE, num_latents=(2, 1), hidden=((4,), (4,)))
    params = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.3, params)
    x = examples(case_of("vae"))[0]
    q = model.densities.guide(params, x)
    z = {"z1": jnp.ones(2), "z2": jnp.ones(1)}
    merged = q.at(z)["z1"].base_dist
    p = model.densities.prior(params, x).at(z)["z1"].base_dist
    loc, raw = np.split(np.asarray(q.context["z1"], np.float64), 2)
    of_data = np.log1p(np.exp(raw) * (np.e - 1)) ** -2.0
    of_prior = np.asarray(p.scale, np.float64) ** -2.0
    precision = of_data + of_prior
    mean = (loc * of_data + p.loc * of_prior) / precision
    np.testing.assert_allclose(merged.scale, precision**-0.5, rtol=1e-5)
    np.testing.assert_allclose(merged.loc, mean, rtol=1e-5)


@pytest.mark.integration
def test_a_label_matters_in_every_network():
    model = case_of("conditional_vae").model
    densities = model.densities
    params = params_of("conditional_vae")
    first = one_of(examples(case_of("conditional_vae")))
    second = {**first, "label": first["label"] + 1}
    z = jnp.ones(2)
    for density in (densities.guide, densities.prior):
        assert not np.allclose(density(params, first).mean, density(params, second).mean)
    assert densities.log_lik(params, first, z) != densities.log_lik(params, second, z)
    assert densities.decode(params, second, z).sample(jax.random.key(0))["label"] == 1


def test_discrete_models_are_refused_by_the_elbo_of_terms():
    for name in ("discrete_vae", "sigmoid_belief_net"):
        case = case_of(name)
        with pytest.raises(ValueError, match="differentiates through"):
            jax.eval_shape(
                vi.losses.negative_elbo(case.model),
                params_of(name),
                jax.random.key(0),
                examples(case),
                jnp.int32(0),
            )


def test_sizes_that_cannot_be_are_refused():
    for bad in [
        lambda: vi.models.hierarchical_vae(SHAPE, num_latents=(3,), hidden=((4,), (4,))),
        lambda: vi.models.ladder_vae(SHAPE, num_latents=(3, 0), hidden=((4,), (4,))),
        lambda: vi.models.dlgm(SHAPE, num_latents=(3, 2), hidden=((4,),)),
        lambda: vi.models.sigmoid_belief_net(SHAPE, num_latents=()),
        lambda: vi.models.discrete_vae(SHAPE, num_latents=0),
        lambda: vi.models.conditional_vae(SHAPE, 0, num_latents=2),
        lambda: priors.mixture_of_gaussians(2, 0),
        lambda: priors.vamp(SHAPE, 0),
        lambda: priors.vamp(SHAPE, 3, rows=np.zeros((2, *SHAPE))),
        lambda: gated.gated_mlp_decoder(SHAPE, 1, 2, output_bias=np.zeros(3)),
    ]:
        with pytest.raises(ValueError, match=r"expects|needs"):
            bad()
