"""The RPC socket: who may connect, which bytes are messages, which verbs there are. Decides nothing about accounts."""
