"""Named secrets and git providers: kept sealed, opened only for the command or the clone that needs them."""
