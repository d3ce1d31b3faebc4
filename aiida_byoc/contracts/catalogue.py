"""The one catalogue of problems: name, status, title, whether a retry can help, and what to do.

Only this module knows them; everybody else reads it by way of `problems`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CATALOGUE", "PROBLEM_BASE", "ProblemType"]

PROBLEM_BASE = "https://aiida-byoc.org/problems/"
"""Prefix of every problem `type`; an identifier, not necessarily a page."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem. `retry`: whether the same request, with the same key, can succeed later."""

    name: str
    status: int
    title: str
    retry: bool
    remedy: str

    @property
    def uri(self) -> str:
        return PROBLEM_BASE + self.name


_TYPES = (
    ProblemType(
        "malformed-request",
        400,
        "The request cannot be read",
        False,
        "Send one JSON object in UTF-8, without duplicate members.",
    ),
    ProblemType(
        "idempotency-key-invalid",
        400,
        "The Idempotency-Key header is missing or malformed",
        False,
        'Send exactly one header Idempotency-Key: "<16 to 128 of A-Z a-z 0-9 . _ ~ ->", quotes included.',
    ),
    ProblemType(
        "unauthenticated",
        401,
        "No valid credential",
        False,
        "Send Authorization: Bearer <token> with a current token of a configured issuer.",
    ),
    ProblemType(
        "enrolment-refused",
        401,
        "The enrolment token is not valid",
        False,
        "Ask the product for a new enrolment token: one is good once, for 15 minutes, for one node.",
    ),
    ProblemType(
        "forbidden",
        403,
        "The credential does not allow this",
        False,
        "Use a credential with the needed scope.",
    ),
    ProblemType(
        "tenant-mismatch",
        403,
        "The command names a tenant that is not the credential's",
        False,
        "Set tenant_id to the tenant of the credential.",
    ),
    ProblemType(
        "signature-invalid",
        403,
        "The command does not carry the product's signature",
        False,
        "Send the command through the product, which signs it; the node's policy says whether it must.",
    ),
    ProblemType(
        "not-found",
        404,
        "No such resource",
        False,
        "Check the node and job names, and that they belong to the credential's tenant.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "The resource does not support this method",
        False,
        "Use a method named in the Allow header.",
    ),
    ProblemType(
        "job-id-conflict",
        409,
        "The tenant already used this job_id under another key",
        False,
        "Mint a new job_id, or retry with the key that was used first.",
    ),
    ProblemType(
        "job-cancelled",
        409,
        "The job was cancelled before it was submitted",
        False,
        "Mint a new job_id to run it after all.",
    ),
    ProblemType(
        "too-many-keys",
        409,
        "The node has two live keys already",
        False,
        "Retire one of them, then add the new one.",
    ),
    ProblemType(
        "epoch-mismatch",
        409,
        "The product does not know this history of the node",
        False,
        "The product's operator accepts the node's new epoch, once it is clear why the node has one.",
    ),
    ProblemType(
        "operation-unsupported",
        409,
        "The node does not know this operation",
        False,
        "Ask the node's owner to update it.",
    ),
    ProblemType(
        "job-not-ended",
        409,
        "The job has not ended",
        False,
        "Ask again when the job has ended.",
    ),
    ProblemType(
        "receipt-unavailable",
        409,
        "The node cannot give a receipt of this job",
        False,
        "Ask the node's owner; the detail says what is missing.",
    ),
    ProblemType(
        "command-expired",
        410,
        "The deadline of the command has passed",
        False,
        "Submit a new command with a later deadline, or none.",
    ),
    ProblemType(
        "payload-too-large",
        413,
        "The body is too large",
        False,
        "Stay within 256 KiB; pass data by reference.",
    ),
    ProblemType(
        "unsupported-media-type",
        415,
        "The body is of another media type",
        False,
        "Send the Content-Type that the route takes: application/json, unless it says otherwise.",
    ),
    ProblemType(
        "validation-failed",
        422,
        "The message does not fit its contract",
        False,
        "Correct the fields listed in errors.",
    ),
    ProblemType(
        "node-mismatch",
        422,
        "The command names another node than the path",
        False,
        "Set management_node_id to the node in the path.",
    ),
    ProblemType(
        "idempotency-key-reused",
        422,
        "The key was used for another command",
        False,
        "Use a new key for a new command.",
    ),
    ProblemType(
        "policy-refused",
        422,
        "The node's policy does not allow the command",
        False,
        "Correct the fields listed in errors, or ask the node's owner.",
    ),
    ProblemType(
        "image-not-allowed",
        422,
        "The node's policy does not know the image",
        False,
        "Use a repository, tag or digest that the node's owner has approved.",
    ),
    ProblemType(
        "input-not-found",
        422,
        "An input names a job or an output that is not there",
        False,
        "Correct the inputs listed in errors; submit an earlier job before the one that reads its output.",
    ),
    ProblemType(
        "too-many-requests",
        429,
        "The tenant has too many requests of this kind open",
        True,
        "Close some, or wait for the time in Retry-After.",
    ),
    ProblemType(
        "quota-exceeded",
        429,
        "The tenant's quota on this node is used up",
        True,
        "Retry with the same key after the time in Retry-After; nothing was stored.",
    ),
    ProblemType(
        "internal-error",
        500,
        "Something broke on our side",
        True,
        "Retry with the same key.",
    ),
    ProblemType(
        "product-unavailable",
        503,
        "The product does not answer now",
        True,
        "Retry after the time in Retry-After.",
    ),
    ProblemType(
        "node-unreachable",
        503,
        "The node is not connected",
        True,
        "Retry with the same key after the time in Retry-After; nothing was stored.",
    ),
    ProblemType(
        "node-failed",
        503,
        "The node could not decide",
        True,
        "Retry with the same key after the time in Retry-After.",
    ),
    ProblemType(
        "node-draining",
        503,
        "The node takes no new jobs",
        True,
        "Use another node, or retry with the same key after the time in Retry-After; nothing was stored.",
    ),
    ProblemType(
        "outcome-unknown",
        504,
        "The node did not answer in time",
        True,
        "The command may have been accepted: retry with the same key only.",
    ),
)

CATALOGUE: dict[str, ProblemType] = {kind.name: kind for kind in _TYPES}
