"""Images that the node's owner has approved, and whether the node may fetch them by itself."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, ValidationInfo, field_validator

from aiida_byoc.commands.housekeeping import Table
from aiida_byoc.contracts.identity import Digest
from aiida_byoc.contracts.problems import FieldError, ProblemError
from aiida_byoc.runtimes.oci import ImageError
from aiida_byoc.runtimes.reference import Reference

__all__ = ["ApprovedImage", "PullFrom", "check_repositories", "names_of", "resolved_image"]


class PullFrom(Table):
    """Where an image is fetched from before its job is launched, and how large it may be, as it is sent."""

    repository: str
    max_mib: int


class ApprovedImage(Table):
    """One approved repository.

    Attributes:
        digests: manifests that may run.
        tags: names that stand for one of them.
        pull: whether the node fetches what its store lacks.
        max_mib: the most that it fetches.
    """

    digests: list[Digest] = Field(min_length=1)
    tags: dict[str, Digest] = {}
    pull: bool = False
    max_mib: int = Field(ge=1, default=16384)

    @field_validator("tags")
    @classmethod
    def _tags_stand_for_approved_digests(
        cls, tags: dict[str, str], others: ValidationInfo
    ) -> dict[str, str]:
        for tag, digest in tags.items():
            if digest not in others.data.get("digests", [digest]):
                raise ValueError(f"the tag {tag!r} stands for a digest that is not in digests")
        return tags

    def pull_from(self, repository: str) -> PullFrom | None:
        """What the node does if its store lacks an image of this repository."""
        return PullFrom(repository=repository, max_mib=self.max_mib) if self.pull else None


def check_repositories(images: dict[str, ApprovedImage]) -> dict[str, ApprovedImage]:
    """Raise `ValueError` for a repository that is to be pulled and names no registry."""
    for repository in (name for name, image in images.items() if image.pull):
        try:
            name = Reference.parse(repository).name
        except ImageError as error:
            raise ValueError(f"cannot be pulled: {error}") from error
        if name != repository:
            raise ValueError(f"cannot be pulled: {repository!r} is not all of the name {name!r}")
    return images


def resolved_image(
    images: Mapping[str, ApprovedImage], reference: str
) -> tuple[str, PullFrom | None]:
    """The digest that a command's `workload.image` stands for, and where from it may be fetched.

    Raises:
        ProblemError: `image-not-allowed`.
    """
    repository, at, digest = reference.partition("@")
    tag = ""
    if not at:
        repository, _, tag = reference.rpartition(":")
    image = images.get(repository)
    if image is not None and at and digest in image.digests:
        return digest, image.pull_from(repository)
    if image is not None and tag in image.tags:
        return image.tags[tag], image.pull_from(repository)
    what = "repository" if image is None else ("digest" if at else "tag")
    raise ProblemError(
        "image-not-allowed",
        f"The node's policy does not know this {what}.",
        errors=[
            FieldError(
                field="workload.image",
                message=f"the {what} is not approved on this node",
                remedy="use an approved repository with an approved tag or sha256 digest",
            )
        ],
    )


def names_of(images: Mapping[str, ApprovedImage]) -> dict[str, list[str]]:
    """By which names commands may call each approved digest."""
    names: dict[str, list[str]] = {}
    for repository, image in images.items():
        for digest in image.digests:
            tags = [f"{repository}:{tag}" for tag, known in image.tags.items() if known == digest]
            names.setdefault(digest, []).extend(tags or [f"{repository}@{digest}"])
    return names
