"""V1 sandboxes, their secrets, and `/users/me`: what `OpenHandsCloudWorkspace` calls (contract outer-api.md 2)."""
