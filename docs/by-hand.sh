#!/usr/bin/env bash
# A session by hand: logs in, writes one message, shows what comes, logs out. With bash, printf, xxd and openssl alone.
# Usage: by-hand.sh NAME TO TEXT [HOST [PORT]]; CHATSERVER_KEY is the key, if it is not the published one. docs/by-hand.md explains it.
set -euo pipefail
name=$1 to=$2 text=$3 host=${4:-127.0.0.1} port=${5:-8989}
key=$(printf %s "${CHATSERVER_KEY:-12345abcdef67890}" | xxd -p) # 16 bytes; the IV is the same
now=$(date +%s)

aes() { openssl enc "$@" -aes-128-cbc -K "$key" -iv "$key"; }
hex() { xxd -p | tr -d '\n'; }
varint() { # 7 bits in a byte, the lowest first; the top bit says that more follow
  local n=$1
  while ((n > 127)); do printf %02x $((n & 127 | 128)); ((n >>= 7)); done
  printf %02x "$n"
}
number() { printf %02x $(($1 << 3 | 0)); varint "$2"; } # tag: field number and wire type 0
string() { # tag: field number and wire type 2; then the length in bytes, and the bytes
  local bytes; bytes=$(printf %s "$2" | hex)
  printf %02x $(($1 << 3 | 2)); varint $((${#bytes} / 2)); printf %s "$bytes"
}
send() { # TYPE MESSAGE: the header is plain, length and type, 4 bytes each, the highest first
  local body; body=$(xxd -r -p <<<"$2" | aes -e | hex)
  printf '%08x%08x%s' $((8 + ${#body} / 2)) "$1" "$body" | xxd -r -p >&3
}
receive() { # TCP is a stream: first the header, which says how much belongs to the packet
  local header; header=$(head -c 8 <&3 | hex)
  [ -n "$header" ] || { echo "the server closed the connection" >&2; exit 1; }
  echo "type $((16#${header:8})), $((16#${header:0:8})) bytes:"
  head -c $((16#${header:0:8} - 8)) <&3 | aes -d | xxd
}

exec 3<>"/dev/tcp/$host/$port"
send 1 "$(string 1 "$name")150000803f$(number 3 "$now")" # 15: field 2, wire type 5; then 1.0 as a float, the lowest byte first
receive
send 5 "$(string 1 "$name")$(string 2 "$to")$(string 3 "$text")$(number 4 "$now")"
if [ "$to" = "$name" ]; then receive; fi
send 3 "$(number 1 1)$(number 2 "$now")"
cat <&3 >/dev/null # until the server closes: now it has read everything
