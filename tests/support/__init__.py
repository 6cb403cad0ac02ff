"""What several suites share. Nothing here is a test."""
