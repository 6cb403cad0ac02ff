"""What the runtime writes to disk: private files, and the cipher that keeps secrets unreadable in them."""
