"""Parameters in .safetensors files."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tree_equal

import vi_jax as vi
from vi_jax import files

PARAMS = {
    "encoder": [{"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.zeros(3)}],
    "scale": jnp.float32(0.1),
    "half": jnp.array([1.5, -2.25], jnp.bfloat16),
    "codes": jnp.arange(3, dtype=jnp.int32),
    "mask": jnp.array([True, False]),
    "none": jnp.zeros((0, 2)),
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "params.safetensors"
    vi.save_safetensors(path, PARAMS, {"step": "7"})
    return path


def test_a_pytree_comes_back_with_the_same_bits(path):
    back = vi.load_safetensors(path, jax.eval_shape(lambda: PARAMS))
    assert tree_equal(back, PARAMS)
    assert jax.tree.map(lambda leaf: leaf.dtype, back) == jax.tree.map(
        lambda leaf: leaf.dtype, PARAMS
    )


def test_without_a_pytree_arrays_come_by_path(path):
    arrays = vi.load_safetensors(path)
    assert set(arrays) == {
        *("encoder.0.kernel", "encoder.0.bias", "scale", "half", "codes", "mask", "none")
    }
    np.testing.assert_array_equal(arrays["encoder.0.kernel"], PARAMS["encoder"][0]["kernel"])


def test_the_file_is_of_the_format(path):
    """Eight bytes of length, a JSON header, the numbers."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    assert header["__metadata__"] == {"step": "7"}
    assert header["half"]["dtype"] == "BF16"
    begin, end = header["encoder.0.kernel"]["data_offsets"]
    stored = np.frombuffer(content[8 + size + begin : 8 + size + end], "<f4")
    np.testing.assert_array_equal(stored, np.arange(6.0))


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ({**PARAMS, "more": jnp.zeros(1)}, "'more' is not in the file"),
        ({"scale": PARAMS["scale"]}, "'codes' is not in the pytree"),
        ({**PARAMS, "codes": jnp.zeros(4, jnp.int32)}, r"int32\[3\], where .* int32\[4\]"),
        ({**PARAMS, "codes": jnp.zeros(3)}, r"int32\[3\], where the pytree has float32\[3\]"),
    ],
)
def test_another_pytree_is_refused(path, like, said):
    with pytest.raises(ValueError, match=said):
        vi.load_safetensors(path, like)


def test_what_is_no_such_file_is_refused(tmp_path):
    for content in (b"", b"no safetensors", b"\x80" * 64):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError, match=r"x is no \.safetensors file of plain numbers"):
            vi.load_safetensors(tmp_path / "x")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"key": jax.random.key(0)}, r"'key' is of key<fry>; a \.safetensors file"),
        ({"word": "text"}, "'word' is of str"),
        ({"a": {"b": jnp.zeros(1)}, "a.b": jnp.zeros(1)}, r"two leaves .* the path 'a\.b'"),
    ],
)
def test_what_is_no_array_is_refused(params, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        vi.save_safetensors(tmp_path / "x", params)
    assert not (tmp_path / "x").exists()


def test_the_library_of_that_name_reads_and_writes_the_same(path, tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    plain = {name: np.asarray(leaf) for name, leaf in files.by_path(PARAMS).items()}
    del plain["half"]  # it has no bfloat16 for NumPy
    (tmp_path / "theirs").write_bytes(library.save(plain))
    theirs = vi.load_safetensors(tmp_path / "theirs")
    assert tree_equal({name: theirs[name] for name in plain}, plain)
    vi.save_safetensors(tmp_path / "ours", plain)
    assert tree_equal(library.load((tmp_path / "ours").read_bytes()), plain)
    with pytest.importorskip("safetensors").safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"step": "7"}
        assert set(opened.keys()) == set(files.by_path(PARAMS))


def test_parameters_of_a_model_come_back(tmp_path):
    params = {"layers": [(jnp.ones((2, 2)), jnp.zeros(2))] * 3}
    vi.save_safetensors(tmp_path / "x", params)
    assert sorted(files.by_path(params))[:2] == ["layers.0.0", "layers.0.1"]
    assert tree_equal(vi.load_safetensors(tmp_path / "x", params), params)
