# Nodes and resources of a network that has been read: sets as NixOps network files give them.
request:
{
  # Several sets are merged node by node. `_file` says where one comes from.
  files,
  # nixpkgs' library.
  lib,
  # `nixos/lib/eval-config.nix`, or a flake's `lib.nixosSystem`.
  evalConfig,
  # For modules of resources that ask for packages.
  pkgs,
  # Whether machines get what NixOps gave them where they are.
  places ? true,
}:
let
  inherit (request) facts;
  genAttrs = import ./gen-attrs.nix;

  /* Attributes of a network that are not nodes. */
  reserved = [
    "network"
    "defaults"
    "resources"
    "require"
    "nixpkgs"
    "_file"
  ];

  /* The definitions of an attribute in all files. */
  definitions = name: builtins.concatMap (file: if file ? ${name} then [ file.${name} ] else [ ]) files;

  /* The modules that all files have under a name, each with the name of its file for messages. Nothing is imported for that: what is imported
     comes later, and the order of modules is that of merged lines. */
  modules =
    name: builtins.concatMap (file: if file ? ${name} then [ (located (file._file or null) file.${name}) ] else [ ]) files;

  located =
    file: module:
    let
      named = called: if builtins.isAttrs called then { _file = file; } // called else called;
    in
    if file == null then
      module
    # Before 17.09 the module system took no sets for functions.
    else if builtins.isFunction module && lib ? setFunctionArgs then
      {
        __functor = _: args: named (module args);
        __functionArgs = builtins.functionArgs module;
      }
    # A set that is called is left as it is, and so is one that stands for a path.
    else if builtins.isAttrs module && !(module ? __functor) && !(module ? outPath) then
      named module
    else
      module;

  namesIn = sets: builtins.attrNames (builtins.foldl' (all: set: all // set) { } sets);

  /* `network` of a file, which is a set of what is said about all. */
  networks =
    let
      check =
        network:
        if builtins.isAttrs network then
          network
        else
          throw "`network` of a network is a ${builtins.typeOf network}: expected a set such as { description = \"…\"; }";
    in
    map check (definitions "network");

  names =
    let
      found = builtins.filter (name: !(builtins.elem name reserved)) (namesIn files);
      legal = name: builtins.match "[a-zA-Z0-9_-][a-zA-Z0-9_.-]*" name != null;
      illegal = builtins.filter (name: !(legal name)) found;
    in
    if illegal == [ ] then
      builtins.deepSeq (map builtins.attrNames networks) found
    else
      throw "`${builtins.head illegal}` is not the name of a machine: expected letters, digits, `_`, `-` and `.`";

  /* `deployment.x = resources.type.name` stands for the name; in Terraform the resource itself is called so. */
  resource =
    type: name: parts:
    import ./resource.nix {
      inherit lib type name parts;
      deployment = {
        inherit (request.deployment) name uuid;
        inherit (request) arguments;
      };
      arguments = {
        inherit resources pkgs;
        nodes = builtins.mapAttrs (_: asResource) nodes;
        inherit (request.deployment) uuid;
        deploymentName = request.deployment.name;
      };
    };

  /* Resources of NixOps 1.7 said `nodes.web.targetHost` and `nodes.web.publicIPv4`, where machines say `nodes.web.config.…`. */
  asResource =
    node:
    (node.config.deployment or { })
    // {
      inherit (node.config.networking) publicIPv4;
      nixosRelease = node.config.system.nixos.release or node.config.system.nixosRelease;
    }
    // node;

  declared =
    let
      all = definitions "resources";
    in
    genAttrs (namesIn all) (
      type:
      let
        ofType = builtins.concatMap (set: if set ? ${type} then [ set.${type} ] else [ ]) all;
      in
      genAttrs (namesIn ofType) (
        name: resource type name (builtins.concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) ofType)
      )
    );

  /* Those that NixOps knew: a network may ask for all resources of a type, and there may be none. */
  types = [
    "awsVPNConnectionRoutes"
    "awsVPNConnections"
    "awsVPNGateways"
    "azureAvailabilitySets"
    "azureBlobContainers"
    "azureBlobs"
    "azureDNSRecordSets"
    "azureDNSZones"
    "azureDirectories"
    "azureExpressRouteCircuits"
    "azureFiles"
    "azureGatewayConnections"
    "azureLoadBalancers"
    "azureLocalNetworkGateways"
    "azureQueues"
    "azureReservedIPAddresses"
    "azureResourceGroups"
    "azureSecurityGroups"
    "azureShares"
    "azureStorages"
    "azureTables"
    "azureTrafficManagerProfiles"
    "azureVirtualNetworkGateways"
    "azureVirtualNetworks"
    "cloudwatchLogGroups"
    "cloudwatchLogStreams"
    "cloudwatchMetricAlarms"
    "commandOutput"
    "datadogMonitors"
    "datadogScreenboards"
    "datadogTimeboards"
    "ebsVolumes"
    "ec2KeyPairs"
    "ec2PlacementGroups"
    "ec2SecurityGroups"
    "elasticFileSystemMountTargets"
    "elasticFileSystems"
    "elasticIPs"
    "gceDisks"
    "gceForwardingRules"
    "gceHTTPHealthChecks"
    "gceImages"
    "gceNetworks"
    "gceRoutes"
    "gceStaticIPs"
    "gceTargetPools"
    "gseBuckets"
    "iamRoles"
    "rdsDbInstances"
    "rdsDbSecurityGroups"
    "route53HealthChecks"
    "route53HostedZones"
    "route53RecordSets"
    "s3Buckets"
    "snsTopics"
    "sqsQueues"
    "sshKeyPairs"
    "vaultApprole"
    "vpc"
    "vpcCustomerGateways"
    "vpcDhcpOptions"
    "vpcEgressOnlyInternetGateways"
    "vpcEndpoints"
    "vpcInternetGateways"
    "vpcNatGateways"
    "vpcNetworkAcls"
    "vpcNetworkInterfaceAttachments"
    "vpcNetworkInterfaces"
    "vpcRouteTableAssociations"
    "vpcRouteTables"
    "vpcRoutes"
    "vpcSubnets"
  ];

  /* What Terraform knows wins over what the network declares, attribute by attribute. */
  overlay =
    depth: below: above:
    below
    // builtins.mapAttrs (
      name: value:
      if depth > 0 && below ? ${name} then
        # Asked only when somebody looks: the value may not be known yet.
        (if builtins.isAttrs value && builtins.isAttrs below.${name} then overlay (depth - 1) below.${name} value else value)
      else
        value
    ) above;
  known = overlay 2 declared request.resources;
  resources = builtins.listToAttrs (map (name: { inherit name; value = { }; }) types) // known // {
    # `_name` and `_type`, as NixOps' machines have them: what refers to one says its name.
    machines = builtins.mapAttrs (
      _name: node:
      node.config
      // {
        inherit _name;
        _type = "machine";
      }
    ) nodes;
  };

  /* Until 22.05 `eval-config.nix` wanted to be told the platform; later ones leave it to the configuration. */
  telling = !(lib ? trivial.release) || builtins.compareVersions lib.trivial.release "22.05" < 0;

  /* A machine's name and kind, which NixOps put into its configuration. */
  asNixOpsNames = name: {
    options = {
      _name = lib.mkOption {
        internal = true;
        default = name;
        description = "The machine's name in the network.";
      };
      _type = lib.mkOption {
        internal = true;
        default = "machine";
        description = "What it is.";
      };
    };
  };

  evaluate =
    name:
    evalConfig (
      {
        modules =
          modules "defaults"
          ++ modules name
          ++ [
            (import ../modules request {
              inherit name;
              platform = !telling;
              network = places;
              named = true;
            })
          ]
          ++ (
            if places then
              [
                (import ../modules/ec2.nix request name)
                (asNixOpsNames name)
              ]
            else
              [ ]
          );
        specialArgs = {
          inherit name nodes resources;
          inherit (request) arguments;
          inherit (request.deployment) uuid;
          deploymentName = request.deployment.name;
        };
      }
      // (if telling then { system = facts.get name "system"; } else { system = null; })
    );

  nodes = genAttrs names (name: evaluate name // { _name = name; });

  descriptions = builtins.concatMap (set: if set ? description then [ set.description ] else [ ]) networks;
in
{
  inherit nodes;
  resources = known;
  description = if descriptions == [ ] then null else builtins.elemAt descriptions (builtins.length descriptions - 1);
}
