# Follows the page from the archive to the first table, then installs, starts, upgrades, removes and purges the packages, in a bare
# Debian, whose folder is the first argument. There is no service manager in it: the helpers of Debian enable and disable the unit,
# and its command is started here. The second argument is the name of the cgroup of a service that runs meanwhile.
root=$1
hierarchies=$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2\? .*/\1/p' /proc/self/mounts)
cgroup=$2
service=$cgroup/demo.service
finish() {
    kill $(jobs -p) 2> /dev/null || true
    wait
    for hierarchy in $hierarchies; do rmdir "$hierarchy/$service" "$hierarchy/$cgroup" 2> /dev/null || true; done
}
trap finish EXIT
busybox ip link set lo up
for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
chroot=(chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8)
inside() { "${chroot[@]}" "$@"; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# Runs the command of a unit, with a network of its own.
start_agent() {
    mkdir -p "$root/var/lib/snug"
    # Not by the function, whose shell alone would be ended.
    # shellcheck disable=SC2046
    "${chroot[@]}" $(sed -n 's/^ExecStart=//p' "$1") 2> "$root/agent.log" &
    agent=$!
}
stop_agent() {
    kill $agent
    wait $agent || [ $? = 143 ]
}
# Until a command prints a table with this heading, for so many seconds.
table() {
    local heading=$1 deadline=$(($(milliseconds) + $2 * 1000))
    shift 2
    until inside "$@" > "$root/table" 2>&1 && grep -q "$heading" "$root/table"; do
        [ "$(milliseconds)" -lt $deadline ] || { cat "$root/agent.log" "$root/table"; exit 1; }
        sleep 0.2
    done
}

for hierarchy in $hierarchies; do mkdir -p "$hierarchy/$service"; done
(
    for hierarchy in $hierarchies; do echo "$BASHPID" > "$hierarchy/$service/cgroup.procs" || true; done 2> /dev/null
    while :; do sleep 0.05; done
) &

# From the archive, by the commands of the page.
began=$(milliseconds)
inside bash -eu -o pipefail -c 'cd /archive; . /from-archive'
start_agent "$(ls "$root"/archive/snug-*/snug-agent.service)"
table ^NAMESPACE 20 snug top --once
echo "check: from the archive to the first table of snug top: $(($(milliseconds) - began)) ms"
table demo.service 90 snug recommend
echo "check: from the archive to the first table of snug recommend: $(($(milliseconds) - began)) ms"
stop_agent
rm -r "$root"/usr/local/bin/snug* "$root/var/lib/snug"

# By the command of the page.
inside bash -eu -c 'cd /packages/old; . /from-packages'
wanted=$root/etc/systemd/system/multi-user.target.wants/snug-agent.service
[ -L "$wanted" ]
inside snug --version
inside kubectl-snug --version
for page in man1/snug-recommend.1 man1/kubectl-snug.1 man8/snug-agent.8; do inside test -s /usr/share/man/$page.gz; done
inside bash -c '. /usr/share/bash-completion/completions/snug'
start_agent "$root/usr/lib/systemd/system/snug-agent.service"
table ^NAMESPACE 20 snug top --once
stop_agent

# An upgrade keeps what the user has chosen, and the history.
rm "$wanted"   # as systemctl disable does
inside bash -c 'dpkg -i /packages/new/*.deb'
[ "$(inside dpkg-query --show --showformat '${Version}' snug-agent)" = "$(ls "$root/packages/new" | sed -n 's/^snug-agent_\(.*\)_.*$/\1/p')" ]
[ ! -L "$wanted" ]
[ -n "$(ls "$root/var/lib/snug")" ]

# The history goes with purge only.
inside dpkg --remove snug-agent
[ ! -e "$root/usr/bin/snug-agent" ]
[ -e "$root/var/lib/snug" ]
inside apt purge --yes snug snug-agent
[ ! -e "$root/usr/bin/snug" ]
[ ! -e "$root/var/lib/snug" ]
[ -z "$(find "$root/etc" "$root/usr/lib" "$root/var/lib/systemd" -name 'snug*')" ]
