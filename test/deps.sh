#!/bin/sh
# Installs the Debian packages that the tests with real faults need, where that
# is possible. Without them those tests are skipped, each with its reason.
packages="containerd runc gcc libc6-dev libseccomp-dev libsystemd-dev pkg-config procps qemu-system-x86 e2fsprogs xfsprogs xz-utils debian-archive-keyring systemd systemd-journal-remote"

missing=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "not root on Debian, going on without:$missing (the tests that need them are skipped)"
	exit 0
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# A package that wants to start its service must not: tests start their own.
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && trap 'rm -f $policy' EXIT; }
apt-get update -qq &&
	apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
	echo "could not install all of:$missing (the tests that need them are skipped)"
