"""The `local` engine: every client is a real `profl-edge train` process under its own hard limit."""
