"""The HTTP gateway: surfaces of unmodified clients over `runtime.dispatch`. No choosing and no upstream HTTP in here."""
