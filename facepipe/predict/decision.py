"""Step 4: known, unknown or ambiguous."""

from __future__ import annotations

from collections.abc import Sequence

from facepipe.types import Candidate, Face, Matched, Policy, Prediction, Recognized, Span, Status

#: A person whose name is more likely than not is suggested.
PROBABLE = 0.5


def predict(photos: Sequence[Matched], policy: Policy) -> list[Recognized]:
    """Decide about all faces of many photos, each photo for itself."""
    return [
        Recognized(
            matched.photo.path,
            *matched.photo.size,
            decide(matched.photo.faces, matched.candidates, policy),
            matched.photo.embeddings.fingerprint,
            matched.photo.clip,
        )
        for matched in photos
    ]


def decide(
    faces: Sequence[Face], candidates: Sequence[tuple[Candidate, ...]], policy: Policy
) -> tuple[Prediction, ...]:
    """Decide about all faces of one photo; candidates: of each face, best first.

    A face is known when its best candidate reaches the threshold and leads the next person by the margin; ambiguous when it
    reaches the threshold but does not lead; else unknown. With `policy.exclusive` a person is named at most once in a photo, and
    at one time of a video: the most similar face gets the name, and the others are judged by the people who are still free.
    """
    names = _assign(faces, candidates, policy) if policy.exclusive else [c[0] if c else None for c in candidates]
    return tuple(
        _decide(face, offered, name, policy) for face, offered, name in zip(faces, candidates, names, strict=True)
    )


def _assign(
    faces: Sequence[Face], candidates: Sequence[tuple[Candidate, ...]], policy: Policy
) -> list[Candidate | None]:
    """Give each person to the face that is most similar, greedily by similarity.

    Greedy, not optimal in the sum: a name must never move to a less similar face for the sake of a stranger's score.
    """
    pairs = sorted(
        (
            (candidate.similarity, number, candidate)
            for number, offered in enumerate(candidates)
            for candidate in offered
        ),
        key=lambda pair: (-pair[0], pair[1]),
    )
    given: list[Candidate | None] = [None] * len(candidates)
    taken: dict[str, list[Span | None]] = {}
    for similarity, number, candidate in pairs:
        span, seen = faces[number].span, taken.get(candidate.person, ())
        if given[number] is None and not any(span is None or span.overlaps(other) for other in seen):
            given[number] = candidate
            if similarity >= policy.threshold:
                taken.setdefault(candidate.person, []).append(span)
    return given


def _decide(face: Face, offered: tuple[Candidate, ...], chosen: Candidate | None, policy: Policy) -> Prediction:
    status, person = Status.UNKNOWN, None
    if chosen is not None and chosen.similarity >= policy.threshold:
        rivals = [other.similarity for other in offered if other.person != chosen.person]
        # A rival above the chosen one has been given to another face of this photo; it casts no doubt here.
        close = [value for value in rivals if 0.0 <= chosen.similarity - value < policy.margin]
        status = Status.AMBIGUOUS if close else Status.KNOWN
        person = chosen.person if status is Status.KNOWN else None
    similarity = chosen.similarity if chosen else (offered[0].similarity if offered else None)
    probability = None if similarity is None else policy.probability(similarity, _lead(similarity, offered, chosen))
    probable = person is None and chosen is not None and probability is not None and probability > PROBABLE
    return Prediction(
        face,
        status,
        person,
        similarity,
        probability,
        policy.threshold,
        offered[: policy.top_k],
        chosen.person if probable and chosen is not None else None,
    )


def _lead(similarity: float, offered: tuple[Candidate, ...], chosen: Candidate | None) -> float:
    """Return by how much a face's best person is more similar than the next; nobody's similarity is 0, that of a stranger."""
    best = chosen or offered[0]
    rest = [other.similarity for other in offered if other.person != best.person and other.similarity <= similarity]
    return similarity - max([0.0, *rest])
