# What each role may do, as iam-ROLE.json. A role of yours gets one by aws_iam_role_policy_attachment.

locals {
  grants = {
    writer = {
      Objects = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
      List    = ["s3:ListBucket"]
      Uploads = ["s3:ListBucketMultipartUploads"]
      Key     = ["kms:GenerateDataKey", "kms:Decrypt"]
    }
    reader = {
      Objects = ["s3:GetObject"]
      List    = ["s3:ListBucket"]
      Uploads = []
      Key     = ["kms:Decrypt"]
    }
    pruner = {
      Objects = ["s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
      List    = ["s3:ListBucket"]
      Uploads = ["s3:ListBucketMultipartUploads"]
      Key     = ["kms:Decrypt"]
    }
  }
}

data "aws_iam_policy_document" "role" {
  for_each = local.grants

  statement {
    sid       = "Objects"
    actions   = each.value.Objects
    resources = ["${aws_s3_bucket.backups.arn}/${var.prefix}/*"]
  }

  statement {
    sid       = "List"
    actions   = each.value.List
    resources = [aws_s3_bucket.backups.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefix}/*"]
    }
  }

  # This right knows no prefix.
  dynamic "statement" {
    for_each = length(each.value.Uploads) > 0 ? [each.value.Uploads] : []

    content {
      sid       = "Uploads"
      actions   = statement.value
      resources = [aws_s3_bucket.backups.arn]
    }
  }

  statement {
    sid       = "Key"
    actions   = each.value.Key
    resources = [aws_kms_key.backups.arn]

    condition {
      test     = "StringLike"
      variable = "kms:ViaService"
      values   = ["s3.*.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "role" {
  for_each = local.grants
  name     = "${var.bucket}-${replace(var.prefix, "/", "-")}-${each.key}"
  policy   = data.aws_iam_policy_document.role[each.key].json
}

data "aws_iam_policy_document" "github" {
  count = var.github_provider_arn == "" ? 0 : 1

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [var.github_provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "token.actions.githubusercontent.com:sub"
      values   = [var.github_subject]
    }
  }
}

# What github-actions.yml takes.
resource "aws_iam_role" "github" {
  count                = var.github_provider_arn == "" ? 0 : 1
  name_prefix          = "neo4j-backup-writer-"
  max_session_duration = 14400
  assume_role_policy   = data.aws_iam_policy_document.github[0].json
}

resource "aws_iam_role_policy_attachment" "github" {
  count      = var.github_provider_arn == "" ? 0 : 1
  role       = aws_iam_role.github[0].name
  policy_arn = aws_iam_policy.role["writer"].arn
}

output "repository" {
  description = "For [repository.NAME] of the agent's configuration."
  value = {
    url        = "s3://${var.bucket}/${var.prefix}?region=${aws_s3_bucket.backups.region}"
    sse        = "kms"
    kms_key_id = aws_kms_key.backups.arn
    checksums  = var.lock_days > 0 ? "when_supported" : "when_required"
  }
}

output "policies" {
  description = "The three policies, by role."
  value       = { for role, policy in aws_iam_policy.role : role => policy.arn }
}

output "github_role" {
  description = "For AWS_ROLE of github-actions.yml."
  value       = one(aws_iam_role.github[*].arn)
}
