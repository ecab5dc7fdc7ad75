"""What the configs of documents share: where documents come from, and what of them is held out."""


def documents() -> dict:
    """The fields of `data`, for the docstrings of SciPy and scikit-learn."""
    return dict(
        # docstrings | texts:DIR | csv:FILE:COLUMN | jsonl:FILE:FIELD | ldac:FILE[,VOCAB] |
        # uci:FILE[,VOCAB] | mtx:FILE[,VOCAB] | npz:FILE (docs/documents.md)
        name="docstrings",
        held_out=0.1,  # share of the documents whose perplexity is measured; 0 for none
        split_seed=0,  # which they are, and how their tokens are halved where no text is
        # of texts: what a word is, which are left out (english, "" or a file of them),
        # and in how many documents, and in what share of them at most, one has to be
        token_pattern="(?u)[^\\W\\d_]{3,}",
        stop_words="english",
        min_df=5,
        max_df=0.5,
        lowercase=True,
    )
