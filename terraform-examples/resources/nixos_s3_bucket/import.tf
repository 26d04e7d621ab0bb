import {
  to = nixos_s3_bucket.backup
  id = "example-backup" # its region is found; or REGION:NAME
}
