"""How bytes travel: connections, TLS and the pool."""
