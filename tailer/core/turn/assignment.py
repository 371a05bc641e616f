"""Which model call wrote which parts of a response.

Nothing stored links the two. Known are the agent of most parts and the model of each call, the order of both, and that
a model is called again after its tool calls. The last text of an agent belongs to its last call. Parts that two models
may have written are assigned to neither.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations

from tailer.core.json_text import encode_json
from tailer.core.librechat.content import ErrorPart, Part, ReasoningPart, TextPart, ToolCall
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.authors import Authors
from tailer.core.turn.calls import ModelCall
from tailer.core.turn.segments import Stretch, split_tools

_LONGEST_PUZZLE = 6
"""This many calls that ran side by side are tried in every order; more are taken as they are stored."""
_CHARACTERS_OF_A_TOKEN = 4
_NO_CALL_FAILED = "Recursion limit"
"""What the error says when LibreChat itself ended a turn between two calls."""


@light_dataclass(frozen=True, slots=True)
class Step:
    """A model call and what it wrote. `call` is None if no row describes it, and `place` is its place in the ledger.

    `by_order`: another call of the same model may have written it. `joined`: several calls wrote it. `nameless`: its
    call is unknown, so it is shown without one.
    """

    call: ModelCall | None
    place: int | None
    parts: tuple[Part, ...]
    agent_id: str | None = None
    by_order: bool = False
    joined: bool = False
    nameless: bool = False


@light_dataclass(frozen=True, slots=True)
class Assigned:
    """The steps of each stretch, in the order of the stretches, and the calls that wrote nothing that is stored."""

    stretches: tuple[tuple[Step, ...], ...]
    silent: tuple[Step, ...]


@light_dataclass(frozen=True, slots=True)
class _Round:
    stretch: int
    agent_id: str | None
    group_id: int | None
    parts: tuple[Part, ...]


_Numbered = tuple[int, ModelCall]


def assign_calls(
    stretches: Sequence[Stretch], calls: Sequence[_Numbered], authors: Authors, *, may_lack_last: bool
) -> Assigned:
    """The calls that wrote each stretch; `calls` are numbered by their place in the ledger, in its order.

    `may_lack_last` says that the turn was cut short: its last call may have no row.
    """
    found: list[list[Step]] = [[] for _ in stretches]
    used: set[int] = set()
    rounds_of = [_rounds(number, stretch) for number, stretch in enumerate(stretches)]
    for members, own in _match(stretches, calls, authors):
        rounds = (
            rounds_of[members[0]]
            if len(members) == 1
            else [item for number in members for item in rounds_of[number]]
        )
        for item, step in _fill(rounds, own, may_lack_last=may_lack_last):
            found[item.stretch].append(step)
            if step.place is not None:
                used.add(step.place)
    silent = [(place, call) for place, call in calls if place not in used]
    # With every call at its words, the others are those of calls that have no row.
    doubtful = bool(silent) and any(call.model is not None for _, call in silent)
    for number, rounds in enumerate(rounds_of):
        if not found[number]:
            found[number] = [
                Step(None, None, item.parts, item.agent_id, nameless=doubtful) for item in rounds
            ]
    return Assigned(
        tuple([tuple(steps) for steps in found]), tuple([Step(call, place, ()) for place, call in silent])
    )


def _match(
    stretches: Sequence[Stretch], calls: Sequence[_Numbered], authors: Authors
) -> Iterator[tuple[list[int], list[_Numbered]]]:
    """Stretches and the calls of their model: each pair of lists is of one model."""
    models = list(dict.fromkeys([call.model for _, call in calls]))
    if len(models) == len(stretches) == 1:
        yield [0], list(calls)
        return
    everything = list(range(len(stretches)))
    one_author = len({stretch.agent_id for stretch in stretches}) == 1
    if len(models) == 1 and (one_author or models[0] is not None):
        # A name may differ from the ledger's: a deployment's, or that of a model that was set later.
        ours = [
            number
            for number in everything
            if one_author or authors.is_by(stretches[number].agent_id, models[0]) is not False
        ]
        yield ours, list(calls)
        return
    by_model = {
        model: [number for number in everything if authors.is_by(stretches[number].agent_id, model) is True]
        for model in models
    }
    for model, members in by_model.items():
        if members:
            yield members, [item for item in calls if item[1].model == model]
    known = {number for members in by_model.values() for number in members}
    strangers = [number for number in everything if number not in known]
    spare = [item for item in calls if not by_model[item[1].model]]
    if strangers and spare:
        yield from _match_strangers(stretches, strangers, spare, authors)


def _match_strangers(
    stretches: Sequence[Stretch], strangers: list[int], spare: list[_Numbered], authors: Authors
) -> Iterator[tuple[list[int], list[_Numbered]]]:
    """Agents of unknown model, and the calls of models that no known agent has."""
    models = {call.model for _, call in spare}
    agents = {stretches[number].agent_id for number in strangers}
    if len(models) == 1 and len(agents) == 1:
        (agent_id,), (model,) = agents, models
        if authors.is_by(agent_id, model) is not False:
            yield strangers, spare
        return
    counts = [len(stretches[number].rounds) for number in strangers]
    in_turn = all(stretches[number].group_id is None for number in strangers)
    if not in_turn or sum(counts) != len(spare):
        return
    # One agent after the other, and as many calls as they took: the order of both tells.
    shares: list[list[_Numbered]] = []
    for count in counts:
        taken = sum(map(len, shares))
        shares.append(spare[taken : taken + count])
    pairs = list(zip(strangers, shares, strict=True))
    fits = all(
        len({call.model for _, call in share}) == 1
        and authors.is_by(stretches[number].agent_id, share[0][1].model) is not False
        for number, share in pairs
    )
    if fits:
        for number, share in pairs:
            yield [number], share


def _rounds(number: int, stretch: Stretch) -> list[_Round]:
    return [_Round(number, stretch.agent_id, stretch.group_id, tuple(parts)) for parts in stretch.rounds]


def _fill(
    rounds: list[_Round], calls: list[_Numbered], *, may_lack_last: bool
) -> Iterable[tuple[_Round, Step]]:
    """Rounds and calls of one model."""
    if rounds and isinstance(rounds[-1].parts[-1], ErrorPart):
        done, failure = _cut_off_failure(rounds[-1])
        if failure is not None:
            rest = [*rounds[:-1], done]
            if len(calls) <= sum(len(_split(item)) for item in rest):
                filled = _fill(rest, calls, may_lack_last=may_lack_last)
                return [*filled, (failure, Step(None, None, failure.parts, failure.agent_id))]
            rounds = [*rest, failure]
    pieces = [piece for item in rounds for piece in _split(item)]
    if len(calls) >= len(pieces):
        return _fill_pieces(pieces, calls)
    if len(calls) > len(rounds):
        return _fill_loosely(rounds, calls)
    if len(calls) == len(rounds):
        return _fill_pieces(rounds, calls)
    return _fill_tightly(rounds, calls, may_lack_last=may_lack_last)


def _cut_off_failure(item: _Round) -> tuple[_Round, _Round | None]:
    """A round without the error after its tools, and that error as a round: with their outputs a further call was made,
    and failed. After a hand-off it was the receiver's."""
    parts = item.parts
    at = len(parts) - 1
    while at and isinstance(parts[at - 1], ErrorPart):
        at -= 1
    last, error = parts[at - 1] if at else None, parts[at]
    if not isinstance(last, ToolCall) or not (last.output or last.is_hand_off):
        return item, None
    if isinstance(error, ErrorPart) and _NO_CALL_FAILED in error.message:
        return item, None
    agent_id = last.receiver_id or item.agent_id
    failure = _Round(item.stretch, agent_id, item.group_id, parts[at:])
    return _Round(item.stretch, item.agent_id, item.group_id, parts[:at]), failure


