#!/bin/bash
# Runs the blocks of a page as a person would, on a host of its own: an overlay of this one's files, with own network interfaces.
# Arguments: folder of the fixtures, folder of the repository, folders with the programs snug and snug-agent, with prometheus
# and with victoria-metrics.
set -eu
fixtures=$1 repository=$2 programs=$3 prometheus=$4 victoria_metrics=$5
mount --make-rprivate /
mount -t tmpfs snug-pages "$fixtures/host"
cd "$fixtures/host"
mkdir root upper work repository repository-work
mount -t overlay overlay -o "lowerdir=/,upperdir=upper,workdir=work" root
mkdir -p "root$repository"
mount -t overlay overlay -o "lowerdir=$repository,upperdir=repository,workdir=repository-work" "root$repository"
for folder in proc sys dev; do mount --rbind "/$folder" "root/$folder"; done
busybox ip link set lo up

# What `cargo xtask build` makes.
built=root$repository/target/x86_64-unknown-linux-gnu/release
mkdir -p "$built"
for program in snug snug-agent; do
    touch "$built/$program"
    mount --bind "$programs/$program" "$built/$program"
done
mkdir -p root/opt/pages root/etc/snug
# What `cargo xtask release` makes.
archive=snug-$("$programs/snug" --version | cut -d' ' -f2)-x86_64-linux
mkdir "root/opt/pages/$archive"
cp "$repository/deploy/systemd/snug-agent.service" "root/opt/pages/$archive"
for program in snug snug-agent; do ln -s "$repository/target/x86_64-unknown-linux-gnu/release/$program" "root/opt/pages/$archive"; done
tar -C root/opt/pages -czf "root$repository/$archive.tar.gz" "$archive"
(cd "root$repository"; sha256sum "$archive.tar.gz" > SHA256SUMS)
cp "$fixtures/pods.json" root/etc/snug/pods.json
echo 'pods-file = "/etc/snug/pods.json"' > root/etc/snug/agent.toml

# Building again would take minutes. The task and its options must exist.
cat > root/opt/pages/cargo <<END
#!/bin/bash
set -eu
[ "\$1" = xtask ]
exec "$programs/xtask" "\${@:2}" --help > /dev/null
END
# There is no service manager: units are enabled by the real command, and what they start is started here.
cat > root/opt/pages/systemctl <<'END'
#!/bin/bash
set -eu
[ "$2" = --now ]
SYSTEMD_LOG_LEVEL=err /usr/bin/systemctl "$1" "$3" > /dev/null
case $1 in
enable)
    mkdir -p /var/lib/snug
    $(sed -n 's/^ExecStart=//p' "/etc/systemd/system/$3.service") 2> /opt/pages/agent.log &
    echo $! > /opt/pages/agent.pid
    for _ in $(seq 100); do
        ! curl -sf localhost:9750/readyz > /dev/null || exit 0
        sleep 0.2
    done
    cat /opt/pages/agent.log >&2
    exit 1
    ;;
disable)
    kill "$(cat /opt/pages/agent.pid)"
    ;;
esac
END
# An agent in a terminal ends when somebody presses Ctrl-C. The port is that of the unit's.
cat > root/opt/pages/snug-agent <<'END'
#!/bin/bash
SNUG_LISTEN=off timeout --foreground --signal INT 10 /usr/local/bin/snug-agent "$@" || [ $? = 124 ]
END
echo 127.0.0.1 collector.monitoring >> root/etc/hosts
chmod 755 root/opt/pages/{cargo,systemctl,snug-agent}

"$prometheus/prometheus" --config.file="$fixtures/prometheus.yml" --storage.tsdb.path="$fixtures/data" \
    --web.listen-address=127.0.0.1:9090 --storage.tsdb.retention.time=60d > "$fixtures/prometheus.log" 2>&1 &
for _ in $(seq 100); do
    ! curl -sf localhost:9090/-/ready > /dev/null || break
    sleep 0.2
done

# Exit code 3: there is not enough usage history yet, which is there after a minute.
run() {
    local deadline=$((SECONDS + 75)) code
    while :; do
        code=0
        # --foreground: in the group of processes that the test ends, and not in one of its own.
        timeout --foreground 60 chroot root /usr/bin/env -i HOME=/root PATH="/opt/pages:/usr/local/bin:/usr/bin:/usr/sbin:/bin:$prometheus:$victoria_metrics" \
            /bin/bash -eu -o pipefail -c "cd $repository; . $1" 2>&1 < /dev/null || code=$?
        [ $code = 3 ] && [ $SECONDS -lt $deadline ] || return $code
        sleep 2
    done
}
for block in "$fixtures"/blocks/*; do
    cp "$block" root/opt/pages/block
    echo "@@ $(basename "$block")"
    started=$(date +%s%N)
    run /opt/pages/block || { echo "@@ failed with $?"; exit 1; }
    echo "@@ took $((($(date +%s%N) - started) / 1000000)) ms"
done
echo "@@ done"
