package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/procfs"
)

const (
	uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	id  = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
)

// disk is a line of /proc/diskstats as Linux 3.10 writes it: requests completed, ms they took, in flight, ms busy.
func disk(number, name string, requests, waited, inFlight, busy int) string {
	return fmt.Sprintf(" %s %s %d 0 0 0 %d 0 0 %d %d %d 0\n", strings.Replace(number, ":", " ", 1), name, requests, 0, waited, inFlight, busy)
}

func pressure(avg10, avg60 float64) string {
	return fmt.Sprintf("some avg10=%.2f avg60=%.2f avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n", avg10, avg60)
}

// node has /var/lib/containerd on a disk of its own, and a third one for a batch job.
func node(uptime int, io string, disks ...string) hosttest.Tree {
	tree := hosttest.Tree{
		"proc/uptime":    fmt.Sprintf("%d.00 170000.00\n", uptime),
		"proc/diskstats": strings.Join(disks, ""),
		"proc/1/stat":    "1 (systemd) S 0 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0\n",
		"proc/1/mountinfo": "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n" +
			"28 27 8:16 / /var/lib/containerd rw - xfs /dev/sdb rw\n" +
			"29 27 8:32 / /data rw - ext4 /dev/sdc rw\n",
		"sys/class/block/sda1": "-> ../../devices/pci0/host0/block/sda/sda1",
		"sys/class/block/sdb":  "-> ../../devices/pci0/host1/block/sdb",
	}
	if io != "" {
		tree["proc/pressure/io"] = io
	}
	return tree
}

// disks are the three disks, of which sdb is given.
func disks(sdb string) []string {
	return []string{disk("8:0", "sda", 500, 900, 0, 800), disk("8:1", "sda1", 400, 800, 0, 700), sdb, disk("8:32", "sdc", 900, 900, 0, 900)}
}

func newCheck() *check {
	return &check{percent: 50, busy: 95, wait: 100 * time.Millisecond, slow: 40 * time.Millisecond, dirs: dirs}
}

// minute looks twice, a minute apart.
func minute(t *testing.T, first, second hosttest.Tree) plugin.Verdict {
	t.Helper()
	l := plugintest.Look(t, first.Open(t))
	plugintest.Want(t, newCheck().look(context.Background(), l), plugin.OK)
	l = l.Next()
	l.Host = second.Open(t)
	return newCheck().look(context.Background(), l)
}

func TestStall(t *testing.T) {
	begin := node(5000, pressure(80, 20), disks(disk("8:16", "sdb", 1000, 5000, 0, 9000))...)
	high := pressure(90, 63)
	for name, tt := range map[string]struct {
		io, sdb string
		status  plugin.Status
		words   string
	}{
		"slow":                      {high, disk("8:16", "sdb", 1100, 5000+80000, 4, 9000+59400), plugin.Problem, "disk sdb is too slow: 2 requests a second, 800ms each, busy 99 percent of 1m0s; mount /var/lib/containerd; tasks wait for IO in 63 percent of a minute"},
		"slow when it is asked":     {high, disk("8:16", "sdb", 1100, 5000+40000, 4, 9000+36000), plugin.Problem, "disk sdb is too slow: 2 requests a second, 400ms each, busy 60 percent"},
		"hardly asked":              {high, disk("8:16", "sdb", 1100, 5000+10000, 4, 9000+9000), plugin.OK, "no disk of the runtime or kubelet stalls: sdb: 2 requests a second, 100ms each, busy 15 percent of 1m0s"},
		"busy and fast":             {high, disk("8:16", "sdb", 61000, 5000+120000, 4, 9000+60000), plugin.OK, "sdb: 1000 requests a second, 2ms each, busy 100 percent"},
		"a long queue":              {high, disk("8:16", "sdb", 7000, 5000+2400000, 4, 9000+60000), plugin.Problem, "disk sdb is overloaded: 100 requests a second, 400ms each, busy 100 percent"},
		"a long queue, not always":  {high, disk("8:16", "sdb", 7000, 5000+2400000, 4, 9000+56000), plugin.OK, "busy 93 percent"},
		"the pressure is over":      {pressure(0, 5), disk("8:16", "sdb", 1100, 5000+80000, 4, 9000+59400), plugin.OK, "tasks wait for IO in 5 percent of a minute"},
		"the pressure begins":       {pressure(60, 5), disk("8:16", "sdb", 1100, 5000+80000, 4, 9000+59400), plugin.OK, "no disk of the runtime or kubelet stalls: sdb: 2 requests"},
		"CPUs without a wait":       {pressure(12, 11), disk("8:16", "sdb", 1100, 5000+80000, 4, 9000+59400), plugin.Problem, "disk sdb is too slow"},
		"idle":                      {high, disk("8:16", "sdb", 1000, 5000, 0, 9000), plugin.OK, "no disk of the runtime or kubelet stalls"},
		"another of that name":      {high, disk("8:16", "sdb", 10, 5000, 1, 9000), plugin.OK, "no disk of the runtime or kubelet stalls: sda: 0 requests a second"},
		"no pressure information":   {"", disk("8:16", "sdb", 1100, 5000+80000, 4, 9000+59400), plugin.Problem, "800ms each, busy 99 percent of 1m0s; mount /var/lib/containerd; the kernel has no pressure stall information"},
		"the same, a long queue":    {"", disk("8:16", "sdb", 7000, 5000+2400000, 4, 9000+60000), plugin.Problem, "disk sdb is overloaded"},
		"the same, 82 ms a write":   {"", disk("8:16", "sdb", 1000+732, 5000+60024, 1, 9000+60000), plugin.Problem, "disk sdb is too slow: 12 requests a second, 82ms each, busy 100 percent"},
		"the same, and all is well": {"", disk("8:16", "sdb", 1100, 5000+800, 4, 9000+5940), plugin.OK, "the kernel has no pressure stall information; no disk of the runtime or kubelet stalls: sdb: 2 requests a second, 8ms each, busy 10 percent"},
	} {
		t.Run(name, func(t *testing.T) {
			v := minute(t, begin, node(5060, tt.io, disks(tt.sdb)...))
			plugintest.Want(t, v, tt.status, tt.words)
		})
	}
}