def _split(item: _Round) -> Sequence[_Round]:
    """A round, cut before each further tool call."""
    if len(item.parts) == 1 or len([part for part in item.parts if isinstance(part, ToolCall)]) <= 1:
        return (item,)
    return [
        _Round(item.stretch, item.agent_id, item.group_id, tuple(piece)) for piece in split_tools(item.parts)
    ]


def _fill_pieces(pieces: list[_Round], calls: list[_Numbered]) -> list[tuple[_Round, Step]]:
    """One call each. If there are more calls, the last words belong to the last call, and some call wrote nothing."""
    if not pieces:
        return []
    extra = len(calls) > len(pieces)
    ordered = [*calls[: len(pieces) - 1], calls[-1]]
    several = len(pieces) > 1 and len({item.stretch for item in pieces}) > 1
    beside = several and any(item.group_id is not None for item in pieces)
    if beside:
        ordered = _fit(pieces, ordered)
    return [
        (item, Step(call, place, item.parts, item.agent_id, by_order=extra or beside))
        for item, (place, call) in zip(pieces, ordered, strict=True)
    ]


def _fill_loosely(rounds: list[_Round], calls: list[_Numbered]) -> Iterator[tuple[_Round, Step]]:
    """More calls than rounds and fewer than tool calls: some tools were called together, and it is unknown which."""
    spare = len(calls) - len(rounds)
    at = 0
    for item in rounds:
        place, call = calls[at]
        taken = min(spare, sum(1 for _ in split_tools(item.parts)) - 1)
        yield item, Step(call, place, item.parts, item.agent_id, by_order=True, joined=taken > 0)
        spare -= taken
        at += 1 + taken


