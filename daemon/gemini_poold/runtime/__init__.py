"""Acts on the core's decisions: time, tokens, set-up, sending, polling."""