// measured is a row of the table in README.md, of which each was a real disk with a real job.
type measured struct {
	name               string
	rate, mib          float64 // reads and writes and MiB a second
	flushes            float64 // a second
	wait               float64 // ms, of a read or write
	busy, some, daemon float64 // percent
	want               plugin.Status
}

// The rule on what was measured: what stalls the runtime is a Problem, what serves it is OK, however busy.
func TestMeasured(t *testing.T) {
	for _, m := range measurements {
		t.Run(m.name, func(t *testing.T) {
			count := func(perSecond float64) int { return int(perSecond * 60) }
			line := func(reads, flushes, sectors, waited, busy int) string {
				return fmt.Sprintf(" 8 16 sdb 0 0 0 0 %d 0 %d %d 1 %d 0 0 0 0 0 %d 0\n", reads, sectors, waited, busy, flushes)
			}
			with := func(tree hosttest.Tree) hosttest.Tree {
				tree["sys/fs/cgroup/unified/system.slice/containerd.service/io.pressure"] = pressure(m.daemon, m.daemon)
				tree["sys/fs/cgroup/unified/kubepods.slice/crio.service/io.pressure"] = pressure(100, 100)
				return tree
			}
			first := with(node(5000, pressure(m.some, m.some), disks(line(9, 9, 9, 9, 9))...))
			second := with(node(5060, pressure(m.some, m.some), disks(line(9+count(m.rate), 9+count(m.flushes), 9+count(m.mib*2048), 9+count(m.rate*m.wait), 9+int(m.busy*600)))...))
			v := minute(t, first, second)
			plugintest.Want(t, v, m.want, fmt.Sprintf("containerd in %.0f", m.daemon))
		})
	}
}

// A service that waits most of a minute is seen even where the node's busy CPUs hide it.
func TestDaemonWaits(t *testing.T) {
	second := node(5060, pressure(2, 2), disks(disk("8:16", "sdb", 7000, 5000+2400000, 4, 9000+60000))...)
	first := node(5000, pressure(2, 2), disks(disk("8:16", "sdb", 1000, 5000, 0, 9000))...)
	for _, tree := range []hosttest.Tree{first, second} {
		tree["sys/fs/cgroup/runtime.slice/containerd.service/io.pressure"] = pressure(80, 80)
	}
	plugintest.Want(t, minute(t, first, second), plugin.Problem, "disk sdb is overloaded: ", "tasks wait for IO in 2 percent of a minute, containerd in 80")
	second["sys/fs/cgroup/runtime.slice/containerd.service/io.pressure"] = pressure(20, 20)
	plugintest.Want(t, minute(t, first, second), plugin.OK, "tasks wait for IO in 2 percent of a minute, containerd in 20")
}

