variable "bucket" {
  description = "Name of the bucket; it is made here."
  type        = string
}

variable "prefix" {
  description = "The repository's prefix in the bucket, without a slash at either end."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*$", var.prefix))
    error_message = "A prefix is segments of letters, digits and ._=- with slashes between them."
  }
}

variable "environment" {
  description = "As `environment` in the agent's configuration; it decides how long backups stay."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "There are ages for dev, staging and prod; add others to local.ages."
  }
}

variable "lock_mode" {
  description = "GOVERNANCE or COMPLIANCE. Under COMPLIANCE nobody shortens it, the account's root included."
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["GOVERNANCE", "COMPLIANCE"], var.lock_mode)
    error_message = "GOVERNANCE or COMPLIANCE."
  }
}

variable "lock_days" {
  description = "Days in which no version of an object can be removed; 0 = no lock. The agent then needs checksums = \"when_supported\"."
  type        = number
  default     = 0
}

variable "github_provider_arn" {
  description = "The account's OIDC provider for token.actions.githubusercontent.com; empty = no role for workflows."
  type        = string
  default     = ""
}

variable "github_subject" {
  description = "Which workflows may take the role, for example repo:OWNER/REPOSITORY:ref:refs/heads/main."
  type        = string
  default     = ""

  validation {
    condition     = !strcontains(var.github_subject, "*")
    error_message = "Name one branch or environment: a pattern would let others in."
  }
}
