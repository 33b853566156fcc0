"""dataset -> bundle. Torch lives here alone."""
