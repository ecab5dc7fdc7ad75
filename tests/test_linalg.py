"""The one home of factorisations, and batches that LAPACK gets in one piece (vi_jax/linalg.py)."""

import ast
import math
import re
import threading
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest
from jax._src.interpreters.mlir import _platform_specific_lowerings
from jax._src.lax import linalg as lax_linalg
from threadpoolctl import threadpool_info

import vi_jax as vi
from vi_jax import linalg

ROOT = Path(vi.__file__).parent.parent
HARMLESS = {"norm", "vector_norm", "multi_dot", "matrix_power"}  # no factorisation
MODULES = (
    "jax.numpy.linalg",
    "jax.scipy.linalg",
    "jax.lax.linalg",
    "jax.scipy.stats.multivariate_normal",
)

cut = pytest.mark.skipif(
    not linalg.is_cut(tuple(jaxlib.version.__version_info__)),
    reason="this jaxlib makes one LAPACK call for a batch, and the file leaves JAX alone",
)


# The one home


def elsewhere(source):
    """Lines of a file that use JAX's factorisations."""
    tree = ast.parse(source)
    roots = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                roots[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                roots[alias.asname or alias.name] = name
                if name.startswith(MODULES) and name not in MODULES:
                    found.append(f"line {node.lineno} imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            name = f"{roots.get(first, first)}.{rest}"
            if name.startswith(MODULES) and name not in MODULES:
                found.append(f"line {node.lineno} uses {name}")
    return [line for line in found if line.rsplit(".", 1)[1] not in HARMLESS]


def test_no_other_file_calls_them():
    files = [*ROOT.glob("vi_jax/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    problems = [
        f"{path.relative_to(ROOT)}: {line}; take it from vi_jax.linalg"
        for path in files
        if path != Path(linalg.__file__)
        for line in elsewhere(path.read_text())
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "source",
    [
        "import jax.numpy as jnp\njnp.linalg.cholesky(a)",
        "from jax import numpy\nnumpy.linalg.qr(a)",
        "import jax\njax.scipy.linalg.cho_solve(a, b)",
        "from jax.scipy.linalg import solve_triangular as solve",
        "from jax import lax\nlax.linalg.eigh(a)",
        "from jax.scipy.stats import multivariate_normal as mvn\nmvn.logpdf(x, m, s)",
        "from jax.numpy import linalg\nlinalg.svd(a)",
    ],
)
def test_a_call_elsewhere_is_seen(source):
    assert elsewhere(source)


def test_a_norm_is_no_factorisation():
    assert not elsewhere("import jax.numpy as jnp\njnp.linalg.norm(a)")
    assert not elsewhere("import numpy as np\nnp.linalg.cholesky(a)")


# The same numbers


def spd(key, *shape):
    a = jax.random.normal(key, (*shape, shape[-1]))
    return a @ jnp.swapaxes(a, -1, -2) + jnp.eye(shape[-1])


def trisolve(a):
    return linalg.solve_triangular(jnp.tril(a), a[:, :3], lower=True, trans=1)


CALLS = {
    "cholesky": linalg.cholesky,
    "qr": lambda a: linalg.qr(a[:, :7]),
    "qr of whole": lambda a: linalg.qr(a[:, :7], mode="complete"),
    "eigh": linalg.eigh,
    "svd": lambda a: linalg.svd(a[:, :7], full_matrices=False),
    "inv": linalg.inv,
    "solve": lambda a: linalg.solve(a, a[:, :3]),
    "slogdet": linalg.slogdet,
    "solve_triangular": trisolve,
    "cho_solve": lambda a: linalg.cho_solve((linalg.cholesky(a), True), a[:, 0]),
}


# 20 columns: some groups of several matrices, some of one; 5 and 50 matrices: apart and in loops
@pytest.mark.cases(
    rest=None,
    slow=[
        "cholesky-batch1",
        "qr-batch1",
        "qr of whole-batch1",
        "eigh-batch1",
        "svd-batch1",
        "inv-batch0",
        "solve-batch0",
        "slogdet-batch0",
        "solve_triangular-batch0",
        "cho_solve-batch0",
    ],
)
@pytest.mark.integration
@pytest.mark.parametrize("batch", [(5,), (2, 25)])
@pytest.mark.parametrize("name", CALLS)
def test_a_batch_gives_what_its_matrices_give(name, batch, x64):
    size = 60 if len(batch) == 1 else 24
    a = spd(jax.random.key(0), *batch, size)
    f = CALLS[name]
    g = f
    for _ in batch:
        g = jax.vmap(g)
    found = jax.jit(g)(a)
    one = jax.jit(f)
    expected = [one(matrix) for matrix in a.reshape(-1, size, size)]
    for leaf, *leaves in zip(*map(jax.tree.leaves, [found, *expected]), strict=True):
        np.testing.assert_allclose(
            leaf.reshape(-1, *leaf.shape[len(batch) :]), np.stack(leaves), rtol=1e-10, atol=1e-12
        )


@pytest.mark.cases(rest=None, integration=["cholesky"])
@pytest.mark.parametrize("name", ["cholesky", "qr", "eigh", "solve", "solve_triangular"])
def test_gradients_of_a_batch(name, x64):
    a = spd(jax.random.key(1), 12, 50)

    def loss(a):
        return sum(jnp.sum(jnp.abs(leaf) ** 1.5) for leaf in jax.tree.leaves(CALLS[name](a)))

    found = jax.jit(jax.vmap(jax.grad(loss)))(a)
    one = jax.jit(jax.grad(loss))
    expected = np.stack([one(matrix) for matrix in a])
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.integration
def test_a_gradient_of_a_loop_over_a_batch(x64):
    a = spd(jax.random.key(2), 12, 50)

    def loss(a):
        def step(x, _):
            root = linalg.cholesky(x)
            return root @ jnp.swapaxes(root, -1, -2) + 0.1 * x, jnp.log(root[:, 0, 0]).sum()

        return jax.lax.scan(step, a, None, length=3)[1].sum()

    found = jax.jit(jax.grad(loss))(a)
    one = jax.jit(jax.grad(lambda matrix: loss(matrix[None])))
    np.testing.assert_allclose(found, np.stack([one(matrix) for matrix in a]), rtol=1e-8)


# No call of a program is cut


def cost(target, dims):
    """`cost_per_matrix` of jaxlib's lapack_kernels.cc for operands [batch, rows, columns]."""
    kind = re.fullmatch(r"lapack_([sdcz])(\w+)_ffi", target)
    letter = kind[1]
    name = kind[2]
    rows, columns = dims[0][-2:] if len(dims[0]) > 1 else (dims[0][-1], 1)
    least = min(rows, columns)
    if name == "trsm":
        m, n = dims[1][-2:]
        work = m * n * dims[0][-1]
    elif name == "orgqr" or name == "ungqr":
        k = dims[1][-1]
        work = 4 * rows * columns * k - 2 * k * k * (rows + columns) + 4 * k**3 // 3
    elif name in ("ormqr", "unmqr"):
        k = dims[1][-1]
        m, n = dims[2][-2:]
        work = 4 * k * m * n - 2 * k * k * n
    elif name == "gtsv":
        m, n = dims[3][-2:]
        work = 5 * m * n
    else:
        work = {
            "potrf": rows**3 // 3,
            "getrf": rows * columns * least,
            "geqrf": 2 * rows * columns * least - 2 * least**3 // 3,
            "geqp3": 2 * rows * columns * least - 2 * least**3 // 3,
            "gesdd": 10 * rows * columns * least,
            "gesvd": 10 * rows * columns * least,
            "syevd": 5 * rows**3,
            "heevd": 4 * rows**3,
            "geev": (10 if letter in "sd" else 1) * rows**3,
            "gees": 5 * rows**3,
            "gehrd": 2 * rows**3,
            "sytrd": rows**3 * 4 // 3,
            "hetrd": rows**3 * 4 // 3,
        }[name]
    is_tripled = letter in "cz" and name != "geev"
    return 3 * work if is_tripled else work


def lapack_calls(function, *args):
    """[(target, operand shapes)] of the LAPACK calls of a compiled program."""
    text = jax.jit(function).lower(*args).as_text()
    pattern = r"stablehlo\.custom_call @(lapack_\w+)\(.*? : \(([^)]*)\) ->"
    return [
        (target, [tuple(map(int, re.findall(r"(\d+)x", shape))) for shape in shapes.split(", ")])
        for target, shapes in re.findall(pattern, text)
    ]


def cut_calls(calls):
    """Those that jaxlib cuts with many threads."""
    found = []
    for target, dims in calls:
        most = max(map(len, dims))
        batch = math.prod(dims[0][: most - 2])
        work = cost(target, dims)
        if batch * work >= 200_000 and batch > -(-200_000 // work):
            found.append((target, dims))
    return found


PRIMITIVES = {
    "cholesky": lambda a: lax_linalg.cholesky(a),
    "eig": lambda a: lax_linalg.eig(a),
    "eigh": lambda a: lax_linalg.eigh(a),
    "geqp3": lambda a: lax_linalg.qr(a, pivoting=True),
    "geqrf": lambda a: lax_linalg.geqrf(a),
    "hessenberg": lambda a: lax_linalg.hessenberg(a),
    "householder_product": lambda a: lax_linalg.householder_product(a, a[..., 0]),
    "lu": lambda a: lax_linalg.lu(a),
    "ormqr": lambda a: lax_linalg.ormqr(a, a[..., 0], a),
    "schur": lambda a: lax_linalg.schur(a),
    "svd": lambda a: lax_linalg.svd(a),
    "triangular_solve": lambda a: lax_linalg.triangular_solve(a, a[..., :2], left_side=True),
    "tridiagonal": lambda a: lax_linalg.tridiagonal(a),
    "tridiagonal_solve": lambda a: lax_linalg.tridiagonal_solve(*3 * [a[..., 0]], a),
}


@cut
def test_every_primitive_that_calls_lapack_is_known():
    here = {
        primitive.name
        for primitive in _platform_specific_lowerings["cpu"]
        if getattr(lax_linalg, f"{primitive.name}_p", None) is primitive
    }
    assert here == set(PRIMITIVES)


@cut
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_no_call_is_cut(name, dtype, x64):
    for shape in ((3, 70, 70), (2, 500, 8, 8)):
        calls = lapack_calls(PRIMITIVES[name], jnp.ones(shape, dtype))
        assert calls
        assert not cut_calls(calls)


@pytest.mark.integration
@cut
def test_an_outsiders_batches_are_not_cut():
    import numpyro.distributions as dist

    def density(root, x):
        return dist.MultivariateNormal(jnp.zeros(x.shape), covariance_matrix=root).log_prob(x)

    calls = lapack_calls(jax.vmap(jax.grad(density)), jnp.ones((30, 40, 40)), jnp.ones((30, 40)))
    assert len(calls) > 2
    assert not cut_calls(calls)


@pytest.mark.integration
def test_a_batch_of_unknown_size_is_left_to_jax(x64):
    shape = jax.export.symbolic_shape("b, 40, 40")
    exported = jax.export.export(jax.jit(linalg.cholesky))(jax.ShapeDtypeStruct(shape, "float64"))
    a = spd(jax.random.key(3), 30, 40)
    np.testing.assert_allclose(exported.call(a), np.linalg.cholesky(a), rtol=1e-9, atol=1e-12)


def test_an_empty_batch():
    assert linalg.cholesky(jnp.ones((0, 70, 70))).shape == (0, 70, 70)


@pytest.mark.integration
def test_a_batch_that_is_no_positive_definite_matrix_is_nan_there(x64):
    a = spd(jax.random.key(4), 5, 70).at[3].multiply(-1.0)
    bad = jnp.isnan(jax.jit(linalg.cholesky)(a)).any((1, 2))
    assert bad.tolist() == [False, False, False, True, False]


@cut
def test_a_cut_call_is_seen():
    assert cut_calls([("lapack_dpotrf_ffi", [(4, 64, 64)])])
    assert not cut_calls([("lapack_dpotrf_ffi", [(3, 64, 64)])])


def test_other_platforms_get_the_plain_operation():
    text = (
        jax.jit(linalg.cholesky)
        .trace(jnp.ones((100, 50, 50)))
        .lower(lowering_platforms=("tpu",))
        .as_text()
    )
    assert "stablehlo.cholesky" in text
    assert "stablehlo.while" not in text
    assert "tensor<100x50x50xf32>" in text


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((0, 9, 2), False),
        ((0, 10, 0), True),
        ((0, 10, 2), True),
        ((0, 11, 0), True),
        ((0, 11, 1), False),
        ((0, 12, 0, 1), False),
    ],
)
def test_the_releases_that_cut(version, expected):
    assert linalg.is_cut(version) == expected


# BLAS on one thread


def num_threads():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_blas_has_one_thread_inside():
    with linalg.one_blas_thread():
        assert num_threads() == {1}  # the library is loaded by now
    before = num_threads()
    with linalg.one_blas_thread(), linalg.one_blas_thread():
        pass
    assert num_threads() == before
    with pytest.raises(KeyError), linalg.one_blas_thread():
        raise KeyError
    assert num_threads() == before


def test_blas_has_its_threads_back_after_two_python_threads_asked():
    before = num_threads()
    inside = threading.Event()
    outside = threading.Event()

    def other():
        with linalg.one_blas_thread():
            inside.set()
            outside.wait(60)

    thread = threading.Thread(target=other)
    with linalg.one_blas_thread():
        thread.start()
        assert inside.wait(60)
        assert num_threads() == {1}
    outside.set()
    thread.join()
    assert num_threads() == before
