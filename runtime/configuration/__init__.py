"""What a user chooses for this runtime: settings, how changes merge into them, and where they are kept."""
