#!/bin/bash
# user-session.sh [-u UID] [-k] [-p PATH]... COMMAND [ARG...]
#
# Runs COMMAND with a live, private `systemd --user` manager (plus a private
# journald and a socket-activated D-Bus user bus), then takes everything down.
# For machines whose PID 1 is not systemd. Needs root, a writable cgroup v2
# tree, and the packages systemd, util-linux, findutils (and, for the bus, dbus
# and dbus-user-session).
#
#   -u UID   run the manager and COMMAND as this user id (default: the caller's).
#            A real user manager is not root: use e.g. -u 1000 to see how
#            sandboxing directives, file modes and SO_PEERCRED really behave.
#   -k       keep the caller's HOME (default: a fresh, empty, private HOME, outside
#            /tmp so that PrivateTmp= does not hide it from a service)
#   -p PATH  keep PATH reachable for UID although a folder above it is closed to
#            others (a Python in a closed home, say); only as deep as needed, only in
#            here. $PYENV_ROOT is kept without being named.
#
# Exit status: COMMAND's own; 77 = this machine cannot do it (reason on stderr);
# 70 = the manager did not come up (its log on stderr); 64 = usage.
# Where COMMAND is ended by signal N: 128+N.
#
# How: one new cgroup + `unshare` of mount, PID, cgroup and IPC namespaces. The
# manager sees cgroup2 at /sys/fs/cgroup, an empty /run with
# /run/systemd/system (sd_booted() looks for that folder) and a private
# XDG_RUNTIME_DIR. `systemctl --user` talks to
# $XDG_RUNTIME_DIR/systemd/private, so it needs no D-Bus. The cgroup path is
# the one of a real login (user.slice/user-UID.slice/user@UID.service), from
# which journald takes _SYSTEMD_USER_UNIT: `journalctl --user -u X` works for a
# UID of 1000 and up, `journalctl --user-unit X` for root.
# What is not in here: logind, a system manager, the network-online and sleep
# targets, and (where cgroup v1 holds the controllers) MemoryMax=/TasksMax=.
# Only processes of the new PID namespace are ever ended: the kernel ends them
# when the namespace's first process is gone.
set -u

die() { echo "user-session: $1" >&2; exit "$2"; }
usage="usage: user-session.sh [-u UID] [-k] [-p PATH]... COMMAND [ARG...]"

if [ "${SDUS_STAGE:-}" != inner ]; then
    uid=$(id -u) keep='' paths=${PYENV_ROOT:-}
    while getopts u:kp: o; do
        case $o in
            u) uid=$OPTARG ;;
            k) keep=1 ;;
            p) paths+="${paths:+:}$(readlink -f -- "$OPTARG")" ;;
            *) die "$usage" 64 ;;
        esac
    done
    shift $((OPTIND - 1))
    [ $# -gt 0 ] || die "$usage" 64
    case $uid in '' | *[!0-9]*) die "-u takes a number" 64 ;; esac
    mgr=
    for d in /usr/lib/systemd /lib/systemd; do [ -x $d/systemd ] && mgr=$d && break; done
    [ -n "$mgr" ] || die "no systemd binary (package systemd)" 77
    [ "$(id -u)" = 0 ] || die "needs root" 77
    if [ "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)" = cgroup2fs ]; then
        base=/sys/fs/cgroup
    elif [ "$(stat -fc %T /sys/fs/cgroup/unified 2>/dev/null)" = cgroup2fs ]; then
        base=/sys/fs/cgroup/unified
    else
        die "no cgroup v2 tree is mounted" 77
    fi
    own=$(sed -n 's/^0:://p' /proc/self/cgroup)
    for old in "$base${own%/}"/sdus-*; do       # of a run that was SIGKILLed
        [ -d "$old" ] && [ ! -d "/proc/${old##*-}" ] &&
            find "$old" -depth -type d -exec rmdir {} \; 2>/dev/null &&
            rm -rf -- "/tmp/sdus.${old##*-}".??????
    done
    cg=$base${own%/}/sdus-$$
    mkdir "$cg" 2>/dev/null || die "the cgroup v2 tree is not writable ($cg)" 77
    tmp=$(mktemp -d "/tmp/sdus.$$.XXXXXX") || { rmdir "$cg"; die "no temporary folder" 77; }
    child=
    finish() {
        if [ -n "$child" ]; then                # unshare; --kill-child does the rest
            kill -KILL "$child" 2>/dev/null; wait "$child" 2>/dev/null
        fi
        for _ in $(seq 50); do                  # leaf cgroups first
            find "$cg" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ -d "$cg" ] || break
            sleep 0.05
        done
        [ -d "$cg" ] && echo "user-session: left behind: $cg" >&2
        rm -rf -- "$tmp"
    }
    trap finish EXIT
    trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP
    # run in "&" so that the traps act at once; <&0 keeps COMMAND's stdin
    ( echo "$BASHPID" > "$cg/cgroup.procs" || exit 77
      exec env SDUS_STAGE=inner SDUS_UID="$uid" SDUS_KEEP="$keep" SDUS_TMP="$tmp" \
        SDUS_DIR="$mgr" SDUS_PATHS="$paths" \
        setpriv --pdeathsig KILL \
        unshare --mount --pid --cgroup --ipc --fork --kill-child=KILL \
        /bin/bash "$0" "$@" ) <&0 &
    child=$!
    wait "$child"; rc=$?
    child=
    exit "$rc"
