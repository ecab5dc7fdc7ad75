"""The documentation: pages in Markdown, and `docs.site`, which builds a site from them."""
