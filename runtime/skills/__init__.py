"""Skills: texts of a project or a user that tell the agent how to work there."""