// The kernel's milliseconds have 32 bits.
func TestNumbersBeginAnew(t *testing.T) {
	const end = 1<<32 - 1
	v := minute(t, node(5000, pressure(80, 20), disks(disk("8:16", "sdb", 1000, end-999, 0, end-999))...),
		node(5060, pressure(90, 63), disks(disk("8:16", "sdb", 1100, 79000, 4, 59000))...))
	plugintest.Want(t, v, plugin.Problem, "disk sdb is too slow: 2 requests a second, 800ms each, busy 100 percent of 1m0s")
}

func TestHung(t *testing.T) {
	for _, busy := range []int{0, 60000} { // Linux 5.0 to 6.5, and others
		first := node(5000, pressure(80, 20), disks(disk("8:16", "sdb", 1000, 5000, 2, 9000))...)
		v := minute(t, first, node(5060, pressure(90, 63), disks(disk("8:16", "sdb", 1000, 5000, 7, 9000+busy))...))
		plugintest.Want(t, v, plugin.Problem, "disk sdb hangs: none of 7 requests was completed in 1m0s; mount /var/lib/containerd")
	}
	// Discards take long and are waited for, but reads and writes do not wait.
	discards := func(done, busy int) string {
		return fmt.Sprintf(" 8 16 sdb 1000 0 0 5000 0 0 0 0 3 %d 0 %d 0 0 5000\n", busy, done)
	}
	v := minute(t, node(5000, pressure(80, 20), disks(discards(0, 9000))...), node(5060, pressure(90, 63), disks(discards(5, 69000))...))
	plugintest.Want(t, v, plugin.OK, "sdb: 0 requests a second, 0s each, busy 100 percent of 1m0s")
}

// A reading that is too old, or none, tells nothing; the next look does.
func TestReadings(t *testing.T) {
	slow := disk("8:16", "sdb", 1100, 85000, 4, 68400)
	first := node(5000, pressure(80, 20), disks(disk("8:16", "sdb", 1000, 5000, 0, 9000))...)
	v := minute(t, first, node(5000+601, pressure(90, 63), disks(slow)...))
	plugintest.Want(t, v, plugin.OK, "tasks wait for IO in 63 percent of a minute; disk load is known at the next run")
	v = minute(t, node(5000, pressure(1, 1)), node(5060, pressure(90, 63), disks(slow)...))
	plugintest.Want(t, v, plugin.OK, "disk load is known at the next run")

	plugintest.WantSuspicion(t, newCheck().look(context.Background(), plugintest.Look(t, first.Open(t))), "tasks wait for IO in 20 percent of a minute")

	// With little pressure nothing else is read.
	plugintest.Want(t, newCheck().look(context.Background(), plugintest.Look(t, hosttest.Tree{"proc/pressure/io": pressure(9, 9)}.Open(t))), plugin.OK, "tasks wait for IO in 9 percent")
}

func TestUnknown(t *testing.T) {
	high := pressure(90, 63)
	some := disk("8:1", "sda1", 1, 1, 1, 1)
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		want string
	}{
		"no /proc":         {hosttest.Tree{}, "mount the host's /proc there"},
		"garbage":          {node(1, "\x00\xff", some), "cannot tell the pressure on IO: "},
		"no diskstats":     {node(1, high), "no disk in it"},
		"no uptime":        {replaced(node(1, high, some), "proc/uptime", "soon"), "the first field is no time"},
		"no mounts":        {replaced(node(1, high, some), "proc/1/mountinfo", ""), "not what proc(5) describes"},
		"ZFS":              {replaced(node(1, high, some), "proc/1/mountinfo", "27 1 0:25 / / rw - zfs rpool/root rw\n"), "no disk with statistics is behind them"},
		"never used":       {node(1, high, disk("8:1", "sda1", 0, 0, 0, 0)), "no disk with statistics is behind them"},
		"no PSI, no disks": {replaced(node(1, "", some), "proc/diskstats", ""), "no disk in it"},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, newCheck().look(context.Background(), plugintest.Look(t, tt.tree.Open(t))), plugin.Unknown, tt.want)
		})
	}
}

func replaced(tree hosttest.Tree, file, content string) hosttest.Tree {
	tree = maps.Clone(tree)
	tree[file] = content
	return tree
}

