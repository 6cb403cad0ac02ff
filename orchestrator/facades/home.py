"""The bare runtime that answers what an agent server's client asks without naming a conversation."""

HOME = "home"  #: its name, one for each user of a tenant and for the tenant itself
