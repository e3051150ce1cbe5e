# A bucket for backups of neo4j-backup-agent: versioned, encrypted, private, over TLS only, on request locked.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.86"
    }
  }
}

locals {
  # As lifecycle-ENVIRONMENT.json: days until backups go, until their log goes, until versions that were replaced
  # or deleted go, and until large objects move to colder storage (0 = never).
  ages = {
    dev     = { backups = 7, log = 8, noncurrent = 7, colder = 0 }
    staging = { backups = 30, log = 31, noncurrent = 14, colder = 0 }
    prod    = { backups = 365, log = 366, noncurrent = 30, colder = 30 }
  }
  age  = local.ages[var.environment]
  root = "${var.prefix}/environment=${var.environment}/"
}

resource "aws_s3_bucket" "backups" {
  bucket              = var.bucket
  object_lock_enabled = var.lock_days > 0

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "backups" {
  bucket = aws_s3_bucket.backups.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "backups" {
  count      = var.lock_days > 0 ? 1 : 0
  bucket     = aws_s3_bucket.backups.id
  depends_on = [aws_s3_bucket_versioning.backups]

  rule {
    default_retention {
      mode = var.lock_mode
      days = var.lock_days
    }
  }
}

resource "aws_s3_bucket_public_access_block" "backups" {
  bucket                  = aws_s3_bucket.backups.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_kms_key" "backups" {
  description             = "Backups in ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "backups" {
  bucket = aws_s3_bucket.backups.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.backups.arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "backups" {
  bucket     = aws_s3_bucket.backups.id
  depends_on = [aws_s3_bucket_versioning.backups]

  rule {
    id     = "${var.environment}-backups"
    status = "Enabled"

    filter {
      prefix = "${local.root}year="
    }

    expiration {
      days = local.age.backups
    }
  }

  rule {
    id     = "${var.environment}-log"
    status = "Enabled"

    filter {
      and {
        prefix                   = "${local.root}log/"
        object_size_greater_than = 1024
      }
    }

    expiration {
      days = local.age.log
    }
  }

  dynamic "rule" {
    for_each = local.age.colder > 0 ? [local.age.colder] : []

    content {
      id     = "${var.environment}-colder"
      status = "Enabled"

      filter {
        and {
          prefix                   = local.root
          object_size_greater_than = 131072
        }
      }

      transition {
        days          = rule.value
        storage_class = "GLACIER_IR"
      }
    }
  }

  rule {
    id     = "${var.environment}-leftovers"
    status = "Enabled"

    filter {
      prefix = local.root
    }

    expiration {
      expired_object_delete_marker = true
    }

    noncurrent_version_expiration {
      noncurrent_days = local.age.noncurrent
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

data "aws_iam_policy_document" "only_tls" {
  statement {
    sid       = "OnlyTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.backups.arn, "${aws_s3_bucket.backups.arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "backups" {
  bucket     = aws_s3_bucket.backups.id
  policy     = data.aws_iam_policy_document.only_tls.json
  depends_on = [aws_s3_bucket_public_access_block.backups]
}
