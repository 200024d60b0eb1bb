"""`python3 -m pvedrbdstor`: the same as the command `pvedrbdstor`."""

from pvedrbdstor.cli.main import main

if __name__ == "__main__":
    main()
