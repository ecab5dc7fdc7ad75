"""The site: `python -m docs.site` builds it from the pages of docs/ and the docstrings of vi_jax.

`public` finds the public objects, `docstrings` turns their docstrings into Markdown, `reference`
writes a page of them for each room, `names` links code in prose to those pages, `mathml` renders
the formulas, `links` checks what was built. `pages` runs the code of a page, and writes what it
prints and its figures.
"""
