"""One contender in a process of its own: seconds to import and to compile, and the most memory;
`benchmarks.throughput` calls it.

python -m benchmarks.alone vi_jax mlp            # one line of JSON
"""

import importlib
import json
import sys
import time

from benchmarks import report

# where each contender is, by the first word of its name; they import no more than they need
MODULES = {
    "vi_jax": "vi",
    "hand-written": "jax",
    "matrix": "jax",
    "NumPyro": "numpyro",
    "Flax": "flax",
    "PyTorch": "torch",
}
IMPORTS = {
    "vi_jax": ("jax", "vi_jax", "vi_jax.training", "vi_jax.losses", "vi_jax.models", "optax"),
    "hand-written": ("jax", "jax.numpy", "optax"),
    "matrix": ("jax", "jax.numpy"),
    "NumPyro": ("jax", "optax", "numpyro", "numpyro.infer", "numpyro.contrib.module", "flax.linen"),
    "Flax": ("jax", "optax", "flax.linen", "flax.training.train_state"),
    "PyTorch": ("torch",),
}


def main() -> None:
    """Prints what this process took."""
    name = sys.argv[1]
    problem_name = sys.argv[2]
    data_dir = sys.argv[3] if len(sys.argv) > 3 else ""
    word = name.split(" ")[0]
    began = time.perf_counter()
    for module in IMPORTS[word]:
        importlib.import_module(module)
    imports = time.perf_counter() - began

    if word != "PyTorch":
        import jax

        jax.numpy.zeros(1).block_until_ready()
    contenders = importlib.import_module(f"benchmarks.contenders_{MODULES[word]}")
    from benchmarks.problem import Contender, make_problem, make_weights

    contender = next(
        c for c in vars(contenders).values() if isinstance(c, Contender) and c.name == name
    )
    problem = make_problem(problem_name, data_dir)
    weights = make_weights(problem)
    began = time.perf_counter()
    running = contender.start(problem, weights)
    running.steps(problem.block)
    first = time.perf_counter() - began
    began = time.perf_counter()
    running.steps(problem.block)
    block = time.perf_counter() - began
    megabytes = _device_memory(word) or report.process_megabytes("VmHWM")
    print(
        json.dumps({"imports": imports, "compiling": max(first - block, 0.0), "memory": megabytes})
    )


def _device_memory(word: str) -> float:
    """MB, the most that the accelerator held; 0 where there is none."""
    if word == "PyTorch":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    import jax

    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20


if __name__ == "__main__":
    main()
