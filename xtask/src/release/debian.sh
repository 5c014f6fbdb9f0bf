# Installs, starts, upgrades, removes and purges Snug's packages in a bare Debian, whose folder is the argument. There is no service
# manager in it: the helpers of Debian enable and disable the unit, and its command is started here.
root=$1
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
busybox ip link set lo up
for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
wanted=$root/etc/systemd/system/multi-user.target.wants/snug-agent.service

inside bash -c 'dpkg -i /packages/old/*.deb'
[ -L "$wanted" ]
inside snug --version
inside kubectl-snug --version
inside test -s /usr/share/man/man1/snug-recommend.1.gz
inside bash -c '. /usr/share/bash-completion/completions/snug'

# The unit's command, in the bare system and with its own network.
start=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/snug-agent.service")
mkdir -p "$root/var/lib/snug"
# shellcheck disable=SC2086
inside $start 2> "$root/agent.log" &
agent=$!
for _ in $(seq 100); do
    ! inside snug top --once > "$root/top" 2>&1 || break
    sleep 0.2
done
grep -q '^NAMESPACE' "$root/top" || { cat "$root/agent.log" "$root/top"; exit 1; }
kill $agent
wait $agent || [ $? = 143 ]

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
inside dpkg --purge snug-agent snug
[ ! -e "$root/usr/bin/snug" ]
[ ! -e "$root/var/lib/snug" ]
[ -z "$(find "$root/etc" "$root/lib/systemd" "$root/usr/lib" "$root/var/lib/systemd" -name 'snug*')" ]
