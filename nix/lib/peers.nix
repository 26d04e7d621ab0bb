# How machines of a deployment find and recognise each other, in lines of `/etc/hosts` and of `ssh_known_hosts`.
#
# Worked out once for all nodes: every node needs a line for every other one, and there may be a thousand.
facts:
let
  genAttrs = import ./gen-attrs.nix;

  /* For nodes in the private network, and for those that are not. */
  lines =
    private:
    let
      isNear = peer: private && facts.has peer "private_ipv4";

      /* Whether there is an address can be told before it is known which. IPv6 is for machines that have nothing else. */
      isFar = peer: facts.has peer "public_ipv4";
      hasAddress = peer: isNear peer || isFar peer || facts.has peer "public_ipv6";
      kind =
        peer:
        if isNear peer then
          "private_ipv4"
        else if isFar peer then
          "public_ipv4"
        else
          "public_ipv6";
      address = peer: facts.get peer (kind peer);
      isIdentified = peer: facts.has peer "host_public_key";
      names = peer: "${peer},${peer}-unencrypted${if hasAddress peer then ",${address peer}" else ""}";
    in
    {
      hosts = genAttrs (builtins.filter hasAddress facts.machines) (
        peer: "${address peer} ${peer} ${peer}-unencrypted"
      );
      knownHosts = genAttrs (builtins.filter isIdentified facts.machines) (
        peer: "${names peer} ${facts.get peer "host_public_key"}"
      );
    };

  near = lines true;
  far = lines false;
  seenFrom = name: if facts.has name "private_ipv4" then near else far;
in
{
  /* The lines that a node needs about each of the others, by their names. */
  of = name: builtins.mapAttrs (_: about: removeAttrs about [ name ]) (seenFrom name);

  /* A node's line of `/etc/hosts` about itself, and its other name there: it has no link to itself that could be encrypted. */
  own =
    name:
    let
      inherit (seenFrom name) hosts;
    in
    if hosts ? ${name} then { ${name} = "${hosts.${name}}\n127.0.0.1 ${name}-encrypted"; } else { };
}
