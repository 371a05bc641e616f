#!/bin/sh
# Stands before mongod on the PATH of LibreChat's MongoDB container and starts it as the one node of a replica set, which
# change streams need. Command, image, entrypoint and authentication of the service stay as they are: options are added,
# none is taken away. Where it cannot be a set, mongod runs with its own options alone, and the reason is in the log.
#
#   TAILER_REPLICA_SET   name of the set (rs0); empty: add nothing
#   TAILER_MEMBER_HOST   the name under which LibreChat and the tailer reach this MongoDB (mongodb)
#   TAILER_OPLOG_HOURS   how far the oplog reaches back at least: so long the tailer may be away without a gap (48)
#   TAILER_PATIENCE_SECONDS   how long the set may have no primary, or the shell no answer (60)
set -u

say() { echo "tailer: $*" >&2; }

find_next() {
  own=$(cd "$(dirname "$0")" && pwd)
  rest=$PATH:
  while [ -n "$rest" ]; do
    folder=${rest%%:*}
    rest=${rest#*:}
    if [ "$folder" != "$own" ] && [ -x "$folder/$1" ] && [ ! -d "$folder/$1" ]; then
      echo "$folder/$1"
      return 0
    fi
  done
  return 1
}

mongod=$(find_next mongod) || {
  say "there is no mongod behind $0 on the PATH"
  exit 127
}

# What starts no server, or one that goes to the background while the image makes its first users.
for option in "$@"; do
  case $option in
    --help | -h | --version | --sysinfo | --outputConfig | --fork | --shutdown | --repair) exec "$mongod" "$@" ;;
  esac
done

leave_as_it_is() {
  say "MongoDB runs with its own options alone: $1"
  shift
  exec "$mongod" "$@"
}

set_name=${TAILER_REPLICA_SET-rs0}
hours=${TAILER_OPLOG_HOURS:-48}
patience=${TAILER_PATIENCE_SECONDS:-60}
folder=${TMPDIR:-/tmp}
key=$folder/tailer-replica-set.key
script=$folder/tailer-replica-set.js
answers=$folder/tailer-replica-set.answer

[ -n "$set_name" ] || leave_as_it_is "TAILER_REPLICA_SET is empty" "$@"
options=$("$mongod" "$@" --outputConfig 2>/dev/null) || leave_as_it_is "its options cannot be read (MongoDB before 4.4?)" "$@"
has() { echo "$options" | grep -Eq "^ *($1): *($2) *\$"; }

has 'replSet|replSetName' '.*' && leave_as_it_is "they name a replica set already" "$@"
has 'clusterRole' '.*' && leave_as_it_is "it is a part of a sharded cluster" "$@"
has 'mode' 'requireTLS|requireSSL' && leave_as_it_is "it takes encrypted connections only; make it a set by hand" "$@"
shell=$(command -v mongosh || command -v mongo) || leave_as_it_is "the image has neither mongosh nor mongo" "$@"
"$shell" --version >/dev/null 2>&1 || leave_as_it_is "$shell does not run" "$@"
port=$(echo "$options" | sed -n 's/^ *port: *\([0-9]*\) *$/\1/p')
port=${port:-27017}
member=${TAILER_MEMBER_HOST:-mongodb}:$port

# With authentication the members of a set prove themselves with a key. There is one member, and a new key each time.
secret=
given=$(echo "$options" | sed -n 's/^ *keyFile: *//p')
if [ -n "$given" ]; then
  secret=$(tr -d '[:space:]' <"$given" 2>/dev/null)
elif has 'authorization' 'enabled' && ! has 'clusterAuthMode' '.*'; then
  secret=$(head -c 48 /dev/urandom | base64 | tr -d '\n')
  rm -f "$key"
  (umask 077 && printf '%s\n' "$secret" >"$key") || leave_as_it_is "no key can be written to $folder" "$@"
fi

added="--replSet $set_name --oplogMinRetentionHours $hours"
has 'oplogMinRetentionHours' '.*' && added="--replSet $set_name"
[ -z "$secret" ] || [ -n "$given" ] || added="$added --keyFile $key"
# shellcheck disable=SC2086 # several words on purpose; a name of a set has no blanks
"$mongod" "$@" $added --outputConfig >/dev/null 2>&1 || leave_as_it_is "it does not take $added" "$@"

