"""Turns secrets into tokens: one file a kind of credential. `registry.build` makes the one that an account asks for."""
