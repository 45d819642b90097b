"""Forms of other families <-> the Gemini API's, as pure functions over decoded bodies. No I/O, no clock, no chance."""
