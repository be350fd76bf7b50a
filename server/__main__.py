"""`python -m server` is `profl-server`."""

from server.cli import main

if __name__ == "__main__":
    main()
