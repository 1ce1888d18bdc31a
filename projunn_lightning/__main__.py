"""``python -m projunn_lightning`` is the ``projunn`` command."""

from projunn_lightning.cli.main import main

if __name__ == "__main__":
    main()
