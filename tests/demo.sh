#!/usr/bin/env bash
# A server, two users, one live and one offline message, printed for a reader. Ends by itself; exit code 0 = all of it worked.
# Usage: tests/demo.sh [PROGRAM]     PROGRAM is target/release/chatserver unless another is named.
set -euo pipefail

program=${1:-target/release/chatserver}
[ -x "$program" ] || { echo "demo: there is no program $program; build it with make" >&2; exit 1; }
unset "${!CHATSERVER_@}" # whatever this shell has set for another server
dir=$(mktemp -d)
data=$dir/data
server=
listener=

clean_up() {
  for process in $listener $server; do kill "$process" 2>/dev/null || true; done
  wait
  rm -rf "$dir"
}
trap clean_up EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
show() { printf '  $ chatserver %s\n' "$*"; }
fail() {
  echo "demo: $*" >&2
  [ ! -s "$dir/server.err" ] || { echo "demo: the server's log:" >&2; cat "$dir/server.err" >&2; }
  exit 1
}

# Starts the server and waits for its first line, which names the port that it was given.
start_server() {
  rm -f "$dir/server.out"
  mkfifo "$dir/server.out"
  "$program" serve --listen 127.0.0.1:0 --data "$data" >"$dir/server.out" 2>>"$dir/server.err" &
  server=$!
  exec 3<"$dir/server.out"
  read -r -t 30 line <&3 || fail "the server did not say that it is listening"
  echo "    $line"
  address=${line#listening on }
}

stop_server() {
  kill -TERM "$server"
  wait "$server" || fail "the server ended with exit code $?"
  server=
  exec 3<&-
}

# Bob's program, in the background; what it prints can be read line by line.
start_listener() {
  rm -f "$dir/bob.out"
  mkfifo "$dir/bob.out"
  timeout 60 "$program" listen --addr "$address" --as Bob --count "$1" >"$dir/bob.out" &
  listener=$!
  exec 4<"$dir/bob.out"
}

# Waits for Bob's next line, which must contain the text.
bob_reads() {
  read -r -t 30 line <&4 || fail "Bob did not get: $1"
  echo "    $line"
  case $line in *"$1"*) ;; *) fail "Bob got something else than: $1" ;; esac
}

stop_listener() {
  wait "$listener" || fail "Bob's program ended with exit code $?"
  listener=
  exec 4<&-
}

ann_sends() {
  show "send --as Ann --to Bob '$1'"
  timeout 60 "$program" send --addr "$address" --as Ann --to Bob "$1" || fail "Ann's message was not taken"
}

say "1. A server starts, on a free port, with its files in a fresh directory."
show "serve --listen 127.0.0.1:0 --data DIR"
start_server

say "2. Bob listens; Ann writes. Bob reads it, so now it is certain that he is connected."
show "listen --as Bob"
start_listener 2
ann_sends "Are you there, Bob?"
bob_reads "Are you there, Bob?"

say "3. A live message: Bob is connected, it goes straight through."
ann_sends "Good. This one is live."
bob_reads "Good. This one is live."
stop_listener

say "4. Bob has left. Ann writes on; the server keeps the message."
ann_sends "You are gone, but this one waits for you."

say "5. The server is stopped, which saves what waits. It is in the database:"
stop_server
show "users --data DIR"
"$program" users --data "$data" | sed 's/^/    /'

say "6. The server starts again, Bob comes back, and his message is there."
start_server
show "listen --as Bob --count 1"
start_listener 1
bob_reads "You are gone, but this one waits for you."
stop_listener
stop_server

say "That was all of it: nothing was lost, and nothing is left behind."
