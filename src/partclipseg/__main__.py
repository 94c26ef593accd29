"""``python -m partclipseg`` is the command ``partclipseg``, also where its folder is not on the PATH."""

from partclipseg.apps.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
