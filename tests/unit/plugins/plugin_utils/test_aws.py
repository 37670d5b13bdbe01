"""What AWS says, in sentences that tell what can be done."""

from __future__ import annotations

import pytest
from ansible_collections.bascule.deploy.plugins.plugin_utils._aws import reason
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

NOT_ALLOWED = "User: arn:aws:iam::1:user/ci is not authorized to perform:"
PRINTS = "`bascule iam-policy` prints what a group needs."


def refusal(code: str, message: str = "Said.", operation: str = "PutObject") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        # The action is named by most services, and otherwise by the call.
        (
            refusal("AccessDenied", f"{NOT_ALLOWED} s3:PutObject on resource: x"),
            f"AccessDenied: {NOT_ALLOWED} s3:PutObject on resource: x. {PRINTS}",
        ),
        (refusal("AccessDenied", "Access Denied"), f"Access Denied (to PutObject). {PRINTS}"),
        (
            refusal("UnauthorizedOperation", "You are not.", "DescribeInstances"),
            f"You are not (to DescribeInstances). {PRINTS}",
        ),
        # A key's policy is none that is printed.
        (
            refusal("AccessDenied", f"{NOT_ALLOWED} kms:Decrypt on resource: y"),
            "kms:Decrypt on resource: y. It is encrypted: the policy of its key",
        ),
        # Each service has its own name for it.
        *(
            (refusal(code), f"{code}: Said. The credentials have expired: get new ones")
            for code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
        ),
        *(
            (refusal(code), "The credentials are unknown there: check AWS_PROFILE")
            for code in (
                "AuthFailure", "InvalidAccessKeyId", "InvalidClientTokenId",
                "UnrecognizedClientException",
            )
        ),
        (refusal("SignatureDoesNotMatch"), "Check AWS_SECRET_ACCESS_KEY"),
        (NoCredentialsError(), "there are no credentials. Set AWS_PROFILE"),
        (EndpointConnectionError(endpoint_url="https://ec2.eu-west-9.amazonaws.com/"),
         "Check the network, the region, and AWS_ENDPOINT_URL"),
        (refusal("SomethingElse"), "SomethingElse: Said."),
    ],
)  # fmt: skip
def test_what_aws_refuses_is_told_with_what_can_be_done(error: Exception, told: str) -> None:
    assert told in reason(error)
