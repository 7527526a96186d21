# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# Sourced by the runners of suites: after the tests nothing may be left, neither of the workspaces nor of the daemons.
# Needs EW_STATE_DIR, EW_CGROUP_PARENT, EW_TEST_BIN, EW_TEST_KEY, suite; counts into passed and failed.

names() {
    find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort
}

# Before the suite starts: what is there already is nobody's leak.
leaks_begin() {
    kept_namespaces=$(names /var/run/netns)
    kept_veths=$(names /sys/class/net)
}

check() { # sentence, what was found
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok     leak: no $1"
    else
        failed=$((failed + 1))
        echo "FAILED leak: $1: $2"
    fi
}

new_since() { # before, now
    printf '%s\n' "$2" | while read -r name; do
        case "
$1
" in *"
$name
"*) ;; *) printf '%s ' "$name" ;; esac
    done
}

processes_of_sandboxes() {
    for dir in /proc/[0-9]*; do
        # The redirection itself fails for a process that is gone by now.
        case "$({ tr '\0' ' ' < "$dir/cmdline"; } 2>/dev/null)" in
        *runsc*"$EW_STATE_DIR"*) echo "${dir#/proc/}" ;;
        esac
    done
}

# Of names on the host those of this suite: other suites may stand beside it. A daemon's tag is in the name of its group.
of_this_suite() { # names
    tags=$(find /sys/fs/cgroup -mindepth 2 -maxdepth 3 -type d -path "*/$EW_CGROUP_PARENT*/gvisord-*" 2>/dev/null | sed 's/.*gvisord-//' | sort -u)
    [ -n "$tags" ] || printf '%s' "$1" # nobody can tell whose they are
    for name in $1; do
        for tag in $tags; do
            case $name in ew"$tag".* | ew-"$tag"-*) printf '%s ' "$name" ;; esac
        done
    done
}

leaks_end() {
    check "workspace" "$("$EW_TEST_BIN/emergent" workspace list --quiet | tr '\n' ' ')"
    check "sandbox directory" "$(names "$EW_STATE_DIR/gvisord/sandboxes" | tr '\n' ' ')"
    check "snapshot directory" "$(names "$EW_STATE_DIR/gvisord/snapshots" | tr '\n' ' ')"
    down_text=$("${suite:?}" down 2>&1)
    check "daemon that does not stop" "$(printf '%s' "$down_text" | grep 'did not stop' | tr '\n' ' ')"
    check "daemon" "$("$suite" status 2>/dev/null | grep ' runs' | tr '\n' ' ')"

    # From here on nothing starts any more: a running daemon may be trying out sandboxes of its own at any moment. Daemons
    # that stop leave sandboxes alive, so what a test has leaked is still there.
    deadline=$(($(date +%s) + 20))
    while [ -n "$(processes_of_sandboxes)" ] && [ "$(date +%s)" -lt "$deadline" ]; do
        sleep 0.2
    done
    check "sandbox process" "$(processes_of_sandboxes | tr '\n' ' ')"
    check "mount of a sandbox" "$(awk -v dir="$EW_STATE_DIR/" 'index($2, dir "gvisord/") == 1 { print $2 }' /proc/self/mounts | tr '\n' ' ')"
    check "loop device" "$(losetup --list --noheadings --output BACK-FILE 2>/dev/null | grep -F "$EW_STATE_DIR/gvisord/" | tr '\n' ' ')"
    check "cgroup of a sandbox" "$(find /sys/fs/cgroup -mindepth 2 -type d -path "*/$EW_CGROUP_PARENT/*" -name '????????-????-*' 2>/dev/null | head -n 3 | tr '\n' ' ')"
    check "network namespace" "$(of_this_suite "$(new_since "$kept_namespaces" "$(names /var/run/netns)")")"
    check "network interface" "$(of_this_suite "$(new_since "$kept_veths" "$(names /sys/class/net)")")"
    check "error of a sanitizer in a log" "$(grep -lE 'ERROR: (Address|Leak)Sanitizer|runtime error:' "$EW_STATE_DIR"/log/*.log 2>/dev/null | tr '\n' ' ')"
    check "secret in a log" "$(grep -lF "$EW_TEST_KEY" "$EW_STATE_DIR"/log/*.log 2>/dev/null | tr '\n' ' ')"
    # The empty groups of the daemons themselves.
    find /sys/fs/cgroup -depth -type d \( -path "*/$EW_CGROUP_PARENT" -o -path "*/$EW_CGROUP_PARENT/*" \) -exec rmdir {} \; 2>/dev/null
}

# The last lines of a runner: the state directory goes when all is well.
leaks_result() {
    if [ "$failed" -gt 0 ] || [ "${EW_TEST_KEEP:-0}" = 1 ]; then
        echo "state and logs: $EW_STATE_DIR"
    elif ! grep -q " $EW_STATE_DIR/" /proc/self/mounts; then
        rm -rf --one-file-system "$EW_STATE_DIR"
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
