//! The help text of the agent.

pub(crate) const HELP: &str = "nixos-agent: activates NixOS systems on this machine

For clients:
  activate            carry out the request on standard input, with the secrets behind it, and report it
  attach ID [--from N]  report on an activation that runs or has run, from event N on
  confirm ID          answer an activation that waits for its client, with the message on standard input
  running             print the id of the activation that runs and for how many seconds it has; nothing where none does
  try SYSTEM SECONDS  make the next boot start this system once: it stays if it is activated in so many seconds
  take-back-trial     end what `try` began, without a reboot: the profile's system boots from now on
  volume ID LETTER    print whether this machine uses a volume of EC2, attached as the device with this letter, as JSON
  status              print what this machine runs, as JSON
  --version           print the version

For units that the agent starts:
  run ID              carry an activation out, or go on with one whose agent was killed
  rescue ID           end an activation that has not ended in time
  exec ID STEP PROGRAM ARGUMENT  run one program of an activation
  watch-trial         after a reboot: go back to the old system unless the new one is activated in time
  undo-secrets        after a power cut: bring back the secrets of the system that boots
  put-back-secrets    after a reboot: put back the secrets that this machine keeps for itself";
