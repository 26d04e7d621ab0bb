# A private bucket for backups: encrypted, with versions that are kept for a month.
resource "nixos_s3_bucket" "backup" {
  bucket_prefix          = "example-backup-"
  versioning             = "Enabled"
  public_access_block    = {}
  server_side_encryption = { sse_algorithm = "AES256" }

  lifecycle_rules = [
    {
      id                            = "old-versions"
      noncurrent_version_expiration = { noncurrent_days = 30 }
    },
    {
      id                                     = "archive"
      filter                                 = { prefix = "archive/" }
      transitions                            = [{ days = 30, storage_class = "GLACIER_IR" }]
      abort_incomplete_multipart_upload_days = 7
    },
  ]

  tags = { purpose = "backup" }
}
