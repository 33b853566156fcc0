"""Write the bundled CTC model in fp32, with the language model and word edges of its int8: what int8 gains under load."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from dinle.build.config import ExportConfig
from dinle.build.export import export
from dinle.recognize.bundle import read_bundle, write_bundle

MODEL = Path("models/dinle-ctc-tr")


def main() -> None:
    """Export the checkpoint without int8, and lend the rest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the bundle goes")
    folder = parser.parse_args().folder
    source = read_bundle(MODEL)
    plain = export(
        ExportConfig(checkpoint_dir=str(MODEL / "checkpoint"), onnx_dir=folder, name=source.name, int8=False)
    )
    shutil.copytree(source.folder / "lm", folder / "lm", dirs_exist_ok=True)
    lent = {name: getattr(source, name) for name in ("language_model", "word_start_offset_s", "word_end_offset_s")}
    write_bundle(replace(plain, **lent))


if __name__ == "__main__":
    main()