# One command to the server; its answer as `name value` lines, nothing when there is none.
ask() {
  # Only its owner may read it: it can hold the key.
  rm -f "$script" "$answers"
  (umask 077 && cat >"$script") <<END
var reply, command = $1;
try {
  if ("$2") db.getSiblingDB("local").auth("__system", "$2");
  reply = db.getSiblingDB("admin").runCommand(command);
} catch (error) {
  reply = {ok: 0, code: error.code, errmsg: error.message};
}
["ok", "code", "errmsg", "ismaster"].forEach(function (name) {
  if (reply[name] !== undefined) print("tailer " + name + " " + reply[name]);
});
print("tailer hosts " + (reply.hosts || []).join(" "));
END
  # In the background, so that a signal need not wait for a shell that waits for the server.
  HOME=$folder "$shell" --quiet --norc --host 127.0.0.1 --port "$port" admin "$script" >"$answers" 2>/dev/null </dev/null &
  wait $!
  rm -f "$script"
}
told() { sed -n "s/^tailer $1 //p" "$answers"; }

# Whether the server takes connections: while it recovers its data it does not, for as long as that takes.
listens() { grep -q ":$(printf %04X "$port") 0*:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null; }

wait_for() {
  waited=$((waited + 1))
  [ "$waited" -lt "$patience" ] || verdict="$1 within $patience seconds"
}

# Sets `verdict`: ready, or why there is no set. Empty while the server is not yet as far.
judge() {
  verdict=
  ask '{"isMaster": 1}' ''
  if [ "$(told ismaster)" = true ]; then
    case " $(told hosts) " in
      *" $member "*) verdict=ready ;;
      *) verdict="the set in its data folder calls it $(told hosts), where LibreChat would look for it instead of $member" ;;
    esac
    return
  fi
  if [ "$(told ok)" != 1 ]; then
    ! listens || wait_for "$shell gets no answer from it on 127.0.0.1:$port"
    return
  fi
  ask '{"replSetGetStatus": 1}' "$secret"
  case $(told code) in
    94) initiate ;;
    93 | 10334) verdict="its data folder belongs to a set that is not called $set_name, or in which it has another name than $member" ;;
    13 | 18) verdict="it does not say whether it is a set: $(told errmsg)" ;;
    76) ;; # the server that the image starts to make its first users
    *) wait_for "no primary was elected" ;;
  esac
}

initiate() {
  ask "{\"replSetInitiate\": {\"_id\": \"$set_name\", \"members\": [{\"_id\": 0, \"host\": \"$member\"}]}}" "$secret"
  if [ "$(told ok)" = 1 ]; then
    say "made MongoDB the one node of the replica set $set_name, as $member"
  elif [ "$(told code)" != 23 ]; then
    verdict="it cannot be made a set with the member $member: $(told errmsg)"
  fi
}

# After a crash only a set makes good what its oplog has beyond the last checkpoint.
data=$(echo "$options" | sed -n 's/^ *dbPath: *//p')
crashed=
[ ! -s "${data:-/data/db}/mongod.lock" ] || crashed=1

# shellcheck disable=SC2086 # as above
"$mongod" "$@" $added &
server=$!
stopping=
trap 'stopping=1; kill -TERM "$server" 2>/dev/null' TERM
trap 'stopping=1; kill -INT "$server" 2>/dev/null' INT QUIT
trap 'kill -HUP "$server" 2>/dev/null' HUP
trap 'kill -USR1 "$server" 2>/dev/null' USR1

waited=0
verdict=
while [ -z "$stopping$verdict" ] && kill -0 "$server" 2>/dev/null; do
  judge
  [ -n "$verdict" ] || { sleep 1 & wait $!; }
done
rm -f "$answers"

# A signal ends a wait early: what counts is the server's own end.
await_server() {
  code=0
  while kill -0 "$server" 2>/dev/null; do
    wait "$server"
    code=$?
  done
  wait "$server" 2>/dev/null
  last=$?
  [ "$last" -eq 127 ] || code=$last
}

if [ "$verdict" = ready ]; then
  say "MongoDB is the primary of the replica set $set_name"
elif [ -n "$verdict" ]; then
  kill -TERM "$server" 2>/dev/null
fi
await_server
if [ -z "$stopping$verdict" ] && [ -n "$crashed" ]; then
  say "MongoDB was not stopped in order before and ended with code $code: it is not started without its set"
elif [ -z "$stopping" ] && [ "$verdict" != ready ]; then
  leave_as_it_is "${verdict:-with $added it ended with code $code}. \
Remedy: deploy/compose/README.md of the tailer, When MongoDB cannot be a set" "$@"
fi
exit "$code"
