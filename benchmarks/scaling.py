"""Scaling by counting: what one device computes, touches and sends in a training step, on 1 to 256
devices.

    python -m benchmarks.scaling --write            about 2 minutes

Nothing runs: each row compiles the step for so many host devices, from the shapes of its arrays
alone, and counts in the program that XLA's partitioner makes for one device. The batch grows with
the devices (128 examples on each), so that perfect scaling is a constant column. The VAE is
784-500-20 with dynamic binarisation and Adam, as in benchmarks.throughput.
"""

import argparse
import json
import os
import re
import subprocess
import sys

from benchmarks import report

BATCH_EACH = 128
# devices, of which along `model`
ROWS = [(1, 1), (8, 1), (64, 1), (256, 1), (8, 4), (64, 4), (256, 4)]
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
SIZES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
}


def main() -> None:
    """The table, or (--devices) one of its rows as JSON."""
    parser = report.make_parser(__doc__.splitlines()[0], has_json=False)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.devices:
        print(json.dumps(count(args.devices, args.model)))
        return
    rows = []
    for devices, model in ROWS:
        report.say(f"{devices} devices, {model} along model")
        rows.append(_in_a_process(devices, model))
    text = table(rows)
    report.finish("scaling", text, args)


def count(devices: int, model: int) -> dict:
    """FLOPs, bytes and collectives of one device's step, and arrays of it that hold every device's
    examples.
    """
    import jax
    import jax.numpy as jnp
    import optax

    import vi_jax as vi
    from experiments.build import binarise
    from vi_jax.training import on_layout

    assert len(jax.devices()) == devices, jax.devices()
    batch_size = BATCH_EACH * devices
    network = vi.models.vae((28, 28), num_latents=20, hidden=(500,))
    optimizer = optax.adam(1e-3)
    layout = vi.shard.make_layout(vi.shard.make_mesh(-1, model))
    step = vi.make_step(
        vi.losses.negative_elbo(network),
        optimizer,
        prepare=lambda key, levels: binarise(key, levels, 256),
        grad_norm_every=10,
    )
    shapes = jax.eval_shape(lambda: vi.init_state(jax.random.key(0), network.init, optimizer))
    state = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        shapes,
        layout.shardings(shapes),
    )
    rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=layout.shardings(shapes.step))
    data = jax.ShapeDtypeStruct((60_000, 28, 28), jnp.uint8, sharding=layout.shardings(shapes.step))

    def gathered(state, data, rows):
        return on_layout(step, layout)(state, data[layout.spread(rows)])

    compiled = jax.jit(gathered, donate_argnums=0).lower(state, data, rows).compile()
    text = compiled.as_text()
    cost = compiled.cost_analysis()
    sent = collectives(text)
    shaped = {
        shape
        for shape in re.findall(r"(?:f32|bf16)\[([\d,]+)\]", text)
        if str(batch_size) in shape.split(",")
    }
    return {
        "devices": devices,
        "model": model,
        "gflops": cost["flops"] / 1e9,
        "megabytes": cost["bytes accessed"] / 1e6,
        "state_megabytes": compiled.memory_analysis().alias_size_in_bytes / 1e6,
        "collectives": {kind: len(sizes) for kind, sizes in sent.items() if sizes},
        "sent_megabytes": sum(sum(sizes) for sizes in sent.values()) / 1e6,
        "largest_others": max(
            (size for kind, sizes in sent.items() if kind != "all-reduce" for size in sizes),
            default=0,
        ),
        "whole_batches": sorted(shaped) if devices > 1 else [],
    }


def collectives(text: str) -> dict[str, list[int]]:
    """{kind: bytes of the result of each}, from the text of a compiled program."""
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for result, kind in re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", text):
        sizes = [
            SIZES[dtype] * _product(shape)
            for dtype, shape in re.findall(rf"({'|'.join(SIZES)})\[([\d,]*)\]", result)
        ]
        found[kind].append(sum(sizes))
    return found


def table(rows: list[dict]) -> str:
    """Markdown, with what the counts say."""
    head = [
        "devices (data x model)",
        "GFLOP a step",
        "MB touched",
        "state, MB",
        "collectives",
        "MB reduced or gathered",
        "whole batches",
    ]
    lines = [
        [
            f"{row['devices']} ({row['devices'] // row['model']} x {row['model']})",
            f"{row['gflops']:.3f}",
            f"{row['megabytes']:.1f}",
            f"{row['state_megabytes']:.2f}",
            ", ".join(f"{number} {kind}" for kind, number in row["collectives"].items()) or "none",
            f"{row['sent_megabytes']:.2f}",
            str(len(row["whole_batches"])),
        ]
        for row in rows
    ]
    versions = ", ".join(
        f"{name} {number}" for name, number in report.versions("jax", "jaxlib").items()
    )
    note = (
        f"Each column is of one device, {BATCH_EACH} examples on each; *whole batches* are "
        "arrays of floats in a device's program "
        "as long as the batch of all of them, that is replicated activations. Compiled for host "
        f"devices, {versions}."
    )
    return f"{report.markdown_table(head, lines)}\n\n{note}"


def _in_a_process(devices: int, model: int) -> dict:
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [
        sys.executable,
        "-m",
        "benchmarks.scaling",
        f"--devices={devices}",
        f"--model={model}",
    ]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{devices} devices: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _product(shape: str) -> int:
    total = 1
    for size in filter(None, shape.split(",")):
        total *= int(size)
    return total


if __name__ == "__main__":
    main()
