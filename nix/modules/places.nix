# `deployment.ec2`, `deployment.virtualbox`, …: what networks say about the places machines are meant for, with NixOps' names and
# defaults. Nothing is done with it here but naming the devices of disks: `data.nixos_network` brings it to Terraform, which makes the
# machines.
request: node:
{
  config,
  lib,
  modulesPath,
  ...
}:
let
  inherit (lib) mkOption types;
  described = "As in NixOps; see `deployment` of `data.nixos_network`.";
  option = type: default: mkOption { inherit type default; description = described; };
  text = option types.str;
  number = option types.int;
  flag = option types.bool;
  maybe = type: option (types.nullOr type) null;
  set = type: option (types.attrsOf type) { };
  list = option (types.listOf types.str);
  several = fields: types.submodule { options = fields; };
  inherit (lib) mkDefault mkIf;
  any = types.attrsOf types.unspecified;

  /* A name, or one of the network's resources, which stands for its name. Not a set of anything: whether its attributes are
     defined must not be asked, as some may not be known yet. */
  nameType = types.unspecified;
  toName =
    value:
    if builtins.isAttrs value then
      value._name or value.name or value.config.networking.hostName or value.networking.hostName
        or (throw "a set in `deployment` of node `${node}` stands for nothing that has a name: expected a name, a machine or a resource")
    else
      value;
  reference =
    default:
    mkOption {
      type = nameType;
      inherit default;
      apply = toName;
      description = described;
    };
  references =
    default:
    mkOption {
      type = types.listOf nameType;
      inherit default;
      apply = map toName;
      description = described;
    };

  /* What every kind of cloud disk has. */
  encryption = {
    encrypt = flag false;
    cipher = text "aes-cbc-essiv:sha256";
    keySize = number 128;
    passphrase = text "";
  };
  ec2Disk = types.submodule (
    { config, ... }:
    {
      options = {
        disk = reference "";
        size = number 0;
        volumeType = text "standard";
        iops = number 0;
        fsType = text "ext4";
        # What was made for the machine goes with it.
        deleteOnTermination = flag (config.disk == "" || builtins.substring 0 5 config.disk == "snap-");
        encryptionType = text "luks";
      }
      // encryption;
    }
  );
  gceDisk = types.submodule (
    { config, ... }:
    {
      options = {
      disk_name = maybe types.str;
      disk = option (types.nullOr nameType) null;
      snapshot = maybe types.str;
      image = option (types.nullOr nameType) null;
      size = maybe types.int;
      diskType = text "standard";
      readOnly = flag false;
      bootDisk = flag false;
      deleteOnTermination = flag (config.disk == null);
    }
    // encryption;
    }
  );

  azureDisk = several (
    {
      name = maybe types.str;
      isEphemeral = flag true;
      mediaLink = maybe types.str;
      size = maybe types.int;
      lun = maybe types.int;
      hostCaching = text "None";
    }
    // encryption
  );

  /* What a disk is called that has no name of its own: after where it is mounted. */
  afterMountPoint =
    mountPoint:
    builtins.replaceStrings [ "/" "." "_" ] [ "-" "-" "-" ] (
      builtins.substring 1 (builtins.stringLength mountPoint) mountPoint
    );

  /* The name that a disk has in Google's cloud. */
  gceName =
    disk:
    if disk.disk != null then
      disk.disk.name or disk.disk
    else
      "${config.deployment.gce.machineName}-${disk.disk_name}";
  gceDevice = disk: "/dev/disk/by-id/scsi-0Google_PersistentDisk_${gceName disk}";
  gceNamed =
    mountPoint: disk:
    if disk.disk_name == null && disk.disk == null then
      disk // { disk_name = afterMountPoint mountPoint; }
    else
      disk;

  azureDevice = disk: "/dev/disk/by-lun/${toString disk.lun}";
  azureNamed = mountPoint: disk: if disk.name == null then disk // { name = afterMountPoint mountPoint; } else disk;

  /* The device of a disk that is opened as another one. */
  behindMapper = device: if lib.hasPrefix mapper device then "/dev/" + lib.removePrefix mapper device else device;
  mapper = "/dev/mapper/";

  /* Around 20.09 the option's type changed, and a second declaration must have the same. */
  declaration = "${toString modulesPath}/tasks/filesystems.nix";
  listOrSet =
    lib.types ? loaOf
    && builtins.pathExists declaration
    && builtins.length (builtins.split "loaOf" (builtins.readFile declaration)) > 1;

  /* Disks that `fileSystems` asks for, by their devices. */
  fromFileSystems =
    cloud: disk:
    builtins.listToAttrs (
      builtins.concatMap (
        mountPoint:
        let
          fileSystem = config.fileSystems.${mountPoint};
        in
        if fileSystem.${cloud} or null == null then [ ] else [ (disk fileSystem.mountPoint fileSystem) ]
      ) (builtins.attrNames (config.fileSystems or { }))
    );

  ec2Mapping = fromFileSystems "ec2" (
    mountPoint: fileSystem:
    if fileSystem.device == null then
      throw "`fileSystems.\"${mountPoint}\"` of node `${node}` has `ec2`, but no `device`: set it to the name of the volume's device, such as /dev/xvdf"
    else
      lib.nameValuePair (behindMapper fileSystem.device) (
        fileSystem.ec2 // (if fileSystem.fsType != "auto" then { inherit (fileSystem) fsType; } else { })
      )
  );
  gceMapping = fromFileSystems "gce" (
    mountPoint: fileSystem:
    let
      disk = gceNamed mountPoint fileSystem.gce;
    in
    lib.nameValuePair (gceDevice disk) disk
  );
  azureMapping = fromFileSystems "azure" (
    mountPoint: fileSystem: lib.nameValuePair (azureDevice fileSystem.azure) (azureNamed mountPoint fileSystem.azure)
  );
