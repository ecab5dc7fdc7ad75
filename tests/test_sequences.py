"""Sequences of unequal length: where they come from, splits, padding, what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments import data
from experiments.data import oscillations
from experiments.data.raw import RawSequences, RawTable

RNG = np.random.default_rng(0)
LENGTHS = np.array([3, 5, 2, 4, 1, 5, 2, 3, 4, 5])


def config(name, **changes):
    values = dict(data_dir="", train="auto", validation="auto", test="auto", shuffle_seed=0)
    values |= dict(binarisation="none", static_seed=0, kind="auto")
    return SimpleNamespace(name=name, **(values | changes))


def fails(match, name, **changes):
    """Asserts that loading is a DataError of one line that matches."""
    with pytest.raises(data.DataError, match=match) as caught:
        data.load(config(name, **changes))
    assert "\n" not in str(caught.value)


def npz(folder, **arrays):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return f"npz:{path}"


def steps():
    """[T_n, 2] each: reals, and counts."""
    return [np.stack([RNG.standard_normal(n), RNG.poisson(3.0, n)], 1).round(3) for n in LENGTHS]


def padded(sequences, value):
    out = np.full((len(sequences), 6, 2), value)
    for row, each in zip(out, sequences, strict=True):
        row[: len(each)] = each
    return out


def in_data_units(dataset):
    """{(role, sequence): [T_n, 2]} in the data's units, in the order of the split."""
    found = {}
    for role in ("train", "validation", "test"):
        part = getattr(dataset, role)
        values = dataset.table.to_data(part.x["values"])
        values = np.where(part.x["observed"], values, np.nan)
        for n, length in enumerate(part.lengths):
            found[role, n] = values[n, :length]
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for key, each in one.items():
        np.testing.assert_allclose(each, other[key], rtol=1e-5, atol=1e-5)


def test_every_form_of_the_same_sequences_is_the_same_data(tmp_path):
    """Padded with nan or a sentinel, one after the other with lengths, a csv, a list."""
    sequences = steps()
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    expected = data.load(config(npz(folders[0], x=padded(sequences, np.nan)), kind="sequences"))
    assert expected.num_steps == 5
    assert expected.train.x["values"].shape == (8, 5, 2)
    assert expected.table.kinds == ("gaussian", "poisson")
    together = np.concatenate(sequences)
    path = tmp_path / "steps.csv"
    rows = [
        f"s{n},{t},{each[t, 0]},{each[t, 1]:g}"
        for n, each in enumerate(sequences)
        for t in reversed(range(len(each)))
    ]
    path.write_text("\n".join(["who,when,x0,x1", *rows]) + "\n")
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\n"
        f"def made():\n    flat = np.load({str(tmp_path / 'flat.npy')!r})\n"
        f"    return {{'x': np.split(flat, {list(np.cumsum(LENGTHS)[:-1])})}}\n"
    )
    np.save(tmp_path / "flat.npy", together)
    others = [
        config(npz(folders[1], x=padded(sequences, -99.0)), kind="sequences", sentinel="-99"),
        config(npz(folders[2], x=together, lengths=LENGTHS)),
        config(npz(folders[3], x=padded(sequences, 7.0), lengths=LENGTHS)),
        config(f"csv:{path}", sequence="who", time="when"),
        config(f"{own}:made"),
    ]
    for other in others:
        dataset = data.load(other)
        same(in_data_units(expected), in_data_units(dataset))
        np.testing.assert_array_equal(expected.test.lengths, dataset.test.lengths)
    named = data.load(others[3])
    assert sorted([*named.train.ids, *named.validation.ids, *named.test.ids]) == [
        f"s{n}" for n in range(10)
    ]


def test_padding_is_not_observed_and_holds_zeros(tmp_path):
    dataset = data.load(config(npz(tmp_path, x=np.concatenate(steps()), lengths=LENGTHS)))
    for part in (dataset.train, dataset.test):
        is_padding = np.arange(5) >= part.lengths[:, None]
        assert not part.x["observed"][is_padding].any()
        assert (part.x["values"][is_padding] == 0).all()
        assert part.x["observed"][~is_padding].all()


def test_reals_are_standardised_by_the_steps_of_the_training_sequences(tmp_path):
    dataset = data.load(config(npz(tmp_path, x=np.concatenate(steps()), lengths=LENGTHS)))
    values = dataset.train.x["values"][..., 0][dataset.train.x["observed"][..., 0]]
    np.testing.assert_allclose([values.mean(), values.std()], [0.0, 1.0], atol=1e-6)


def test_a_jacobian_of_a_sequence_is_the_sum_of_its_steps(tmp_path):
    dataset = data.load(config(npz(tmp_path, x=np.concatenate(steps()), lengths=LENGTHS)))
    observed = dataset.train.x["observed"]
    by_step = dataset.table.log_jacobian(observed.reshape(-1, 2))
    whole = dataset.table.log_jacobian(observed)
    np.testing.assert_allclose(whole, by_step.reshape(observed.shape[:2]).sum(1), rtol=1e-6)


def test_the_report_says_padding_apart_from_missing(tmp_path):
    sequences = steps()
    sequences[1][2] = np.nan
    lines = data.load(config(npz(tmp_path, x=np.concatenate(sequences), lengths=LENGTHS))).report
    assert len(lines) <= 10
    assert "10 sequences of 1 to 5 steps, 3.5 in the median, x 2 columns" in lines[0]
    assert "no sequence is in two" in lines[1]
    (missing,) = [line for line in lines if line.startswith("missing")]
    assert "2.94 % of all values" in missing  # 2 of 34 x 2
    assert "32 % of 10 x 5 steps" in missing  # 16 of 50


