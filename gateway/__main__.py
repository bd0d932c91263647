"""`python -m gateway` is `assent`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
