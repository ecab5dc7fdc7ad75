"""Fits topics to documents, measures them on documents that were held out, and leaves words,
shares, numbers and figures.

    python -m experiments.documents --config=configs/topics/lda.py
    python -m experiments.documents --config=configs/topics/lda.py --config.data.name=texts:DIR
    python -m experiments.documents --config=configs/topics/lda.py \\
        --config.data.name=csv:FILE:COLUMN --config.model.num_topics=50
    python -m experiments.documents --config=configs/topics/neural.py    # ProdLDA; :etm, :gsm, ...
    python -m experiments.documents --list=model    # neural models; --list alone: all kinds

config.data.name is one of docstrings (the documentation of SciPy and scikit-learn, installed here
already), texts:DIR, csv:FILE:COLUMN, jsonl:FILE:FIELD, ldac:FILE[,VOCAB], uci:FILE[,VOCAB],
mtx:FILE[,VOCAB], npz:FILE. Run again, the command goes on from where it was stopped. The run folder
holds config.json, data.json, metrics.jsonl, topics.npz, doc_topics.npy, top_words.txt and .json,
exemplars.txt, summary.json, ldavis.json, mallet_keys.txt and figures/; docs/documents.md.
"""

from pathlib import Path

from absl import flags

from experiments import cli, command_line, listing, rooms, settings
from experiments.topics import config as sweeps_config


def define_flags() -> None:
    """The flags of the command; not at import, so that the commands can be imported side by
    side.
    """
    command_line.define_config_flag()
    command_line.define_folder_flags()
    listing.define_flag()
    cli.define_common_flags()


def main() -> int:
    """The command."""
    if listing.is_asked(rooms.LISTED_OF_DOCUMENTS, settings.FACTS):
        return 0
    if flags.FLAGS.config is None:
        raise cli.UserError(
            "--config is missing; try --config=configs/topics/lda.py, see --help for examples."
        )
    config = flags.FLAGS.config
    rooms.require_command(config, "documents")
    is_neural = "objective" in config and rooms.is_of_documents(config)
    if is_neural:
        from experiments.topics import neural_config

        neural_config.validate(config)
    else:
        sweeps_config.validate(config)
    cli.set_up_jax()
    cli.find_devices()
    from experiments.run import lock
    from experiments.run.folder import default_folder, open_folder, refuse_foreign
    from experiments.run.stopping import Stop

    workdir = Path(flags.FLAGS.workdir) if flags.FLAGS.workdir else default_folder(config)
    refuse_foreign(workdir)
    with (stop := Stop()).listening(), lock.locked(workdir):
        resumed = open_folder(workdir, config, overwrite=flags.FLAGS.overwrite)
        if is_neural:
            from experiments.topics import neural

            neural.run(config, workdir, resumed=resumed, stop=stop)
        else:
            from experiments.topics import fit

            fit.run(config, workdir, resumed=resumed, stop=stop)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, define_flags, ("topics",))
