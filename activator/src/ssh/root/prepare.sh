# Prints a directory of the user who logged in, with what it takes to share one elevation among all commands of a connection.
umask 077
d="$(mktemp -d "${XDG_RUNTIME_DIR:-/tmp}/nixos-activator.XXXXXX")" || exit

# Runs as root, and starts what it is asked for until our side of the connection is gone.
cat >"$d/serve" <<'END'
d="${0%/*}"
[ "$(id -u)" = 0 ] || { echo "the commands that it starts are $(id -un)'s" >&2; exit 1; }
# What waits for somebody who is gone would wait for ever. sudo sends more than one signal.
trap 'trap "" HUP INT TERM; jobs -p >"$d/pids"; kill $(cat "$d/pids") 2>/dev/null; rm -rf "$d"' EXIT
trap 'exit 1' HUP INT TERM
# Open for writing too: without anybody who asks this is not the end.
exec 3<>"$d/jobs" 4<&0
{ cat <&4 >/dev/null; echo end >&3; } &
echo "nixos-activator: root"
while read -r job <&3 && [ "$job" != end ]; do
  (
    trap - EXIT HUP INT TERM
    . "$job/command"
    "$@" <"$job/in" >"$job/out" 2>"$job/err" 3<&- 4<&-
    echo $? 1<>"$job/code"
  ) &
done
END

# Runs its arguments as root, by way of `serve`, with our three streams and its exit code.
cat >"$d/as-root" <<'END'
d="${0%/*}"
job="$(mktemp -d "$d/job.XXXXXX")" || exit 255
trap 'rm -rf "$job"' EXIT
trap 'exit 255' HUP INT TERM
mkfifo "$job/in" "$job/out" "$job/err" "$job/code" || exit 255
{
  printf '%s\n' 'set -- \'
  for word do
    printf '%s\n' "$word" | sed "s/'/'\\\\''/g; 1s/^/'/; \$s/\$/' \\\\/"
  done
  echo
} >"$job/command"
# The exit code must find a reader whenever it comes.
exec 3<&0 4<>"$job/code" 5<>"$d/jobs"
cat <&3 >"$job/in" &
in=$!
cat "$job/err" >&2 &
err=$!
echo "$job" >&5
cat "$job/out"
wait "$err"
read -r code <&4
kill "$in" 2>/dev/null
exit "$code"
END

mkfifo "$d/jobs" && echo "$d"