def test_labels_exposure_and_covariates_of_steps(tmp_path):
    rows = ["who,kind,dose,size,x"]
    for n in range(10):
        rows += [f"{n},{'ab'[n % 2]},{t / 4},{1 + t},{n + t}" for t in range(2 + n % 3)]
    path = tmp_path / "steps.csv"
    path.write_text("\n".join(rows) + "\n")
    fields = dict(sequence="who", label_column="kind", exposure="size", covariates="dose")
    dataset = data.load(config(f"csv:{path}", kinds="x=poisson", **fields))
    x = dataset.train.x
    assert x["exposure"].shape == (8, 4)
    assert x["covariates"].shape == (8, 4, 1)
    assert (x["exposure"][np.arange(4) >= dataset.train.lengths[:, None]] == 1).all()
    np.testing.assert_array_equal(dataset.train.labels, dataset.train.ids % 2)
    path.write_text("\n".join([*rows[:-1], rows[-1].replace(",b,", ",a,")]) + "\n")
    fails("changes within a sequence", f"csv:{path}", kinds="x=poisson", **fields)


def test_unequal_steps_in_time_are_said(tmp_path):
    path = tmp_path / "steps.csv"
    rows = [f"{n},{t},{n + t / 7}" for n in range(10) for t in (0, 1, 5)]
    path.write_text("\n".join(["who,when,x", *rows]) + "\n")
    report = data.load(config(f"csv:{path}", sequence="who", time="when")).report
    assert any("1 to 4 apart and are taken as equal" in line for line in report)


def test_what_cannot_be_is_refused(tmp_path):
    x = np.concatenate(steps())
    path = tmp_path / "steps.csv"
    path.write_text("who,when,x\n" + "\n".join(f"{n},1,{n / 7}" for n in range(9)) + "\n,1,2\n")
    csv = f"csv:{path}"
    fails("no column of", csv, sequence="whom")
    fails("1 rows have no who", csv, sequence="who")
    fails("by config.data.sequence", csv, kind="sequences")
    fails("by config.data.sequence", csv, time="when")
    fails("set it to sequences", csv, kind="table", sequence="who")
    path.write_text("who,when,x\n" + "\n".join(f"{n // 2},1,{n / 7}" for n in range(9)) + "\n")
    fails("steps have the when of another step", csv, sequence="who", time="when")
    fails("one of at most", npz(tmp_path, x=x, lengths=LENGTHS[:-1]))
    fails("whole numbers", npz(tmp_path, x=x, lengths=LENGTHS / 2.0))
    fails("have lengths of their own", npz(tmp_path, x=x, lengths=LENGTHS), kind="table")
    empty = padded(steps(), np.nan)
    empty[3] = np.nan
    fails(r"nothing is observed of 1 sequences \(3\)", npz(tmp_path, x=empty), kind="sequences")
    fails("N, T, D", npz(tmp_path, x=np.zeros((4, 3, 2, 2))), kind="sequences")


def test_a_list_of_arrays_of_another_width_is_refused(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\ndef made():\n"
        "    return {'x': [np.zeros((2, 3)), np.zeros((4, 2)), np.zeros((1, 3))]}\n"
    )
    fails("of one D and at least one step each", f"{own}:made")


def test_images_may_be_read_as_sequences():
    dataset = data.load(config("digits", kind="sequences"))
    assert dataset.num_steps == 8
    assert dataset.train.labels is not None


def test_steps_of_some_sequences():
    table = RawTable(("x",), (np.arange(6.0),))
    sequences = RawSequences(table, np.array([4, 5, 0, 1, 2, 3]), np.array([2, 1, 3]))
    np.testing.assert_array_equal(sequences.steps_of(np.array([2, 0])), [1, 2, 3, 4, 5])
    assert len(sequences) == 3


def test_the_simulated_set_is_what_it_says():
    found = oscillations.simulate(num=400)
    again = oscillations.simulate(num=400)
    np.testing.assert_array_equal(found.latents, again.latents)
    lengths = np.array([len(each) for each in found.x])
    assert lengths.min() == oscillations.SHORTEST
    assert lengths.max() == oscillations.LONGEST
    missing = np.isnan(np.concatenate(found.x)).mean()
    assert abs(missing - 0.135) < 0.01
    # the first position has the amplitude and the phase of the latents
    first = np.exp(0.3 * found.latents[:, 0]) * np.cos(0.8 * found.latents[:, 1])
    off = np.array([each[0, 0] for each in found.x]) - first
    assert abs(np.nanstd(off) - oscillations.NOISE) < 0.02


def test_stored_steps_are_those_of_the_splits(tmp_path):
    sequences = steps()
    name = npz(tmp_path, x=padded(sequences, np.nan))
    settings = config(name, kind="sequences")
    dataset = data.load(settings)
    stored = data.stored_tables(settings)
    for role, part in stored.items():
        split = getattr(dataset, role)
        assert len(part.rows) == split.lengths.sum()
        counts = np.asarray(part.table.columns[1])[part.rows]
        np.testing.assert_array_equal(
            counts, split.x["values"][..., 1][np.arange(5) < split.lengths[:, None]]
        )
