"""The surfaces that existing clients know, as translations without state over the same services as the native API."""
