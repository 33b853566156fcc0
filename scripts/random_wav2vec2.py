"""Write a wav2vec2-base with random weights: speed, size and memory do not hang on what a model has learnt."""

import argparse
from pathlib import Path

import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from dinle.build.hf_ctc import HfCtcModel
from dinle.recognize.vocabulary import Vocabulary


def main() -> None:
    """Write the checkpoint: the architecture of facebook/wav2vec2-base with a head for the Turkish alphabet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the checkpoint goes")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    vocabulary = Vocabulary.turkish()
    config = Wav2Vec2Config(vocab_size=vocabulary.size, pad_token_id=vocabulary.blank)  # the defaults are wav2vec2-base
    HfCtcModel(Wav2Vec2ForCTC(config), vocabulary, normalize=True).save(arguments.folder)


if __name__ == "__main__":
    main()