fi

# ---- inside the namespaces: this shell is PID 1 of the PID namespace ----
uid=$SDUS_UID keep=$SDUS_KEEP tmp=$SDUS_TMP sd=$SDUS_DIR paths=$SDUS_PATHS
unset SDUS_STAGE SDUS_UID SDUS_KEEP SDUS_TMP SDUS_DIR SDUS_PATHS
unset DBUS_SESSION_BUS_ADDRESS DBUS_SYSTEM_BUS_ADDRESS NOTIFY_SOCKET LISTEN_FDS LISTEN_PID \
    LISTEN_FDNAMES INVOCATION_ID JOURNAL_STREAM WATCHDOG_USEC WATCHDOG_PID MANAGERPID \
    XDG_CONFIG_HOME XDG_CACHE_HOME XDG_DATA_HOME XDG_STATE_HOME CREDENTIALS_DIRECTORY
mount --make-rprivate / || die "mount --make-rprivate: not permitted" 77
mount -t proc proc /proc || die "mount proc: not permitted" 77
mount -t cgroup2 cgroup2 /sys/fs/cgroup || die "mount cgroup2: not permitted" 77
mount -t tmpfs -o mode=755 tmpfs /run || die "mount tmpfs: not permitted" 77
# unit-root (before v254), mount-rootfs: where the manager puts together a
# sandboxed service's mounts
mkdir -p /run/systemd/{system,unit-root,mount-rootfs,journal,journald.conf.d} /run/user /run/lock

if id -nu "$uid" >/dev/null 2>&1; then gid=$(id -g "$uid"); else
    gid=$uid                              # give the number a name, only in here
    { cat /etc/passwd; echo "sdus:x:$uid:$gid::/run/home/$uid:/bin/bash"; } > "$tmp/passwd"
    { cat /etc/group; echo "sdus:x:$gid:"; } > "$tmp/group"
    mount --bind "$tmp/passwd" /etc/passwd && mount --bind "$tmp/group" /etc/group
fi
priv=()
[ "$uid" = "$(id -u)" ] ||
    priv=(setpriv --reuid "$uid" --regid "$gid" --init-groups --inh-caps=-all)