func TestFindMounts(t *testing.T) {
	const link = "-> ../../devices/virtual/block/"
	for name, tt := range map[string]struct {
		mounts string
		disks  []string // "major:minor name"
		files  hosttest.Tree
		want   []string // "mount point: disks"
	}{
		"a partition": {"27 1 8:1 / / rw - ext4 /dev/root rw\n", []string{"8:0 sda", "8:1 sda1", "8:16 sdb"},
			hosttest.Tree{"sys/class/block/sda1": "-> ../../devices/pci0/block/sda/sda1"}, []string{"/: sda sda1"}},
		"without /sys":       {"27 1 8:1 / / rw - ext4 /dev/root rw\n", []string{"8:0 sda", "8:1 sda1"}, nil, []string{"/: sda1"}},
		"covered and beside": {"27 1 8:1 / / rw - ext4 x rw\n28 27 8:2 / /var rw - ext4 x rw\n29 28 8:3 / /var rw - ext4 x rw\n30 27 8:4 / /var/lib/containerd2 rw - ext4 x rw\n", []string{"8:1 a", "8:2 b", "8:3 c", "8:4 d"}, nil, []string{"/var: c"}},
		"each dir its mount": {"27 1 8:1 / / rw - ext4 x rw\n28 27 8:2 / /var/lib/kubelet rw - ext4 x rw\n29 27 8:3 / /var/lib/kubelet/pods/x/volumes/y rw - ext4 x rw\n", []string{"8:1 a", "8:2 b", "8:3 c"}, nil, []string{"/: a", "/var/lib/kubelet: b"}},
		"LVM on md on disks": {"27 1 253:0 / / rw - xfs /dev/mapper/vg-root rw\n", []string{"8:1 sda1", "8:0 sda", "8:17 sdb1", "8:16 sdb", "9:0 md0", "253:0 dm-0", "253:1 dm-1"}, hosttest.Tree{
			"sys/devices/virtual/block/dm-0/slaves/md0/": "", "sys/devices/virtual/block/md0/slaves/sda1/": "", "sys/devices/virtual/block/md0/slaves/sdb1/": "",
			"sys/class/block/dm-0": link + "dm-0", "sys/class/block/md0": link + "md0",
			"sys/class/block/sda1": "-> ../../devices/pci0/block/sda/sda1", "sys/class/block/sdb1": "-> ../../devices/pci0/block/sdb/sdb1"},
			[]string{"/: sda1 sda sdb1 sdb md0 dm-0"}},
		"btrfs": {"27 1 0:30 /@ / rw - btrfs /dev/sda2 rw\n", []string{"8:2 sda2", "8:18 sdb2", "8:34 sdc2"}, hosttest.Tree{
			"sys/fs/btrfs/0c1/devices/sda2": "", "sys/fs/btrfs/0c1/devices/sdb2": "", "sys/fs/btrfs/0c2/devices/sdc2": "", "sys/fs/btrfs/features/mixed": ""}, []string{"/: sda2 sdb2"}},
		"btrfs on LVM": {"27 1 0:30 / / rw - btrfs /dev/mapper/vg-root rw\n", []string{"253:0 dm-0", "253:1 dm-1"}, hosttest.Tree{
			"sys/class/block/dm-0/dm/name": "vg-swap\n", "sys/class/block/dm-1/dm/name": "vg-root\n"}, []string{"/: dm-1"}},
		"overlay":                     {"27 1 0:40 / / rw - overlay overlay rw,lowerdir=/x,upperdir=/run/live/rw/upper,workdir=/y\n28 27 8:1 / /run/live/rw rw - ext4 /dev/sda1 rw\n", []string{"8:1 sda1"}, nil, []string{"/: sda1"}},
		"overlay on itself":           {"27 1 0:40 / / rw - overlay overlay rw,upperdir=/a\n", []string{"8:1 sda1"}, nil, nil},
		"overlay without upper":       {"27 1 0:40 / / rw - overlay overlay rw\n", []string{"8:1 sda1"}, nil, nil},
		"NVMe with several paths":     {"27 1 259:1 / / rw - ext4 x rw\n", []string{"259:0 nvme0c0n1", "259:2 nvme0c1n1", "259:1 nvme0n1", "259:3 nvme1c0n1"}, nil, []string{"/: nvme0c0n1 nvme0c1n1 nvme0n1"}},
		"tmpfs and NFS beside a disk": {"27 1 0:3 / / rw - tmpfs tmpfs rw\n28 27 0:4 / /var/lib/kubelet rw - nfs4 srv:/k rw\n29 27 8:1 / /var/log rw - ext4 x rw\n", []string{"8:1 sda1"}, nil, []string{"/var/log: sda1"}},
		"loop":                        {"27 1 7:3 / / rw - squashfs /dev/loop3 ro\n", []string{"7:3 loop3"}, nil, []string{"/: loop3"}},
		"none":                        {"27 1 0:3 / / rw - tmpfs tmpfs rw\n", []string{"8:1 sda1"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hosttest.Tree{"proc/1/mountinfo": tt.mounts}
			maps.Copy(tree, tt.files)
			var all []procfs.Disk
			for _, d := range tt.disks {
				var p procfs.Disk
				fmt.Sscanf(d, "%d:%d %s", &p.Major, &p.Minor, &p.Name)
				p.Requests = 1
				all = append(all, p)
			}
			found, err := findMounts(tree.Open(t), strings.Split(dirs, ","), all)
			var got []string
			for _, m := range found {
				names := m.point + ":"
				for _, d := range m.disks {
					names += " " + d.Name
				}
				got = append(got, names)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != (tt.want == nil) {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// stalled are the two looks at the end of which sdb stalls, with more files.
func stalled(t *testing.T, more hosttest.Tree) plugin.Verdict {
	t.Helper()
	first := node(5000, pressure(80, 20), disks(disk("8:16", "sdb", 1000, 5000, 0, 9000))...)
	second := node(5060, pressure(90, 63), disks(disk("8:16", "sdb", 1100, 85000, 4, 68400))...)
	maps.Copy(second, more)
	return minute(t, first, second)
}

func TestWaitersV2(t *testing.T) {
	const base = "sys/fs/cgroup/"
	container := base + "kubepods/burstable/pod" + uid + "/" + id
	tree := hosttest.Tree{
		base + "cgroup.controllers": "io\n", base + "io.pressure": pressure(90, 63),
		base + "kubepods/io.pressure": pressure(90, 60), base + "kubepods/burstable/io.pressure": pressure(90, 60),
		base + "kubepods/burstable/pod" + uid + "/io.pressure": pressure(90, 59), container + "/io.pressure": pressure(90, 58),
		base + "system.slice/io.pressure": pressure(90, 62), base + "system.slice/a%b.service/io.pressure": pressure(90, 31), base + "system.slice/idle.service/io.pressure": pressure(0, 9),
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
	v := stalled(t, tree)
	plugintest.Want(t, v, plugin.Problem, "waits most: pod shop/cart-0, 58 percent")
	if diff := cmp.Diff([]string{"disk sdb is too slow: 2 requests a second, 800ms each, busy 99 percent of 1m0s; mount /var/lib/containerd", "pod shop/cart-0, 58 percent", "cgroup /system.slice/a?b.service, 31 percent"}, v.Details); diff != "" {
		t.Error(diff)
	}
}

func TestWaitersV1(t *testing.T) {
	stat := func(pid int, state byte) string {
		return fmt.Sprintf("%d (mysqld) %c 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0\n", pid, state)
	}
	v := stalled(t, hosttest.Tree{
		"sys/fs/cgroup/blkio/cgroup.procs": "1\n", "proc/100/stat": stat(100, 'D'), "proc/100/cgroup": "4:blkio:/kubepods/pod" + uid + "/" + id + "\n", "proc/101/stat": stat(101, 'S'),
		"proc/102/stat": stat(102, 'D'), "proc/102/task/102/cgroup": "5:freezer:/frozen\n", "sys/fs/cgroup/freezer/frozen/freezer.state": "FROZEN\n",
	})
	plugintest.Want(t, v, plugin.Problem, "waits most: mysqld (pid 100) of pod "+uid+", 1 of 1 blocked task")
	plugintest.Want(t, stalled(t, nil), plugin.Problem, "tasks wait for IO in 63 percent of a minute") // nobody waits now
}

// What four kernels show of their disks. The first directory is on none.
func TestCaptured(t *testing.T) {
	for kernel, point := range map[string]string{"5.10": "/mnt/test/007", "6.1": "/mnt/test/007", "6.12": "/mnt/test/007", "6.18": "/mnt/test/013"} {
		t.Run(kernel, func(t *testing.T) {
			h := hosttest.Open(t, "testdata/"+kernel)
			disks, err := procfs.Disks(h)
			if err != nil || len(disks) < 9 {
				t.Fatalf("%d disks, %v", len(disks), err)
			}
			found, err := findMounts(h, []string{"/proc", point + "/containerd", "/disk"}, disks)
			if err != nil || len(found) != 2 || found[0].point != point || len(found[0].disks) != 1 || found[0].disks[0].Name != "loop4" || found[1].disks[0].Name != "vda" {
				t.Errorf("%+v, %v; want loop4 and vda", found, err)
			}
			l := plugintest.Look(t, h)
			plugintest.Want(t, newCheck().look(context.Background(), l), plugin.OK, "tasks wait for IO in ")
			c := newCheck()
			c.dirs = point
			plugintest.Want(t, c.look(context.Background(), l), plugin.OK)
		})
	}
}
