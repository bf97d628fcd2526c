"""How the octets travel: TLS and the connection."""
