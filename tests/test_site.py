"""The site of docs/: its reference has every public name, and its checks see what is wrong."""

import re
import shutil

import pytest

import vi_jax as vi
from docs.site import docstrings, links, pages, public, reference


def test_every_public_name_has_an_address():
    for dotted, module in public.modules().items():
        for name in public.names_of(module):
            short = f"{dotted.removeprefix('vi_jax.')}.{name}"
            if not isinstance(getattr(module, name), public._NO_OBJECTS):
                assert short in public.addresses(), short
    assert public.addresses()["fit"] == "vi_jax.fitting.fit"
    assert public.addresses()["check"] == public.addresses()["diagnostics.check"]
    assert public.addresses()["Result.moments"] == "vi_jax.fitting.Result.moments"


def test_a_page_has_signatures_as_they_are_written_and_links_of_types():
    text = reference.module_page("vi_jax.estimators")
    assert "{py:function} dreg(key: Array, bound: Callable[[Array], Array]," in text
    assert "q: vi_jax.types.Guide" in text
    for name in vi.estimators.__all__:
        assert f"`vi.estimators.{name}`" in text


def test_a_docstring_becomes_markdown():
    text = docstrings.markdown(
        """A sum_k of *things* (see `a_b`).

        Args:
          x: values, [K]; of which
            some are long.
          y: a name.

        Returns:
          Nats.
        """
    )
    assert text == (
        "A sum\\_k of \\*things\\* (see `a_b`).\n\n"
        "**Arguments**\n\n- `x`: values, \\[K\\]; of which\n  some are long.\n- `y`: a name.\n\n"
        "**Returns**\n\nNats."
    )
    assert docstrings.markdown("A\nb:\n\n    f(x)  # y") == "A\nb:\n\n```python\nf(x)  # y\n```"


def test_code_in_prose_is_linked_where_it_names_something():
    names = pytest.importorskip("docs.site.names")
    assert names.target_of("vi.bounds.iwae") == "vi_jax.bounds.iwae"
    assert names.target_of("vi.fit(key, target)") == "vi_jax.fitting.fit"
    assert names.target_of("result.moments()") == "vi_jax.fitting.Result.moments"
    assert names.target_of("poisson_lds") == "vi_jax.models.poisson_lds"
    assert names.target_of("elbo") is None  # a bound, and a function of the evidence
    assert names.target_of("experiments/train.py") is None
    with pytest.raises(LookupError, match="vi_jax has no bounds\\.nothing"):
        names.target_of("vi.bounds.nothing")


def test_formulas_become_mathml():
    mathml = pytest.importorskip("docutils.utils.math.latex2mathml")
    for page in sorted(pages.FIGURES.parent.rglob("*.md")):
        for formula in pages.formulas(page.read_text()):
            assert mathml.tex2mathml(formula).startswith("<math"), f"{page.name}: {formula}"


def test_a_broken_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there"></a><a href="#no"></a><p id="x"></p>')
    (tmp_path / "b.html").write_text('<p id="there"></p><img src="c.png"><a href="d.html">')
    assert links.broken(tmp_path) == [
        "a.html links to #no, which has no such anchor",
        "b.html links to c.png, which is not there",
        "b.html links to d.html, which is not there",
    ]


def test_what_a_page_prints_is_written_behind_its_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\n```\n\n```python\nprint(x + 1)\n```\n\n```text\nold\n```\n")
    ran = pages.run(page)
    assert ran.printed == ["", "3\n"]
    assert not ran.figures
    assert "```text\n3\n```" in pages.with_output(page.read_text(), ran.printed)


@pytest.mark.integration
def test_a_page_of_the_site_is_built_and_a_wrong_name_fails_it(tmp_path):
    build = pytest.importorskip("sphinx.cmd.build").build_main
    docs = tmp_path / "docs"
    docs.mkdir()
    conf = pages.FIGURES.parent / "conf.py"
    text = conf.read_text().replace("Path(__file__).resolve().parents[1]", repr(conf.parents[1]))
    text = text.replace("PosixPath", "Path").replace('["static"]', "[]")
    (docs / "conf.py").write_text(text.replace('    "docs.site.reference",\n', ""))
    folders = [str(docs), str(tmp_path / "html")]
    (docs / "index.md").write_text("# A page\n\n$x^2$ of `vi.bounds`, a `name`.\n")
    assert build(["-q", "-b", "html", *folders]) == 0
    assert "<msup>" in (tmp_path / "html" / "index.html").read_text()
    shutil.rmtree(tmp_path / "html")
    (docs / "index.md").write_text("# A page\n\nSee `vi.bounds.nothing`.\n")
    assert build(["-q", "-W", "-b", "html", *folders]) != 0


def linked_pages(page):
    """The pages of docs/ that one of them links to."""
    found = set()
    for link in re.findall(r"\]\(([^)\s]+?\.md)(?:#\S*)?\)", page.read_text()):
        found.add((page.parent / link).resolve())
    return found


def test_ten_questions_are_answered_within_two_clicks_of_the_front_page():
    docs = pages.FIGURES.parent
    first = linked_pages(docs / "index.md")
    second = set().union(*(linked_pages(page) for page in first if page.exists()))
    text = (docs / "questions.md").read_text()
    assert len(re.findall(r"^\d+\. \*\*.+\?\*\*", text, re.MULTILINE)) == 10
    answers = linked_pages(docs / "questions.md")
    assert docs / "questions.md" in first
    assert len(answers) >= 10
    assert all(page.exists() for page in answers)
    assert answers <= first | second


def test_every_config_is_in_the_gallery():
    gallery = pytest.importorskip("benchmarks.gallery")
    text = gallery.PAGE.read_text()
    for entry in gallery.entries():
        assert f"### {entry.name}\n" in text, (
            f"{entry.config}: python -m benchmarks.gallery --write"
        )
        assert entry.command in text
    size = sum(path.stat().st_size for path in gallery.PICTURES.glob("*.png"))
    assert size < 3_000_000


@pytest.mark.parametrize("page", sorted(pages.FIGURES.parent.glob("*.md")), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page):
    written = {path.name for path in (page.parent / "reference").glob("*.md")} | {"index.md"}
    for target in linked_pages(page):
        assert target.exists() or target.name in written, f"{page.name} links to {target.name}"
