"""Fine-tune a CTC model on Turkish speech: the classic entry point of ``dinle train``."""

import sys

from dinle.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
