//! Cleans up after a lab, whatever its owner dies of: a shell that waits for the end of a pipe whose other end we hold.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::LabError;

/// `$1` is the lab's id, `$2` its directory.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
for file in "$2"/*/pid; do
  [ -e "$file" ] || continue
  pid=$(cat "$file")
  for leader in $(pgrep -P "$pid"); do kill -KILL "$leader"; done
  kill -KILL "$pid" 2>/dev/null
done
for file in "$2"/*/pid; do
  [ -e "$file" ] || continue
  pid=$(cat "$file")
  n=0
  while [ -e "/proc/$pid" ] && [ "$n" -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
done
while read -r _ target _; do
  case $target in "$2"/*) echo "$target" ;; esac
done < /proc/self/mounts | sort -r | while read -r target; do umount -l "$target"; done
ip netns list | while read -r name _; do
  case $name in "nixlab-$1-"*) ip netns del "$name" ;; esac
done
for tree in /sys/fs/cgroup/unified /sys/fs/cgroup; do
  find "$tree" -maxdepth 1 -type d -name "nixlab-$1-*" 2>/dev/null | while read -r group; do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
  done
done
rm -rf --one-file-system "$2"
"#;

#[derive(Debug)]
pub(crate) struct Reaper {
    shell: Child,
}

impl Reaper {
    pub(crate) fn start(id: &str, directory: &Path) -> Result<Self, LabError> {
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", SCRIPT, "nixlab-reaper", id]).arg(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let failed = |error: std::io::Error| LabError::Command {
            command: "setsid sh".into(),
            message: error.to_string(),
        };
        Ok(Self { shell: command.spawn().map_err(failed)? })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
