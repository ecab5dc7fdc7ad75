"""The ELBO of a split and its terms: reconstruction, and the KL by site and by dimension."""

from typing import Any

import jax

from experiments.evals.base import Evaluation, Row, Subject, pair, said
from vi_jax.diagnostics import amortised


def make(subject: Subject) -> Evaluation | str:
    """The evaluation; every model has the terms it asks for."""
    spec = subject.config.eval

    def each(key: jax.Array, params: Any, x: Any) -> dict[str, Any]:
        terms = amortised.evaluate_example(
            key, subject.model, params, x, num_samples=spec.num_samples
        )
        return {name: terms[name] for name in ("elbo", "log_lik", "kl")}

    return Evaluation("elbo", each, _reduce, _summarise, _rows)


def _reduce(key: jax.Array, params: Any, x: Any, terms: dict[str, Any]) -> dict[str, Any]:
    del key, params, x
    by_site = {site: kl.reshape(kl.shape[0], -1).sum(-1) for site, kl in terms["kl"].items()}
    total = sum(by_site.values(), 0.0 * terms["elbo"])
    return {
        "elbo": amortised.mean_and_stderr(terms["elbo"]),
        "log_lik": amortised.mean_and_stderr(terms["log_lik"]),
        "kl": amortised.mean_and_stderr(total),
        "kl_of_site": {site: amortised.mean_and_stderr(kl) for site, kl in by_site.items()},
        "kl_per_dimension": {site: kl.mean(0) for site, kl in terms["kl"].items()},
    }


def _summarise(found: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {name: pair(found[name]) for name in ("elbo", "log_lik", "kl")}
    if len(found["kl_of_site"]) > 1:
        summary["kl_of_site"] = {site: pair(kl) for site, kl in found["kl_of_site"].items()}
    return summary


def _rows(summary: dict[str, Any]) -> list[Row]:
    rows = [
        Row("reconstruction log p(x|z)", said(summary["log_lik"])),
        Row("KL(q(z|x) || p(z))", said(summary["kl"])),
    ]
    sites = summary.get("kl_of_site", {})
    return rows + [Row(f"  of {site}", said(kl)) for site, kl in sites.items()]
