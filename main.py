"""The command line without an installation: `python main.py fit --config ...`."""

from preimage.__main__ import main

if __name__ == "__main__":
    main()
