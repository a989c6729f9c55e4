#!/usr/bin/env bash
# The part of tests/package.sh that runs inside a booted Debian, with systemd as process 1: the unit for real.
# Usage: package-booted.sh FIRST.deb SECOND.deb
set -euo pipefail
first=$1 second=$2
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

say() { printf '\n== %s\n' "$*"; }
ok() { printf 'ok: %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; systemctl --no-pager status chatserver.service || true; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: $3 instead of $2"; ok "$1: $3"; }
show() { systemctl show --property="$1" --value chatserver.service; }
wait_until() { for _ in $(seq 300); do ! "$@" || return 0; sleep 0.1; done; fail "did not happen within 30 s: $*"; }
another_process() { [ "$(show MainPID)" != "$1" ] && [ "$(show SubState)" = running ]; }

say "install: systemd starts the service"
apt-get -qq install "$first" >/root/apt.log 2>&1 || { cat /root/apt.log; fail "apt-get"; }
is "state" "active running" "$(show ActiveState) $(show SubState)"
is "its user" "chatserver" "$(stat -c %U "/proc/$(show MainPID)")"
chatserver send --as bob --to bob 'I was here' >/dev/null
chatserver send --as ann --to bob 'kept by the upgrade'
ok "a message is sent"

say "reload"
process=$(show MainPID)
systemctl reload chatserver.service
is "the same process" "$process running" "$(show MainPID) $(show SubState)"

say "rotate the log: the server goes on in a new file"
logrotate -f /etc/logrotate.d/chatserver
wait_until [ -s /var/lib/chatserver/chatserver.log ]
is "the new log" "chatserver 600" "$(stat -c '%U %a' /var/lib/chatserver/chatserver.log)"
is "the same process" "$process running" "$(show MainPID) $(show SubState)"

say "upgrade: restarted, with its data"
apt-get -qq install "$second" >/root/apt.log 2>&1 || { cat /root/apt.log; fail "apt-get"; }
is "state" "active running" "$(show ActiveState) $(show SubState)"
[ "$(show MainPID)" != "$process" ] || fail "the old process still runs"
chatserver listen --as bob --count 1 | grep 'kept by the upgrade' || fail "bob's message did not come"

say "a watchdog of 2 s: an idle server is left alone, one that hangs is started again"
mkdir -p /etc/systemd/system/chatserver.service.d
printf '[Service]\nWatchdogSec=2s\nRestartSec=100ms\n' >/etc/systemd/system/chatserver.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart chatserver.service
process=$(show MainPID)
sleep 7
is "after 7 s the same process" "$process running" "$(show MainPID) $(show SubState)"
kill -STOP "$process"
wait_until another_process "$process"
ok "stopped with SIGSTOP, and replaced by process $(show MainPID)"
is "restarts" "1" "$(show NRestarts)"

say "stop and remove"
systemctl stop chatserver.service
is "result" "success" "$(show Result)"
systemctl start chatserver.service
process=$(show MainPID)
apt-get -qq remove chatserver >/root/apt.log 2>&1 || { cat /root/apt.log; fail "apt-get"; }
[ ! -e "/proc/$process" ] || fail "it still runs"
is "state" "inactive" "$(show ActiveState)"
[ -e /var/lib/chatserver/chatserver.db ] || fail "the data is gone"
rm -r /etc/systemd/system/chatserver.service.d
apt-get -qq purge chatserver >/root/apt.log 2>&1 || { cat /root/apt.log; fail "apt-get"; }
[ ! -e /var/lib/chatserver ] && [ ! -e /etc/chatserver ] || fail "purge left something behind"
ok "removed and purged"
say "all passed under systemd"
