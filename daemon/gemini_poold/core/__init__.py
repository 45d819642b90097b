"""What decides: no await, no clock, no randomness, no environment, no log. Time is `now`, Unix seconds."""
