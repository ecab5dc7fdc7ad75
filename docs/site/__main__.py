"""Builds the site into docs/_build/html: `python -m docs.site`.

Warnings are errors, and links inside the site are checked. Needs `pip install -e '.[docs]'`.
"""

import sys
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]


def main() -> int:
    """Exit code 0 where the site was built without a warning and no link is broken."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print("The site is built by Sphinx: pip install -e '.[docs]'", file=sys.stderr)
        return 2
    from docs.site import links

    began = time.monotonic()
    site = DOCS / "_build" / "html"
    options = [
        "-q",
        "-W",
        "--keep-going",
        "-j",
        "auto",
        "-b",
        "html",
        "-d",
        str(DOCS / "_build" / "doctrees"),
    ]
    code = build_main([*options, *sys.argv[1:], str(DOCS), str(site)])
    if code:
        return code
    wrong = links.broken(site.resolve())
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    print(f"{site / 'index.html'} ({time.monotonic() - began:.0f} s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
