"""Compare PyTorch, ONNX and ONNX INT8 on a clip: the classic entry point of ``dinle benchmark``."""

import sys

from dinle.cli import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