def _fill_tightly(
    rounds: list[_Round], calls: list[_Numbered], *, may_lack_last: bool
) -> Iterator[tuple[_Round, Step]]:
    """Fewer calls than rounds: the last call of an agent holds what is left of its words."""
    if may_lack_last and len(calls) == len(rounds) - 1:
        yield from _fill_pieces(rounds[:-1], calls)
        last = rounds[-1]
        yield last, Step(None, None, last.parts, last.agent_id)
        return
    kept = len(calls) - 1
    for item, (place, call) in zip(rounds[:kept], calls[:kept], strict=True):
        yield item, Step(call, place, item.parts, item.agent_id, by_order=True)
    rest = rounds[kept:]
    first = rest[0]
    own = [item for item in rest if item.stretch == first.stretch]
    place, call = calls[kept]
    parts = tuple(part for item in own for part in item.parts)
    yield first, Step(call, place, parts, first.agent_id, joined=len(own) > 1)
    for item in rest[len(own) :]:
        yield item, Step(None, None, item.parts, item.agent_id)


def _fit(pieces: list[_Round], calls: list[_Numbered]) -> list[_Numbered]:
    """The order of calls that ran side by side on one model that fits the length of what each agent wrote best."""
    if len(calls) > _LONGEST_PUZZLE:
        return calls
    wanted = [_length(item.parts) for item in pieces]

    def misfit(order: Sequence[_Numbered]) -> float:
        outputs = (call.tokens.output or 0 if call.tokens is not None else 0 for _, call in order)
        return sum(abs(want - output) for want, output in zip(wanted, outputs, strict=True))

    possible = (order for order in permutations(calls) if _keeps_order(pieces, order))
    return min((list(order) for order in possible), key=misfit, default=calls)


def _keeps_order(pieces: list[_Round], order: Sequence[_Numbered]) -> bool:
    """Whether the calls of each agent are in the order of the ledger."""
    last: dict[int, int] = {}
    for item, (place, _) in zip(pieces, order, strict=True):
        if last.get(item.stretch, -1) > place:
            return False
        last[item.stretch] = place
    return True


def _length(parts: Sequence[Part]) -> float:
    """The approximate number of tokens of the parts."""
    characters = 0
    for part in parts:
        if isinstance(part, TextPart | ReasoningPart):
            characters += len(part.text)
        elif isinstance(part, ToolCall):
            arguments = part.arguments if isinstance(part.arguments, str) else encode_json(part.arguments)
            characters += len(part.name) + len(arguments)
    return characters / _CHARACTERS_OF_A_TOKEN