in
{
  options.deployment = {
    ec2 = {
      accessKeyId = text "";
      region = text "";
      zone = text "";
      tenancy = text "default";
      ebsBoot = flag true;
      ebsInitialRootDiskSize = number 0;
      ami = text "";
      instanceType = text "m1.small";
      instanceId = text "";
      instanceProfile = text "";
      keyPair = reference "";
      privateKey = text "";
      securityGroups = references [ "default" ];
      securityGroupIds = list [ "default" ];
      subnetId = reference "";
      associatePublicIpAddress = flag false;
      usePrivateIpAddress = flag (
        config.deployment.ec2.subnetId != "" && !config.deployment.ec2.associatePublicIpAddress
      );
      sourceDestCheck = flag true;
      placementGroup = reference "";
      tags = set types.str;
      blockDeviceMapping = mkOption {
        type = types.attrsOf ec2Disk;
        default = { };
        description = described;
      };
      elasticIPv4 = reference "";
      # NixOps knew them by the type of the instance.
      physicalProperties = maybe any;
      spotInstancePrice = number 0;
      spotInstanceTimeout = number 0;
      spotInstanceRequestType = text "one-time";
      spotInstanceInterruptionBehavior = text "terminate";
      ebsOptimized = maybe types.bool;
    };

    virtualbox = {
      vmFlags = list [ ];
      vcpu = maybe types.int;
      memorySize = number 512;
      headless = flag false;
      disks = set (several {
        port = maybe types.int;
        size = number 0;
        baseImage = maybe types.unspecified;
      });
      sharedFolders = set (several {
        hostPath = text "";
        readOnly = flag true;
      });
    };

    libvirtd = {
      imageDir = text "/var/lib/libvirt/images";
      storagePool = text "default";
      URI = text "qemu:///system";
      vcpu = number 1;
      memorySize = number 512;
      headless = flag false;
      baseImageSize = number 10;
      baseImage = maybe types.unspecified;
      networks = option (types.listOf types.unspecified) [ "default" ];
      extraDevicesXML = text "";
      extraDomainXML = text "";
      domainType = text "kvm";
      kernel = text "";
      initrd = text "";
      cmdline = text "";
    };

    container.host = reference "localhost";

    hetzner = {
      mainIPv4 = maybe types.str;
      createSubAccount = flag true;
      robotUser = text "";
      robotPass = text "";
      partitions = maybe types.lines;
      partitioningScript = maybe types.lines;
      mountScript = maybe types.lines;
    };

    gce = {
      project = text "";
      serviceAccount = text "";
      accessKey = text "";
      machineName = text "n-${builtins.replaceStrings [ "-" ] [ "" ] request.deployment.uuid}-${node}";
      region = text "";
      instanceType = text "g1-small";
      tags = list [ ];
      labels = set types.str;
      metadata = set types.str;
      ipAddress = option (types.nullOr nameType) null;
      network = option (types.nullOr nameType) null;
      subnet = option (types.nullOr nameType) null;
      canIpForward = flag false;
      instanceServiceAccount = {
        email = text "default";
        scopes = list [ ];
      };
      blockDeviceMapping = set gceDisk;
      bootstrapImage = option (types.nullOr types.unspecified) null;
      rootDiskSize = maybe types.int;
      rootDiskType = text "standard";
      scheduling = {
        automaticRestart = flag true;
        onHostMaintenance = text "MIGRATE";
        preemptible = flag false;
      };
    };

    azure = option any { };

    digitalOcean = {
      authToken = text "";
      region = text "";
      size = text "";
      enableIpv6 = flag false;
      vpc = maybe types.unspecified;
    };
    droplet = {
      authToken = text "";
      region = text "";
      size = text "";
      enableIpv6 = flag false;
    };
  };

  options.fileSystems = mkOption {
    type = (if listOrSet then types.loaOf else types.attrsOf) (
      types.submodule (
        { config, ... }:
        {
          options = {
            ec2 = maybe ec2Disk;
            gce = maybe gceDisk;
            azure = maybe azureDisk;
          };
          # What is mounted is what was made.
          config = lib.mkMerge [
            (mkIf (config.gce != null) {
              device = mkDefault (
                let
                  disk = gceNamed config.mountPoint config.gce;
                in
                if disk.encrypt then "${mapper}${gceName disk}" else gceDevice disk
              );
            })
            (mkIf (config.azure != null) {
              device = mkDefault (
                if config.azure.encrypt then
                  "${mapper}${(azureNamed config.mountPoint config.azure).name}"
                else
                  azureDevice config.azure
              );
            })
          ];
        }
      )
    );
  };

  config.deployment.ec2.blockDeviceMapping = ec2Mapping;
  config.deployment.gce.blockDeviceMapping = gceMapping;
  config.deployment.azure = mkIf (azureMapping != { }) { blockDeviceMapping = azureMapping; };
}
