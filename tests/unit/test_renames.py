"""Plans of renames, carried out on a model of a file system."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.sources._files.renames import Plan, plan

TOP = b"/top"


class Model:
    """Directories by path; every one has a number that stays with it."""

    def __init__(self, paths: dict[bytes, int]) -> None:
        self.paths = dict(paths)

    def rename(self, old: bytes, new: bytes) -> None:
        """Missing directories are made, as GNU tar does, and the target is free."""
        assert old in self.paths, (old, new)
        assert new not in self.paths, (old, new)
        assert not (new + b"/").startswith(old + b"/")
        outer = new.rpartition(b"/")[0]
        while outer != TOP:
            assert not (outer + b"/").startswith(old + b"/")
            self.paths.setdefault(outer, -1)
            outer = outer.rpartition(b"/")[0]
        for path in [path for path in self.paths if (path + b"/").startswith(old + b"/")]:
            self.paths[new + path[len(old) :]] = self.paths.pop(path)


def settle(old: dict[bytes, int], new: dict[bytes, int]) -> tuple[Plan, dict[bytes, bytes]]:
    """The plan for two trees, as the survey would ask for it."""
    settled: set[bytes] = {TOP}
    for path in sorted(new):
        if old.get(path) == new[path] and path.rpartition(b"/")[0] in settled:
            settled.add(path)
    where = {number: path for path, number in old.items() if path not in settled}
    moves = {
        path: where[number]
        for path, number in new.items()
        if path not in settled and number in where
    }
    created = {path for path in new if path not in settled and path not in moves}
    gone = old.keys() - settled
    return plan(TOP, moves, created, gone.__contains__, "x"), moves


def carry_out(old: dict[bytes, int], new: dict[bytes, int]) -> Plan:
    """Everything that was moved must end at its place."""
    made, moves = settle(old, new)
    model = Model(old)
    for source, target in made.steps:
        model.rename(source, target)
    for path, was in moves.items():
        assert model.paths.get(path) == old[was], (path, made.steps)
    # Whatever else there is was deleted, or made on the way to something: lists will remove it.
    wanted = {old[was] for was in moves.values()}
    others = [number for path, number in model.paths.items() if path not in moves]
    assert not wanted.intersection(others)
    return made


def paths(*names: str) -> dict[bytes, int]:
    """`name=number` as a tree."""
    pairs = (name.split("=") for name in names)
    return {TOP + b"/" + name.encode(): int(number) for name, number in pairs}


def test_nothing_is_renamed_when_all_is_where_it_was() -> None:
    tree = paths("a=1", "a/b=2")
    assert carry_out(tree, tree).steps == []


def test_one_rename_takes_along_what_is_inside() -> None:
    made = carry_out(paths("a=1", "a/b=2", "a/b/c=3"), paths("z=1", "z/b=2", "z/b/c=3"))
    assert made.steps == [(TOP + b"/a", TOP + b"/z")]
    assert made.moved == [TOP + b"/z"]


def test_what_stands_in_the_way_is_parked() -> None:
    made = carry_out(paths("a=1", "b=2"), paths("b=1"))
    assert made.steps == [(TOP + b"/b", TOP + b"/.nxs-mv-x-0"), (TOP + b"/a", TOP + b"/b")]


def test_a_swap() -> None:
    carry_out(paths("a=1", "a/x=3", "b=2", "b/y=4"), paths("a=2", "a/y=4", "b=1", "b/x=3"))


def test_a_ring() -> None:
    carry_out(paths("a=1", "b=2", "c=3"), paths("a=2", "b=3", "c=1"))


def test_inside_out() -> None:
    carry_out(paths("a=1", "a/b=2"), paths("b=2", "b/a=1"))


def test_inside_out_under_the_old_name() -> None:
    carry_out(paths("a=1", "a/b=2"), paths("a=2", "a/b=1"))


def test_into_a_new_directory_of_the_old_name() -> None:
    carry_out(paths("a=1"), paths("a=9", "a/a=1"))


def test_a_new_directory_where_the_old_one_was() -> None:
    carry_out(paths("a=1", "a/x=2"), paths("a=9", "old=1", "a/x=2"))


def test_very_deep_trees_need_no_recursion() -> None:
    old, new, path = {}, {}, b""
    for number in range(3000):
        path += b"/d"
        old[TOP + b"/a" + path] = number
        new[TOP + b"/b" + path] = number
    old[TOP + b"/a"] = new[TOP + b"/b"] = 5000
    assert len(carry_out(old, new).steps) == 1


@st.composite
def two_trees(draw: st.DrawFn) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """The same directories, some left out, in two arrangements under few names."""

    def arranged(numbers: list[int]) -> dict[bytes, int]:
        tree: dict[bytes, int] = {}
        for number in numbers:
            outers = [TOP, *tree]
            outer = outers[draw(st.integers(0, len(outers) - 1))]
            path = outer + b"/" + draw(st.sampled_from([b"a", b"b", b"c"]))
            if path not in tree:
                tree[path] = number
        return tree

    old = arranged(list(range(draw(st.integers(0, 9)))))
    return old, arranged(draw(st.permutations(range(draw(st.integers(0, 11))))))


@given(two_trees())
@settings(max_examples=500, deadline=None, database=None)
def test_any_two_trees(trees: tuple[dict[bytes, int], dict[bytes, int]]) -> None:
    carry_out(*trees)
