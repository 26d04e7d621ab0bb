# A public web site, whose files another site's pages may load.
resource "nixos_s3_bucket" "site" {
  bucket              = "www.example.org"
  website             = { index_document = "index.html", error_document = "404.html" }
  public_access_block = { block_public_policy = false, restrict_public_buckets = false }

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Read"
      Effect    = "Allow"
      Principal = "*"
      Action    = "s3:GetObject"
      Resource  = "arn:aws:s3:::www.example.org/*"
    }]
  })

  cors_rules = [{
    allowed_methods = ["GET", "HEAD"]
    allowed_origins = ["https://app.example.org"]
    max_age_seconds = 3600
  }]
}

output "endpoint" {
  description = "Where the site is."
  value       = "http://${nixos_s3_bucket.site.website_endpoint}/"
}
