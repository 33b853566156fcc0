"""Export a checkpoint to ONNX and INT8: the classic entry point of ``dinle export``."""

import sys

from dinle.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