as_user() { "${priv[@]}" "$@"; }
# lay a thin open folder over each closed one that stands above a kept path
IFS=: read -ra keepers <<<"$paths"
kept=()
for p in "${keepers[@]}"; do              # first take them aside ...
    if [ ! -e "$p" ] || as_user test -x "$p" -a -r "$p"; then continue; fi
    was=$tmp/was.${#kept[@]}
    if [ -d "$p" ]; then mkdir "$was"; else : > "$was"; fi
    mount --bind "$p" "$was" && kept+=("$p")
done
for i in "${!kept[@]}"; do                # ... then put them where they were
    p=${kept[i]} closed=
    up=$p
    while up=${up%/*}; [ -n "$up" ]; do
        if [ -d "$up" ] && ! as_user test -x "$up"; then closed=$up; fi
    done
    [ -n "$closed" ] && mount -t tmpfs -o mode=755 tmpfs "$closed"
    if [ -d "$tmp/was.$i" ]; then mkdir -p "$p"; else mkdir -p "${p%/*}"; : > "$p"; fi
    mount --move "$tmp/was.$i" "$p"
done

XDG_RUNTIME_DIR=/run/user/$uid
mkdir -m 700 "$XDG_RUNTIME_DIR"
if [ -z "$keep" ]; then
    HOME=/run/home/$uid; mkdir -p "$HOME"; chmod 700 "$HOME"; chown "$uid:$gid" "$HOME"
fi
: > "$tmp/manager.log"
chown "$uid:$gid" "$XDG_RUNTIME_DIR" "$tmp/manager.log"
export XDG_RUNTIME_DIR HOME DBUS_SESSION_BUS_ADDRESS=unix:path=$XDG_RUNTIME_DIR/bus SYSTEMD_PAGER=cat
USER=$(id -nu "$uid"); export USER LOGNAME=$USER

# the cgroups of a login: the manager's part is delegated, as user@.service does
ucg=/sys/fs/cgroup/user.slice/user-$uid.slice/user@$uid.service
jcg=/sys/fs/cgroup/system.slice/systemd-journald.service
mkdir -p "$ucg/command.scope" "$jcg"
chown -R "$uid:$gid" "$ucg"
in_cgroup() { local g=$1; shift; ( echo "$BASHPID" > "$g/cgroup.procs"; exec "$@" ) }

if [ -s /etc/machine-id ] && [ -x "$sd/systemd-journald" ]; then
    # "persistent" on a private tmpfs: only then are there per-user journals
    if [ -d /var/log/journal ]; then mount -t tmpfs -o mode=755 tmpfs /var/log/journal
    else mount -t tmpfs -o mode=755 tmpfs /var/log && mkdir /var/log/journal; fi
    printf '[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\nRateLimitBurst=0\n' \
        > /run/systemd/journald.conf.d/sdus.conf
    : > /run/systemd/journal/flushed          # write there from the start
    SYSTEMD_LOG_TARGET=null in_cgroup "$jcg" "$sd/systemd-journald" >/dev/null 2>&1 </dev/null &
    for _ in $(seq 100); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.02; done
fi
logto=console; [ -S /run/systemd/journal/socket ] && logto=journal

in_cgroup "$ucg" "${priv[@]}" env SYSTEMD_LOG_TARGET=$logto "$sd/systemd" --user \
    >"$tmp/manager.log" 2>&1 </dev/null &
manager=$!
for _ in $(seq 200); do
    [ -S "$XDG_RUNTIME_DIR/systemd/private" ] && break
    kill -0 "$manager" 2>/dev/null || break
    sleep 0.05
done
state=$(as_user timeout 20 systemctl --user is-system-running --wait 2>&1)
case $state in running | degraded) ;; *)
    echo "user-session: the manager did not come up ($state); its log:" >&2
    cat "$tmp/manager.log" >&2
    journalctl -q --no-pager -o cat >&2
    exit 70 ;;
esac
in_cgroup "$ucg/command.scope" "${priv[@]}" "$@"
rc=$?
as_user timeout 15 systemctl --user exit >/dev/null 2>&1
for _ in $(seq 200); do kill -0 "$manager" 2>/dev/null || break; sleep 0.05; done
exit "$rc"
