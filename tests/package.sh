#!/usr/bin/env bash
# The Debian package in a Debian of its own: install, start, upgrade with data kept, remove, purge. Exit code 0 = all of it as promised.
# Usage: tests/package.sh PROGRAM DIR      (make deb-test). DIR/base is a Debian like this one, made by debootstrap at the first run and kept; only
# that needs a network. Everything else runs in namespaces of its own (processes, mounts, network): nothing of it is left over or reaches out.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "$1")
mkdir -p "$2"
dir=$(realpath "$2")
base=$dir/base
root=$dir/root

say() { printf '\n== %s\n' "$*"; }
ok() { printf 'ok: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
enter=(chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8)
within() { "${enter[@]}" "$@"; }

# A Debian without the package, which lies in its /root.
fresh_root() {
  rm -rf "$root"
  cp -a "$base" "$root"
  cp "$first" "$second" tests/package-booted.sh "$root/root"
  first=/root/$(basename "$first") second=/root/$(basename "$second")
}

# The same under a systemd of its own. Where none can be had it says so.
boot() {
  say "boot a Debian with systemd"
  command -v systemd-nspawn >/dev/null || { echo "skipped: there is no systemd-nspawn (apt-get install systemd-container)"; return; }
  fresh_root
  cat >"$root/etc/systemd/system/package-test.service" <<UNIT
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/root/package-booted.sh $first $second
StandardOutput=append:/root/result
StandardError=inherit
UNIT
  ln -s /etc/systemd/system/package-test.service "$root/etc/systemd/system/multi-user.target.wants/"
  timeout 300 systemd-nspawn --quiet --directory="$root" --boot --private-network --register=no --keep-unit --link-journal=no >"$dir/boot.log" 2>&1 || true
  [ -s "$root/root/result" ] || { echo "skipped: systemd does not boot in a container here; see $dir/boot.log"; return; }
  cat "$root/root/result"
  grep -q '^== all passed' "$root/root/result" || fail "under systemd"
}

[ "$(id -u)" = 0 ] || fail "this needs root: sudo make deb-test"
for tool in debootstrap unshare dpkg-shlibdeps ip; do
  command -v "$tool" >/dev/null || fail "this needs $tool: apt-get install debootstrap util-linux dpkg-dev iproute2"
done

if [ "${INSIDE:-}" != yes ]; then
  if [ ! -e "$base/.complete" ]; then
    say "a Debian in $base"
    rm -rf "$base"
    . /etc/os-release
    debootstrap --variant=minbase --include=systemd,logrotate "$VERSION_CODENAME" "$base" >"$dir/debootstrap.log" 2>&1 || fail "debootstrap: see $dir/debootstrap.log"
    touch "$base/.complete"
    ok "made; the next run uses it again"
  fi
  say "two packages of $program"
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  first=$(packaging/debian/build "$version" "$program")
  second=$(packaging/debian/build "$version+next" "$program")
  dpkg-deb --field "$first" Package Version Architecture Depends
  export INSIDE=yes version first second
  unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$program" "$dir"
  boot
  rm -rf "$root"
  exit
fi

ip link set lo up
fresh_root
mount -t proc proc "$root/proc"

# Starts the server as the unit does, but for systemd, and waits for its first line.
start() {
  local line command
  command=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/chatserver.service")
  rm -f "$dir/out"
  mkfifo "$dir/out"
  # shellcheck disable=SC2086 # words of a command line
  (exec "${enter[@]}" setpriv --reuid=chatserver --regid=chatserver --clear-groups $command >"$dir/out" 2>"$dir/err") &
  server=$!
  exec 3<"$dir/out"
  read -r -t 30 line <&3 || { cat "$dir/err" >&2; fail "the server did not start"; }
  [ "$line" = "listening on 127.0.0.1:8989" ] || fail "the first line is: $line"
  ok "$line"
  is "its user" "chatserver" "$(within stat -c %U "/proc/$server")"
}

stop() {
  kill -TERM "$server"
  wait "$server" || { cat "$dir/err" >&2; fail "the server ended with $?"; }
  ok "stopped, exit code 0"
}

# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || fail "$1: $3 instead of $2"; ok "$1: $3"; }
gone() { for path in "$@"; do [ ! -e "$root$path" ] || fail "$path is still there"; done; ok "gone: $*"; }
kept() { for path in "$@"; do [ -e "$root$path" ] || fail "$path is gone"; done; ok "kept: $*"; }
wait_until() { for _ in $(seq 300); do ! "$@" || return 0; sleep 0.1; done; fail "did not happen within 30 s: $*"; }


say "install $first"
within apt-get -qq install "$first" >"$dir/apt.log" 2>&1 || { cat "$dir/apt.log"; fail "apt-get"; }
is "the program" "chatserver $version" "$(within chatserver --version)"
is "the user" "chatserver:/var/lib/chatserver:/usr/sbin/nologin" "$(within getent passwd chatserver | cut -d: -f1,6,7)"
is "the data directory" "chatserver chatserver 700" "$(within stat -c '%U %G %a' /var/lib/chatserver)"
is "the configuration" "root chatserver 640" "$(within stat -c '%U %G %a' /etc/chatserver/chatserver.toml)"
is "the service" "enabled" "$(within systemctl is-enabled chatserver.service)"
within systemd-analyze verify --man=no /usr/lib/systemd/system/chatserver.service || fail "systemd-analyze verify"
ok "systemd-analyze verify"
kept /usr/share/man/man1/chatserver.1.gz /usr/share/bash-completion/completions/chatserver

say "start, and store a message"
start
within chatserver send --as bob --to bob 'I was here' >/dev/null
within chatserver send --as ann --to bob 'kept by the upgrade'
stop
within chatserver users --data /var/lib/chatserver | tee "$dir/users" | grep -q '^bob .* 1 message, ' || { cat "$dir/users"; fail "bob's message does not wait"; }
ok "the message waits on disk"
is "what the server made for others" "0" "$(within find /var/lib/chatserver -perm /077 | wc -l)"

say "rotate the log"
start
within logrotate -d /etc/logrotate.d/chatserver 2>&1 | grep -i error && fail "logrotate -d"
within logrotate -f /etc/logrotate.d/chatserver
gone /var/lib/chatserver/chatserver.log
kill -HUP "$server"
wait_until [ -s "$root/var/lib/chatserver/chatserver.log" ]
is "the new log" "chatserver 600" "$(within stat -c '%U %a' /var/lib/chatserver/chatserver.log)"
kept /var/lib/chatserver/chatserver.log.1
stop

say "upgrade to $second"
echo 'read_timeout = "61 s"' >>"$root/etc/chatserver/chatserver.toml"
within chmod 600 /etc/chatserver/chatserver.toml
within chown chatserver /etc/chatserver/chatserver.toml
within apt-get -qq install "$second" >"$dir/apt.log" 2>&1 || { cat "$dir/apt.log"; fail "apt-get"; }
is "the package" "$version+next" "$(within dpkg-query -W -f '${Version}' chatserver)"
is "the changed configuration" 'read_timeout = "61 s"' "$(tail -n 1 "$root/etc/chatserver/chatserver.toml")"
is "its changed permissions" "chatserver chatserver 600" "$(within stat -c '%U %G %a' /etc/chatserver/chatserver.toml)"
start
within chatserver listen --as bob --count 1 | grep 'kept by the upgrade' || fail "bob's message did not come"
stop

say "remove"
within apt-get -qq remove chatserver >"$dir/apt.log" 2>&1 || { cat "$dir/apt.log"; fail "apt-get"; }
gone /usr/bin/chatserver /usr/lib/systemd/system/chatserver.service /usr/share/doc/chatserver
kept /var/lib/chatserver/chatserver.db /etc/chatserver/chatserver.toml

say "install again, then purge"
within apt-get -qq install "$second" >"$dir/apt.log" 2>&1 || { cat "$dir/apt.log"; fail "apt-get"; }
is "the service" "enabled" "$(within systemctl is-enabled chatserver.service)"
kept /var/lib/chatserver/chatserver.db
within apt-get -qq purge chatserver >"$dir/apt.log" 2>&1 || { cat "$dir/apt.log"; fail "apt-get"; }
gone /var/lib/chatserver /etc/chatserver /etc/logrotate.d/chatserver
left=$(find "$root" -xdev -path "$root/root" -prune -o -name '*chatserver*' -print)
[ -z "$left" ] || fail "left over: $left"
ok "no file of that name is left"

umount "$root/proc"
say "all passed without systemd"
