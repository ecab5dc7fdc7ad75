"""experiments.data: images as people bring them, in arrays and in folders: channels, scale,
transparency, 16 bits, several sizes.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments import config_file, data, titles
from experiments.data import channels, resize, rules, scale
from experiments.data.rules import Rules
from experiments.overrides import Override

RNG = np.random.default_rng(0)


def config(name, **changes):
    values = dict(
        data_dir="", train="train", validation="", test="test", shuffle_seed=0, binarisation="none"
    )
    return SimpleNamespace(name=name, **(values | dict(static_seed=0) | changes))


def of_arrays(tmp_path, train, test=None, **changes):
    """The data set of two arrays in an .npz."""
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=train, x_test=train if test is None else test)
    return data.load(config(f"npz:{path}", **changes))


def fails(match, load):
    """Asserts that loading is a DataError of one line that matches."""
    with pytest.raises(data.DataError, match=match) as caught:
        load()
    assert "\n" not in str(caught.value)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# --- channels


@pytest.mark.parametrize(
    ("shape", "read", "said"),
    [
        ((9, 8), (9, 8), ""),
        ((9, 8, 1), (9, 8), ""),
        ((1, 9, 8), (9, 8), "channels first"),
        ((9, 8, 3), (9, 8, 3), ""),
        ((3, 9, 8), (9, 8, 3), "channels first"),
        ((9, 8, 2), (9, 8, 2), "two channels"),
        ((9, 8, 7), (9, 8, 7), "volumes"),
        ((9, 8, 7, 1), (9, 8, 7), "volumes"),
        ((1, 9, 8, 7), (9, 8, 7), "volumes"),
        ((9, 8, 7, 3), (9, 8, 7, 3), "volumes"),
        ((3, 9, 8, 7), (9, 8, 7, 3), "volumes"),
        ((9, 8, 4), (9, 8, 3), "4 channels"),
    ],
)
def test_the_axis_of_the_channels_is_recognised_and_said(tmp_path, capsys, shape, read, said):
    x = pixels(5, *shape)
    got = of_arrays(tmp_path, x).train.x
    assert got.shape == (5, *read)
    assert said in capsys.readouterr().err
    last = np.moveaxis(x, 1, -1) if shape[0] in (1, 3) else x
    np.testing.assert_array_equal(got, last.reshape(5, *read) if shape[-1] != 4 else x[..., :3])


@pytest.mark.parametrize("shape", [(3, 9, 3), (1, 9, 2), (3, 3, 3), (4, 9, 8), (2, 9, 8)])
def test_what_the_sizes_do_not_say_is_asked_for(tmp_path, shape):
    x = pixels(5, *shape)
    fails("--config.data.channels=first", lambda: of_arrays(tmp_path, x, alpha="keep"))
    first = of_arrays(tmp_path, x, channels="first", alpha="keep").train.x
    np.testing.assert_array_equal(first, np.moveaxis(x, 1, -1).reshape(first.shape))
    last = of_arrays(tmp_path, x, channels="last", alpha="keep").train.x
    np.testing.assert_array_equal(last, x)


def test_five_axes_and_more_are_refused_with_the_way_on(tmp_path):
    fails("reshape", lambda: of_arrays(tmp_path, pixels(5, 6, 6, 6, 6)))
    fails("reshape", lambda: of_arrays(tmp_path, pixels(5, 3, 6, 6, 6, 6)))


@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_any_shape_has_a_layout_or_an_error(shape):
    message = "channels="
    first = False
    try:
        first = channels.is_first(tuple(shape), "auto", "x")
    except data.DataError as error:
        message = str(error)
    assert "channels=" in message or "reshape" in message
    assert not first or shape[0] in channels.COMMON


# --- scale


@pytest.mark.parametrize(
    ("stored", "num_levels", "said"),
    [
        (lambda u: u > 99, 2, ""),
        (lambda u: (u > 99).astype(np.float32), 2, "0 and 1"),
        (lambda u: u, 256, ""),
        (lambda u: u.astype(np.int64), 256, ""),
        (lambda u: u // 16, 16, "16 levels"),
        (lambda u: u / 255, 256, "rounded"),
        (lambda u: u / 127.5 - 1, 256, "-1 is black"),
        (lambda u: u.astype(np.float32), 256, "255 is white"),
        (lambda u: u.astype(np.uint16) * 257, 256, "16 bits"),
        (lambda u: np.rint(u * (1023 / 255)).astype(np.uint16), 256, "10 bits"),
        (lambda u: np.rint(u * (4095 / 255)).astype(np.int32), 256, "12 bits"),
    ],
)
def test_the_scale_is_recognised_and_said(tmp_path, capsys, stored, num_levels, said):
    u = pixels(5, 9, 8)
    u[0, 0, :2] = 0, 255
    got = of_arrays(tmp_path, stored(u))
    assert got.num_levels == num_levels
    err = capsys.readouterr().err
    assert said in err
    assert bool(said) == bool(err)
    expected = {2: u > 99, 16: u // 16, 256: u}[num_levels]
    np.testing.assert_array_equal(got.train.x, expected)


def test_the_scale_is_that_of_all_splits(tmp_path):
    train = pixels(5, 9, 8).astype(np.float64)
    train[0, 0, 0] = 255
    test = np.clip(train, 0, 1)  # alone it would be binary
    got = of_arrays(tmp_path, train, test)
    assert got.num_levels == 256
    np.testing.assert_array_equal(got.test.x, test)
    dark = of_arrays(tmp_path, train.astype(np.uint8), test.astype(np.uint8))
    assert (dark.num_levels, dark.test.x.max()) == (256, 1)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("unit", [0, 0, 128, 255, 255]),
        ("symmetric", [0, 128, 191, 255, 255]),
        ("2", [0, 0, 64, 128, 255]),
        ("-2:2", [0, 128, 159, 191, 255]),
    ],
)
def test_the_scale_that_is_asked_for(tmp_path, asked, expected):
    x = np.tile(np.array([-2, 0, 0.5, 1, 2.0])[:, None, None], (1, 3, 5))
    fails("--config.data.scale=-2:2", lambda: of_arrays(tmp_path, x))
    got = of_arrays(tmp_path, x, scale=asked)
    np.testing.assert_array_equal(got.train.x[:, 0, 0], expected)


def test_levels_of_integers_are_kept_where_white_says_so(tmp_path):
    x = pixels(5, 9, 8) // 32
    got = of_arrays(tmp_path, x, scale="15")
    assert got.num_levels == 16
    np.testing.assert_array_equal(got.train.x, x)
    assert of_arrays(tmp_path, x, scale="255").num_levels == 256


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (np.full((3, 4, 4), np.nan), "nan_to_num"),
        (np.full((3, 4, 4), -np.inf), "nan or infinite"),
        (np.full((3, 4, 4), 9.5), "black and white are not known"),
        (np.full((3, 4, 4), 300.0), "black and white are not known"),
        (np.full((3, 4, 4), -5), "--config.data.scale=-5:-5"),
        (np.full((3, 4, 4), 10**6), r"1000000\.\.1000000"),
    ],
)
def test_numbers_that_are_no_pixels_are_refused_with_the_way_on(tmp_path, x, match):
    fails(match, lambda: of_arrays(tmp_path, x))


@given(
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
    white=st.sampled_from([1.0, 255.0, 4095.0]),
)
def test_conversion_is_the_nearest_level(low, span, white):
    x = np.linspace(low, low + span, 12).reshape(3, 2, 2)
    levels, num_levels = scale.as_levels({"all": x}, (0.0, white), "x")
    assert num_levels == 256
    exact = np.clip(x / white, 0, 1) * 255
    assert np.abs(levels["all"] - exact).max() <= 0.5 + 1e-9


# --- transparency, mode and size of arrays


@pytest.mark.parametrize(
    ("stored", "white"),
    [
        (np.uint16([0, 1, 300, 40_000, 65_535]), 65_535.0),
        (np.uint16([0, 1, 300, 1_022, 1_023]), 1_023.0),
        (np.float32([0.0, 1e-4, 0.1234, 0.5, 1.0]), 1.0),
    ],
)
def test_more_than_eight_bits_are_kept_where_asked(tmp_path, capsys, stored, white):
    """To half of 2^-16; a likelihood of reals sees them so."""
    x = np.resize(stored, (6, 5, 5))
    kept = of_arrays(tmp_path, x, depth="full")
    assert kept.num_levels == 65_536
    assert kept.train.x.dtype == np.uint16
    assert "kept in 65,536 levels (config.data.depth=full)" in capsys.readouterr().err
    found = kept.train.x.astype(np.float32) / np.float32(65_535)
    np.testing.assert_allclose(found, x / white, atol=0.51 / 65_535)
    assert of_arrays(tmp_path, x).train.x.dtype == np.uint8


def test_eight_bits_are_eight_bits_at_any_depth(tmp_path):
    x = pixels(6, 5, 5)
    dataset = of_arrays(tmp_path, x, depth="full")
    assert dataset.num_levels == 256
    np.testing.assert_array_equal(dataset.train.x, x)


def test_what_is_done_in_eight_bits_alone_is_refused_at_full_depth(tmp_path):
    deep = RNG.integers(0, 65_536, (6, 8, 8), dtype=np.uint16)
    for fields in ({"size": (4,)}, {"mode": "colour"}):
        match = f"config.data.{next(iter(fields))} would change"
        fails(match, lambda fields=fields: of_arrays(tmp_path, deep, depth="full", **fields))
    (tmp_path / "photos").mkdir()
    folder = config(f"images:{tmp_path / 'photos'}", depth="full")
    fails("config.data.depth=full is of arrays", lambda: data.load(folder))


def test_transparency_is_laid_on_a_colour_or_kept(tmp_path):
    x = pixels(3, 6, 5, 4)
    x[0, 0, :3, 3] = 0, 255, 51
    laid = of_arrays(tmp_path, x, alpha="#ff8000").train.x
    share = x[..., 3:] / 255
    exact = share * x[..., :3] + (1 - share) * np.array([255, 128, 0])
    assert np.abs(laid - exact).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(of_arrays(tmp_path, x, alpha="keep").train.x, x)
    pillow = Image.new("RGBA", (5, 6), (255, 255, 255, 255))
    pillow.alpha_composite(Image.fromarray(x[0]))
    white = of_arrays(tmp_path, x, alpha="white").train.x[0]
    assert np.abs(white - np.asarray(pillow, int)[..., :3]).max() <= 1


def test_two_channels_are_grey_and_alpha_where_a_colour_is_given(tmp_path):
    x = pixels(3, 6, 5, 2)
    laid = of_arrays(tmp_path, x, alpha="white").train.x
    share = x[..., 1] / 255
    assert np.abs(laid - (share * x[..., 0] + (1 - share) * 255)).max() <= 0.5 + 1e-3


def test_mode_is_as_pillow_has_it(tmp_path):
    x = pixels(3, 6, 5, 3)
    grey = of_arrays(tmp_path, x, mode="grey").train.x
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in x]
    np.testing.assert_array_equal(grey, expected)
    colour = of_arrays(tmp_path, grey, mode="colour").train.x
    np.testing.assert_array_equal(colour, np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize("channels_last", [(), (2,), (3,), (4,)])
@pytest.mark.parametrize("fit", rules.FITS)
def test_arrays_are_brought_to_a_size(tmp_path, fit, channels_last, capsys):
    x = np.full((3, 20, 10, *channels_last), 200, np.uint8)
    got = of_arrays(tmp_path, x, size=(8, 8), fit=fit, alpha="keep").train.x
    assert got.shape == (3, 8, 8, *channels_last)
    assert "20 x 10 pixels are brought to 8 x 8" in capsys.readouterr().err
    inside = got[:, :, 2:6] if fit == "pad" else got
    np.testing.assert_array_equal(inside, 200)
    if fit == "pad":
        np.testing.assert_array_equal(got[:, :, :2], 0)


def test_a_crop_is_of_the_middle_and_keeps_proportions():
    x = np.zeros((1, 40, 20), np.uint8)
    x[:, 7:33] = 255  # what is kept, and what the filter sees beside it
    got, _ = resize.brought_to(x, 256, Rules(size=(10, 10)), "x")
    np.testing.assert_array_equal(got, 255)


def test_binary_images_have_levels_once_resampled(tmp_path):
    x = (pixels(4, 8, 8) > 99).astype(np.uint8)
    got = of_arrays(tmp_path, x, size=(4, 4))
    assert got.num_levels == 256
    assert got.train.x.mean() == pytest.approx(255 * x.mean(), rel=0.05)


def test_a_size_is_of_images(tmp_path):
    fails("is of images", lambda: of_arrays(tmp_path, pixels(3, 50), size=(8,)))
    fails("is of images", lambda: of_arrays(tmp_path, pixels(3, 9, 9, 9), size=(8,)))


# --- the fields


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("size", (0,), "no size"),
        ("size", (1, 2, 3), "no size"),
        ("size", (8.0,), "no size"),
        ("size", "64x64", "no size"),
        ("fit", "corp", "Did you mean 'crop'"),
        ("mode", "gray", "Did you mean 'grey'"),
        ("alpha", "whit", "Did you mean 'white'"),
        ("alpha", "#12", "none of"),
        ("scale", "unitt", "Did you mean 'unit'"),
        ("scale", "3:1", "lower one first"),
        ("scale", "nan", "none of"),
        ("scale", "0:inf", "none of"),
        ("channels", "frist", "Did you mean 'first'"),
    ],
)
def test_fields_that_cannot_be_meant(field, value, match):
    fails(match, lambda: rules.read_rules(SimpleNamespace(**{field: value})))


def test_fields_that_can():
    read = rules.read_rules(SimpleNamespace(size=64, alpha="#00ff10", scale="-1000:3000"))
    assert (read.size, read.alpha, read.scale) == ((64, 64), (0, 255, 16), (-1000.0, 3000.0))
    assert rules.read_rules(SimpleNamespace(size=(64, 48))).size == (64, 48)
    assert rules.read_rules(SimpleNamespace()) == Rules()


# --- folders


def write(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **kwargs)


def of_folder(folder, **changes):
    return data.load(config(f"images:{folder}", train="all[:2]", test="all[2:]", **changes))


@pytest.mark.parametrize("limit", [0, 2048])
@pytest.mark.parametrize("fit", rules.FITS)
def test_a_folder_of_several_sizes_is_brought_to_one(tmp_path, fit, limit, capsys):
    shapes = [(30, 32), (31, 32), (40, 20), (64, 64)]
    for i, shape in enumerate(shapes):
        write(tmp_path / f"{i}.png", pixels(*shape, 3))
    fails("4 images have 4 sizes from 30 x 32 to 64 x 64", lambda: of_folder(tmp_path))
    fails(r"--config.data.size=30,20 ", lambda: of_folder(tmp_path))
    got = of_folder(tmp_path, size=(16, 12), fit=fit, device_limit_mb=limit)
    assert got.train.x.shape == (2, 16, 12, 3)
    assert isinstance(got.train.x, data.OnDisk) == (limit == 0)
    assert "brought to 16 x 12" in capsys.readouterr().err
    order = np.random.default_rng(0).permutation(4)
    for row, i in enumerate(order[:2]):
        whole = np.asarray(Image.open(tmp_path / f"{i}.png"))[None]
        expected, _ = resize.brought_to(whole, 256, Rules(size=(16, 12), fit=fit), "x")
        np.testing.assert_array_equal(got.train.x[row], expected[0])


def test_mixed_modes_are_said_and_can_be_asked_for(tmp_path, capsys):
    write(tmp_path / "0.png", pixels(6, 5))
    write(tmp_path / "1.png", pixels(6, 5, 3))
    write(tmp_path / "2.png", Image.fromarray(pixels(6, 5, 3)).convert("P"))
    write(tmp_path / "3.png", pixels(6, 5, 4))
    write(tmp_path / "4.png", pixels(6, 5).astype(np.uint16) * 257)
    write(tmp_path / "5.png", Image.fromarray(pixels(6, 5) > 99))
    assert of_folder(tmp_path).train.x.shape[1:] == (6, 5, 3)
    err = capsys.readouterr().err
    assert "3 of 6 images are grey, the others in colour" in err
    assert "transparency of 1 of 6 images is dropped" in err
    assert "1 of 6 images have 16 bits" in err
    assert of_folder(tmp_path, mode="grey").train.x.shape[1:] == (6, 5)
    assert of_folder(tmp_path, alpha="keep").train.x.shape[1:] == (6, 5, 4)
    assert of_folder(tmp_path, alpha="keep", mode="grey").train.x.shape[1:] == (6, 5, 2)


def test_transparent_files_are_laid_on_a_colour(tmp_path):
    x = pixels(6, 5, 4)
    for i in range(3):
        write(tmp_path / f"{i}.png", x)
    got = of_folder(tmp_path, alpha="#ff8000").train.x[0]
    share = x[..., 3:] / 255
    exact = share * x[..., :3] + (1 - share) * np.array([255, 128, 0])
    assert np.abs(got - exact).max() <= 1
    np.testing.assert_array_equal(of_folder(tmp_path).train.x[0], x[..., :3])


def test_sixteen_bits_are_rounded_to_eight(tmp_path, capsys):
    x = pixels(3, 6, 5)
    x[:, 0, 0] = 255
    for i in range(3):
        write(tmp_path / f"{i}.png", x[i].astype(np.uint16) * 257)
    order = np.random.default_rng(0).permutation(3)[:2]
    np.testing.assert_array_equal(of_folder(tmp_path).train.x, x[order])
    assert "3 of 3 images have 16 bits: 0 is black, 65,535 is white" in capsys.readouterr().err


def test_dark_files_of_sixteen_bits_are_said(tmp_path, capsys):
    x = pixels(3, 6, 5)
    x[:, 0, 0] = 255
    for i in range(3):
        write(tmp_path / f"{i}.png", x[i].astype(np.uint16) * 16)
    of_folder(tmp_path)
    assert "the brightest pixel is 4,080: --config.data.scale=4080" in capsys.readouterr().err
    order = np.random.default_rng(0).permutation(3)[:2]
    np.testing.assert_array_equal(of_folder(tmp_path, scale="4080").train.x, x[order])


def test_photographs_are_turned_as_their_exif_says(tmp_path):
    x = np.zeros((16, 32, 3), np.uint8)
    x[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the right of the file is the bottom
    for i in range(3):
        write(tmp_path / f"{i}.jpg", x, exif=exif, quality=95)
    got = of_folder(tmp_path).train.x
    assert got.shape == (2, 32, 16, 3)
    assert got[:, :12].max() < 30
    assert got[:, 20:].min() > 225


def test_large_jpeg_files_are_made_small_as_their_arrays_would_be(tmp_path):
    rows, columns = np.mgrid[0:600, 0:500]
    x = np.stack([rows / 600, columns / 500, 0 * rows + 0.5], -1)
    for i in range(3):
        write(tmp_path / f"{i}.jpg", np.rint(255 * x).astype(np.uint8), quality=95)
    got = of_folder(tmp_path, size=(32, 32)).train.x[0]
    whole = np.asarray(Image.open(tmp_path / "0.jpg"))[None]
    expected, _ = resize.brought_to(whole, 256, Rules(size=(32, 32)), "x")
    assert np.abs(got.astype(int) - expected[0]).max() <= 3  # levels


# --- the name of a run


@pytest.mark.parametrize(
    ("name", "new", "expected"),
    [
        ("vae-digits", "npz:/a/b/faces 2.npz", "vae-faces_2"),
        ("vae-digits", "images:DIR/portraits/", "vae-portraits"),
        ("vae-digits", "FILE.py:waves", "vae-waves"),
        ("vae-digits", "tfds:mnist/3.0.1", "vae-mnist"),
        ("vae-digits", "images:..", "vae-data"),
        ("vae-conv", "mnist", "vae-conv-mnist"),
        ("vae-mnist", "mnist", "vae-mnist"),
        ("mine", "npz:../x.npz", "mine-x"),
    ],
)
def test_a_name_says_the_data(name, new, expected):
    assert titles.renamed(name, "digits", new) == expected


def test_the_command_line_names_the_data_unless_it_gives_a_name():
    def name(**fields):
        given = [Override(field.replace("__", "."), value) for field, value in fields.items()]
        return config_file.load("configs/vae.py", given).name

    assert name() == "vae-digits"
    assert name(data__size="8") == "vae-digits"
    assert name(data__name="npz:faces.npz") == "vae-faces"
    assert name(data__name="npz:faces.npz", name="mine") == "mine"
