"""The archive on other systems, as `make portability` runs it. Not part of `make test`: it has to
be root, downloads whole systems, and takes minutes.

    systems.py       what it runs on: folders with Debian in them, other Pythons of this machine
    matrix.py        a backup, and its restore, on each of them
    surroundings.py  one of them made hostile: nothing to write to, little memory, no executables
    images.py        the container recipes, built and run without a container engine
    builds.py        two builds that must give the same bytes
    figures.py       sizes and times, for the table of the README
"""
