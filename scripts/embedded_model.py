"""Make the two bundled models from public weights and texts: what ``make embedded-model`` runs."""

import argparse
import logging
import sys

from dinle.config import add_arguments, build_config
from dinle.embedded import EmbeddedConfig, make_embedded_models
from dinle.errors import DinleError, UsageError


def main() -> int:
    """Run the recipe with the settings of the command line and return its exit status, as ``dinle`` does."""
    parser = argparse.ArgumentParser(description=EmbeddedConfig.__doc__)
    add_arguments(parser, EmbeddedConfig)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        make_embedded_models(build_config(EmbeddedConfig, vars(parser.parse_args()), where="embedded-model"))
    except DinleError as error:
        print(f"embedded-model: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("embedded-model: interrupted; the same command goes on", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
