"""What the student is told: be near the teacher's vector, keep the teacher's likeness between faces, keep people apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize


def cosine_loss(student: Tensor, target: Tensor) -> Tensor:
    """1 - cosine, mean over the batch. Both (n, d), unit."""
    return 1.0 - (student * target).sum(dim=1).mean()


def relational_loss(student: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the two similarity matrices of the batch, off the diagonal. Both (n, d), unit.

    Recognition compares faces with faces: what counts is the cosine of two students' vectors, not of a student's and a teacher's.
    """
    n = len(student)
    difference = student @ student.T - target @ target.T
    # The diagonal is 1 - 1.
    return difference.square().sum() / max(1, n * (n - 1))


class MarginSoftmax(nn.Module):
    """Additive-margin softmax over identities: CosFace (Wang et al. 2018) or ArcFace (Deng et al. 2019).

    One unit vector per identity; the logit of the right one is made harder: cos - m (cosface) or cos(angle + m) (arcface).
    """

    def __init__(
        self, dim: int, identities: int, kind: str = "cosface", margin: float = 0.35, scale: float = 32.0
    ) -> None:
        super().__init__()
        if kind not in {"cosface", "arcface"}:
            raise ValueError(f"kind: expected cosface or arcface, got {kind!r}")
        self.centres = nn.Parameter(torch.randn(identities, dim) * 0.01)
        self.kind, self.margin, self.scale = kind, margin, scale

    def forward(self, student: Tensor, identity: Tensor) -> Tensor:
        """student: (n, d), unit. identity: int64 (n,), -1 where it is not known; zero when it is known for none."""
        known = identity >= 0
        if not bool(known.any()):
            return student.sum() * 0.0
        cosines = linear(student[known], normalize(self.centres))
        right = identity[known, None]
        own = cosines.gather(1, right)
        if self.kind == "cosface":
            harder = own - self.margin
        else:
            angle = torch.acos(own.clamp(-1 + 1e-6, 1 - 1e-6))
            # Beyond 180 degrees the cosine rises again: from there on the margin is taken off the cosine.
            harder = torch.where(angle + self.margin < torch.pi, torch.cos(angle + self.margin), own - self.margin)
        return cross_entropy(cosines.scatter(1, right, harder) * self.scale, right[:, 0])
