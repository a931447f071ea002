"""The two protocols from labelled files to their reports; who embeds the photos is an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from facepipe.errors import NoFaceError
from facepipe.evaluate.identify import evaluate_people
from facepipe.evaluate.identify_report import IdentificationReport
from facepipe.evaluate.labelled import faces_of_sets
from facepipe.evaluate.pairs import read_pairs
from facepipe.evaluate.photo_set import PhotoSet
from facepipe.evaluate.splits import SplitRule, read_families, read_groups, read_people, read_strangers, splits
from facepipe.evaluate.trials import run_trials
from facepipe.evaluate.verify import VerificationReport, evaluate_pairs

#: Embeds photos; called once, when everything that can be wrong with the labels was found.
Embed = Callable[[Sequence[Path]], PhotoSet]


def measure_pairs(pairs_file: Path, images: Path, embed: Embed, replicates: int, seed: int) -> VerificationReport:
    """Verify the pairs of a file whose names are relative to `images`.

    Raises InputError when the pairs cannot be read, NoFaceError when no face is found in so many that nothing can be measured.
    """
    pairs = read_pairs(pairs_file, images, seed=seed)
    photos = embed(pairs.photos)
    try:
        return evaluate_pairs(pairs, photos, replicates, seed)
    except ValueError as error:
        raise NoFaceError(f"{pairs_file}: {error}; are these the right photos?") from error


@dataclass(frozen=True, slots=True)
class LabelledFolders:
    """The photos of an open-set run.

    people: a folder for each person. strangers: folders of people who are in no gallery. relatives: FAMILY/MEMBER/photos.
    groups: a CSV that names the group of photos or people.
    """

    people: Path
    strangers: tuple[Path, ...] = ()
    relatives: Path | None = None
    groups: Path | None = None


def measure_people(
    folders: LabelledFolders, rule: SplitRule, embed: Embed, target: float, replicates: int
) -> IdentificationReport:
    """Enrol and search as the rule says, and measure. target: FPIR of the tables.

    Raises InputError when photos or labels cannot be read, UsageError when the rule does not fit them.
    """
    known = read_people(folders.people)
    trials_of = list(splits(known, rule))
    outsiders = [read_strangers(folder) for folder in folders.strangers]
    families = read_families(folders.relatives) if folders.relatives else []
    group_of = read_groups(folders.groups) if folders.groups else {}
    whole, *others = faces_of_sets([known, *outsiders, *families], embed)
    strangers = [(folder.name, faces) for folder, faces in zip(folders.strangers, others, strict=False)]
    trials = run_trials(whole, trials_of, strangers, others[len(strangers) :], rule.seed)
    return evaluate_people(trials, trials.group_names(group_of) if group_of else (), target, replicates, rule.seed)
