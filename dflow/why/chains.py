"""Following waits to their cause, and telling the way back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from dflow.report import EdgeStatus, ReplicaStatus, RunStatus
from dflow.why.view import View, Wait
from dflow.why.words import (
    LONG_S,
    OWN_CODE,
    duration,
    edge_text,
    is_silent,
    listed,
    replica_text,
    startup_text,
)

__all__ = ["Chain", "Link", "Why", "explain"]

_WIDTH = 79
_MOST_CHAINS = 5
_MOST_LINKS = 11
_MOST_ALIKE = 3
_BUSY = 0.05

_AWAITED: Mapping[str, tuple[str, str, str]] = {
    "waiting": ("absent", "", ""),
    "binding": ("joined", "", ""),
    "linking": ("linking", "", ""),
    "starting": ("starting", "linked", "waits to be started"),
    "stopping": ("stopping", "drained", "waits to be stopped"),
    "aborting": ("aborting", "", ""),
    "leaving": ("leaving", "", ""),
}
"""By phase: at which step somebody keeps all waiting, at which others wait for it, and for what."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain: ``kind`` is "node" or "edge", ``name`` the replica or the edge's id.

    ``for_s``: how long it has been so; 0 for an edge.
    """

    kind: str
    name: str
    text: str
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Chain:
    """From a cause to whoever waits longest for it. ``also``: others that wait for it, too.

    ``alike``: other replicas of the same node that are as the first link says.
    """

    links: tuple[Link, ...]
    also: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The chain as one line."""
        return " ".join([" → ".join(link.text for link in self.links), *self._asides()])

    def _asides(self) -> list[str]:
        asides = [f"(the same holds for {listed(self.alike)})"] if self.alike else []
        verb = "wait" if len(self.also) > 1 else "waits"
        return asides + ([f"({listed(self.also)} {verb} for that, too)"] if self.also else [])

    def __str__(self) -> str:
        """Return a line for each link, at most 79 characters; the middle of many is left out."""
        texts = [link.text for link in self.links]
        left_out = len(texts) - _MOST_LINKS
        if left_out > 1:
            texts[_MOST_LINKS - 2 : -2] = [f"… {left_out} more links like these …"]
        leads = ["  ", *["  → "] * (len(texts) - 1)]
        asides = self._asides()
        leads += ["    "] * len(asides)
        return "\n".join(
            _wrapped(text, lead) for lead, text in zip(leads, texts + asides, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Why:
    """Why a run does not get on, or that it does.

    ``stuck``: whether something has stood still for a second or more, other than for want of
    messages. ``summary`` is a sentence, ``chains`` are the reasons, the longest wait first.
    """

    graph: str
    run_id: str
    phase: str
    uptime_s: float
    stuck: bool
    summary: str
    chains: tuple[Chain, ...] = ()

    @property
    def text(self) -> str:
        """The chains as indented lines; empty when there is none."""
        shown = [str(chain) for chain in self.chains[:_MOST_CHAINS]]
        more = len(self.chains) - len(shown)
        return "\n\n".join([*shown, *[f"  and {more} more"] * (more > 0)])

    def __str__(self) -> str:
        """Return a headline, the summary and the chains."""
        head = f"{self.graph} ({self.run_id})  {self.phase} for {duration(self.uptime_s)}"
        return "\n\n".join(part for part in (head, _wrapped(self.summary), self.text) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "stuck": self.stuck,
            "summary": self.summary,
            "chains": [
                {
                    "line": chain.line,
                    "links": [
                        {"kind": k.kind, "name": k.name, "text": k.text, "for_s": round(k.for_s, 3)}
                        for k in chain.links
                    ],
                    "also": list(chain.also),
                    "alike": list(chain.alike),
                }
                for chain in self.chains
            ],
        }


def _wrapped(text: str, lead: str = "") -> str:
    lines = wrap(
        text, _WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines)


def explain(status: RunStatus, patience_s: float = LONG_S) -> Why:
    """Return why the run does not get on; waits shorter than ``patience_s`` are no reason."""
    view = View(status)
    if status.phase in _AWAITED:
        chains = _of_phase(view)
        stuck = any(chain.links[0].for_s >= LONG_S for chain in chains)
        return _why(status, _awaiting(view, chains), chains, stuck=stuck)
    ending = status.phase == "draining"
    chains = _chains(view, patience_s, ends=ending)
    if chains:
        stuck = any(_stands_still(view, chain) for chain in chains)
        return _why(status, _verdict(view, chains, stuck=stuck), chains, stuck=stuck)
    busy = view.busiest()
    if busy is None or busy[1] < _BUSY:
        quiet = _chains(view, patience_s, ends=True, quiet=True)
        return _why(status, _quiet(view), quiet, stuck=False)
    return _why(status, _flowing(view, *busy), (), stuck=False)


def _why(status: RunStatus, summary: str, chains: Iterable[Chain], *, stuck: bool) -> Why:
    return Why(
        status.graph, status.run_id, status.phase, status.uptime_s, stuck, summary, tuple(chains)
    )


# --- the phases before and after -----------------------------------------------------------


def _of_phase(view: View) -> list[Chain]:
    """Return a chain for each that has not done what the phase waits for."""
    step, waiting, for_what = _AWAITED[view.status.phase]
    late = [r for r in view.replicas.values() if r.step == step]
    in_hook = {r.pid for r in late if r.what in OWN_CODE}
    late = [r for r in late if r.what in OWN_CODE or r.pid not in in_hook]  # fused with it
    held = sorted({n.name for n in view.status.nodes for r in n.doing if r.step == waiting})
    rest: tuple[Link, ...] = ()
    if held and late:
        verb = for_what if len(held) == 1 else for_what.replace("waits", "wait")
        rest = (Link("node", held[0], f"{listed(held)} {verb}"),)
    late.sort(key=lambda r: -r.for_s)
    found = [
        Chain((Link("node", r.name, startup_text(view.label(r), r), r.for_s), *rest)) for r in late
    ]
    return _merged(view, found)


def _awaiting(view: View, chains: Sequence[Chain]) -> str:
    phase = view.status.phase
    if not chains:
        return f"{phase}; nobody is behind"
    count = sum(1 + len(chain.alike) for chain in chains)
    return f"{phase}: {count:,} of {len(view.replicas):,} {'is' if count == 1 else 'are'} awaited"


# --- who waits for whom --------------------------------------------------------------------


@dataclass(slots=True)
class _Tree:
    """Whoever waits for one cause, each with its way there; ``depth`` of each."""

    cause: str
    parents: dict[str, Wait] = field(default_factory=dict)
    depth: dict[str, int] = field(default_factory=dict)

    def way(self, name: str) -> list[Wait]:
        """Return the waits between the cause and ``name``."""
        found = []
        while name != self.cause:
            wait = self.parents[name]
            found.append(wait)
            name = wait.target
        return found[::-1]


def _chains(view: View, patience_s: float, *, ends: bool, quiet: bool = False) -> list[Chain]:
    """Return the chains worth a word; ``ends``: those who wait for messages count, too.

    ``quiet``: so does whoever has nothing to do, and nobody behind it.
    """
    waits = {name: list(view.waits(r, ends=ends)) for name, r in view.replicas.items()}
    waits = {name: found for name, found in waits.items() if found}
    behind: defaultdict[str, list[Wait]] = defaultdict(list)
    for found in waits.values():
        for wait in found:
            behind[wait.target].append(wait)
    causes = [name for name in behind if name not in waits]
    causes += [
        name
        for name, r in view.replicas.items()
        if name not in behind and name not in waits and (_alone(r) or (quiet and view.is_first(r)))
    ]
    trees = list(_trees(view, causes, behind))
    reached = {name for tree in trees for name in tree.depth}
    told = [_chain(view, tree) for tree in trees if _worth_a_word(view, tree, patience_s)]
    told += _circles(view, waits, reached)
    told.sort(key=lambda chain: -max(link.for_s for link in chain.links))
    return _merged(view, told)


def _alone(r: ReplicaStatus) -> bool:
    """Whether it is worth a word although nobody waits for it."""
    if r.what == "ended" or r.step in ("drained", "gone"):
        return False
    return is_silent(r) or r.what == "paused" or (
        r.for_s >= LONG_S and (r.what in OWN_CODE - {"source"} or r.what in ("turn", "order"))
    )  # fmt: skip


def _trees(
    view: View, causes: Sequence[str], behind: Mapping[str, Sequence[Wait]]
) -> Iterator[_Tree]:
    """Yield a tree for each cause; of replicas in the same state, only some with their branches."""
    built: Counter[tuple[str, str]] = Counter()
    for name in sorted(causes, key=lambda cause: -view.replicas[cause].for_s):
        r = view.replicas[name]
        built[view.node(r), r.what] += 1
        alone = built[view.node(r), r.what] > _MOST_ALIKE
        yield _tree(name, {} if alone else behind)


def _tree(cause: str, behind: Mapping[str, Sequence[Wait]]) -> _Tree:
    tree = _Tree(cause, depth={cause: 0})
    todo = [cause]
    for name in todo:
        for wait in behind.get(name, ()):
            if wait.waiter not in tree.depth:
                tree.depth[wait.waiter] = tree.depth[name] + 1
                tree.parents[wait.waiter] = wait
                todo.append(wait.waiter)
    return tree


def _worth_a_word(view: View, tree: _Tree, patience_s: float) -> bool:
    cause = view.replicas[tree.cause]
    longest_s = max(view.replicas[name].for_s for name in tree.depth)
    return is_silent(cause) or cause.what == "paused" or longest_s >= patience_s


def _chain(view: View, tree: _Tree) -> Chain:
    """Return the longest way from the cause, and who else waits for it."""
    last = max(tree.depth, key=lambda name: (tree.depth[name], view.replicas[name].for_s))
    way = tree.way(last)
    links = [_cause_link(view, tree.cause, bool(way))]
    for wait in way:
        links += _wait_links(view, wait)
    told = {view.node(view.replicas[name]) for name in (tree.cause, *(w.waiter for w in way))}
    others = (view.node(view.replicas[name]) for name in tree.depth)
    also = tuple(dict.fromkeys(name for name in others if name not in told))
    return Chain(tuple(links), also)


def _cause_link(view: View, name: str, awaited: bool) -> Link:
    r = view.replicas[name]
    text = replica_text(view.label(r), r)
    if r.what == "idle" and view.is_fed_from_outside(r):
        text += " from outside: run.send(...), or run.stop() if there is none to come"
    elif not awaited and (waiting := view.queued(r)):
        text += f"; {waiting:,} messages wait for it"
    return Link("node", name, text, r.for_s)


def _wait_links(view: View, wait: Wait) -> Iterator[Link]:
    r = view.replicas[wait.waiter]
    name = view.label(r)
    if wait.what in ("credit", "send") and wait.edge in view.edges:
        yield Link("edge", wait.edge, edge_text(view.edges[wait.edge]))
    if wait.what == "end":
        rest = view.ended_inputs(r)
        text = f"{name} has waited {duration(r.for_s)} for a message, or the end, of "
        text += view.label(view.replicas[wait.target])
        text += f" ({listed(rest)} {'has' if len(rest) == 1 else 'have'} ended)" if rest else ""
    elif wait.what == "thread":
        other = view.label(view.replicas[wait.target])
        text = f"{name} has waited {duration(r.for_s)} for {other}, which runs in the same worker"
    else:
        text = replica_text(name, r)
    yield Link("node", wait.waiter, text, r.for_s)


def _circles(view: View, waits: Mapping[str, Sequence[Wait]], reached: set[str]) -> Iterator[Chain]:
    """Yield a chain for each circle of those that wait for each other, and for nobody else."""
    seen = set(reached)
    for start in waits:
        way: dict[str, Wait] = {}
        name = start
        while name in waits and name not in seen and name not in way:
            way[name] = waits[name][0]
            name = way[name].target
        seen |= set(way)
        if name not in way:
            continue
        names = list(way)
        circle = names[names.index(name) :][::-1]  # from the one waited for to the one that waits
        last = view.replicas[circle[-1]]
        links = [Link("node", last.name, replica_text(view.label(last), last), last.for_s)]
        for member in circle:
            links += _wait_links(view, way[member])
        text = f"{links[-1].text}: they wait for each other, and none can go on"
        yield Chain((*links[:-1], Link("node", last.name, text, last.for_s)))


def _merged(view: View, chains: Sequence[Chain]) -> list[Chain]:
    """Return one chain for the replicas of a node that are in the same state."""
    found: dict[tuple[str, str, str], Chain] = {}
    alike: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for chain in chains:
        r = view.replicas[chain.links[0].name]
        key = (view.node(r), r.what, r.step)
        if key in found:
            alike[key].append(r.name)
        else:
            found[key] = chain
    return [
        Chain(chain.links, chain.also, tuple(alike.get(key, ()))) for key, chain in found.items()
    ]


# --- the verdict ---------------------------------------------------------------------------


def _stands_still(view: View, chain: Chain) -> bool:
    """Whether the cause of a chain does nothing, or the same, for a long time."""
    r = view.replicas[chain.links[0].name]
    return is_silent(r) or r.what in ("paused", "credit") or r.for_s >= LONG_S


def _verdict(view: View, chains: Sequence[Chain], *, stuck: bool) -> str:
    causes = list(dict.fromkeys(view.node(view.replicas[c.links[0].name]) for c in chains))
    if stuck:
        return f"held up by {listed(causes)}:"
    verb = "is" if len(causes) == 1 else "are"
    return f"nothing is stuck, but {listed(causes)} {verb} slower than what comes:"


def _quiet(view: View) -> str:
    return "nothing is stuck, and nobody is busy" + (":" if view.replicas else "")


def _flowing(view: View, node: str, busy: float) -> str:
    text = f"nothing is stuck; the busiest node is {node}: {busy:.0%} of its time in its own code"
    edge = view.fullest()
    if edge is not None and edge.depth:
        text += f"; the fullest edge is {_fill(edge)}"
    return text


def _fill(edge: EdgeStatus) -> str:
    return f"{edge.id} ({edge.depth:,}/{edge.capacity:,})"
