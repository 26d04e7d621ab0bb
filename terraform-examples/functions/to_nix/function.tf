variable "domains" {
  type    = map(object({ port = number, hosts = set(string) }))
  default = { "example.org" = { port = 8080, hosts = ["a", "b"] } }
}

# A file that a Nix expression can `import`.
output "domains_nix" {
  value = provider::nixos::to_nix(var.domains)
}
