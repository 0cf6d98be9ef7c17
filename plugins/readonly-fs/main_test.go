package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/procfs"
)

func TestMain(m *testing.M) {
	apart.Serve()
	os.Exit(m.Run())
}

const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"

const root = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"

// volume is a mount of a volume in kubelet's directory of the pod.
func volume(plugin, name string) string {
	return "/var/lib/kubelet/pods/" + uid + "/volumes/" + plugin + "/" + name
}

func lookAt(t testing.TB, tree hosttest.Tree) plugin.Verdict {
	t.Helper()
	return look(context.Background(), plugintest.Look(t, tree.Open(t)))
}

func TestMountinfo(t *testing.T) {
	csi := "/var/lib/kubelet/plugins/kubernetes.io/csi/ebs.csi.aws.com/" + strings.Repeat("3f", 32) + "/globalmount"
	pod := volume("kubernetes.io~csi", "pvc-7c2f5f0e-1f43-4b2f-a9a2-0d9a3f1c7e55/mount")
	tests := []struct {
		name, mounts string
		status       plugin.Status
		words        []string
	}{
		{"healthy", root, plugin.OK, []string{"none of 1 file systems"}},
		{"no disk at all", "1 1 0:2 / / rw - rootfs rootfs rw\n", plugin.OK, []string{"none of 0 file systems"}},
		{"turned", root + "28 27 8:16 / /var/lib/containerd rw,relatime - ext4 /dev/sdb ro,errors=remount-ro\n", plugin.Problem,
			[]string{"ext4 on /dev/sdb turned read-only: mounted at /var/lib/containerd"}},
		{"two turned", "27 1 254:0 / / rw - ext4 /dev/vda ro\n28 27 8:16 / /data rw - f2fs /dev/sdb ro\n", plugin.Problem,
			[]string{"ext4 on /dev/vda turned read-only: mounted at /; and 1 more: /dev/sdb"}},
		{"emergency_ro of Linux 6.18", root + "28 27 8:16 / /data rw - ext4 /dev/sdb rw,errors=remount-ro,emergency_ro\n", plugin.Problem, []string{"/dev/sdb"}},
		{"shutdown of Linux 6.18", root + "28 27 8:16 / /data rw - ext4 /dev/sdb rw,shutdown\n", plugin.Problem, []string{"/dev/sdb"}},
		{"aborted by hand on Linux 6.1", root + "28 27 8:16 / /data rw - ext4 /dev/sdb rw,abort\n", plugin.Problem, []string{"/dev/sdb"}},
		{"btrfs, which has no device number", "27 1 0:29 /@ / rw,relatime - btrfs /dev/vda2 ro,subvol=/@\n", plugin.Problem, []string{"btrfs on /dev/vda2"}},
		{"the file system of EFI", root + "28 27 8:1 / /boot/efi rw - vfat /dev/sda1 ro,errors=remount-ro\n", plugin.Problem, []string{"/boot/efi"}},
		{"a volume", root + "28 27 8:16 / " + csi + " rw - ext4 /dev/sdb ro\n29 27 8:16 / " + pod + " rw - ext4 /dev/sdb ro\n", plugin.Problem,
			[]string{"ext4 on /dev/sdb turned read-only: volume pvc-7c2f5f0e-1f43-4b2f-a9a2-0d9a3f1c7e55 of pod shop/db-0, mounted at " + pod}},
		{"bind mounts are told once", "27 1 254:0 / / rw - ext4 /dev/vda ro\n28 27 254:0 /srv /export rw - ext4 /dev/vda ro\n29 27 254:0 /srv /export2 ro - ext4 /dev/vda ro\n", plugin.Problem,
			[]string{"ext4 on /dev/vda turned read-only: mounted at /"}},
		{"btrfs, whose root is a snapshot mounted read-only", "27 1 0:29 /@/.snapshots/1/snapshot / ro - btrfs /dev/vda2 ro\n28 27 0:29 /@/var /var rw - btrfs /dev/vda2 ro\n", plugin.Problem, []string{"mounted at /var"}},
		{"a name that others chose", root + `28 27 8:16 / /data/a\040%s\012b\134\033[2J rw - ext4 /dev/sd%d\011 ro` + "\n", plugin.Problem, []string{`/data/a ?s b\?[2J`, "/dev/sd?d "}},

		{"mounted read-only", root + "28 27 8:16 / /data ro,relatime - ext4 /dev/sdb ro\n", plugin.OK, nil},
		{"remounted read-only by hand", "27 1 254:0 / / ro,relatime - ext4 /dev/vda ro\n", plugin.OK, nil},
		{"a bind mount made read-only", root + "28 27 254:0 /srv /export ro - ext4 /dev/vda rw\n", plugin.OK, nil},
		{"a volume that is mounted read-only, and read-write again for the pod", root + "28 27 8:16 / " + csi + " ro - ext4 /dev/sdb ro\n29 27 8:16 / " + pod + " rw - ext4 /dev/sdb ro\n", plugin.OK, nil},
		{"a directory of it", root + "28 27 8:16 / " + csi + " ro - ext4 /dev/sdb ro\n29 27 8:16 /sub/dir " + pod + " rw - ext4 /dev/sdb ro\n", plugin.OK, nil},
		{"a volume of kubelet's that is read-only", root + "28 27 8:16 / " + csi + " rw - ext4 /dev/sdb rw\n29 27 8:16 / " + pod + " ro - ext4 /dev/sdb rw\n", plugin.OK, nil},
		{"a read-only snapshot of btrfs", "27 1 0:29 / / rw - btrfs /dev/vda2 rw\n28 27 0:29 /snapshot /snapshot ro - btrfs /dev/vda2 rw\n", plugin.OK, nil},
		{"a CD", root + "28 27 11:0 / /mnt rw,relatime - iso9660 /dev/sr0 ro,nojoliet,check=s\n", plugin.OK, nil},
		{"squashfs", root + "28 27 7:1 / /snap/core rw,nodev,relatime - squashfs /dev/loop1 ro,errors=continue\n", plugin.OK, nil},
		{"erofs", root + "28 27 7:2 / /usr rw,relatime - erofs /dev/loop2 ro,user_xattr\n", plugin.OK, nil},
		{"overlay", root + "28 27 0:50 / /run/merged rw - overlay overlay ro,lowerdir=/a:/b\n", plugin.OK, nil},
		{"no disk", root + "28 27 0:51 / /run/secrets rw - tmpfs tmpfs ro\n29 27 0:52 / /nfs rw - nfs4 10.0.0.1:/x ro\n30 27 0:53 / /fuse rw - fuse.x /dev/fuse ro\n", plugin.OK, nil},
		{"an option that only looks so", root + "28 27 8:16 / /data rw - ext4 /dev/sdb rw,errors=remount-ro,prjquota\n29 27 8:17 / /x rw - xfs /dev/sdc rw,norecovery\n", plugin.OK, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plugintest.Want(t, lookAt(t, hosttest.Tree{"proc/1/mountinfo": tt.mounts, "var/log/pods/shop_db-0_" + uid + "/": ""}), tt.status, tt.words...)
		})
	}
}

// After an error of an ext4 mounted with errors=remount-ro. Linux 5.10 shows it in mountinfo, as older ones do, and 6.18 in its own
// way; 6.1 and 6.12 show it nowhere but in the count of errors. The files of 3.10 and 4.15 are written, the others are of that kernel, but for the mount point.
func TestKernels(t *testing.T) {
	for _, kernel := range []string{"3.10", "4.15", "5.10", "6.1", "6.12", "6.18"} {
		t.Run(kernel, func(t *testing.T) {
			mounts, err := os.ReadFile("testdata/" + kernel + ".mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			tree := hosttest.Tree{"proc/1/mountinfo": string(mounts)}
			if kernel == "6.1" || kernel == "6.12" {
				maps.Copy(tree, ext4Tree(1))
			}
			plugintest.Want(t, lookAt(t, tree), plugin.Problem, "turned read-only: mounted at /var/lib/containerd")
			tree["proc/1/mountinfo"] = strings.NewReplacer(" ro,errors", " rw,errors", ",emergency_ro", "").Replace(string(mounts))
			maps.Copy(tree, ext4Tree(0))
			plugintest.Want(t, lookAt(t, tree), plugin.OK)
		})
	}
}

// ext4Tree has an ext4 on loop0 that was mounted an hour ago with errors=remount-ro and has had errors, the last one ten
// minutes ago, as Linux 6.12 tells.
func ext4Tree(errors int) hosttest.Tree {
	return hosttest.Tree{
		"proc/uptime":                  "90000.00 170000.00\n",
		"proc/143/stat":                "143 (jbd2/loop0-8) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 8640000 0 0 18446744073709551615 0 0 0\n",
		"proc/144/stat":                "144 (jbd2/loop01-8) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 100 0 0 18446744073709551615 0 0 0\n",
		"sys/dev/block/7:0":            "-> ../../devices/virtual/block/loop0",
		"sys/fs/ext4/loop0/":           "",
		ext4File("errors_count"):       fmt.Sprintln(errors),
		ext4File("journal_task"):       "143\n",
		ext4File("last_error_time"):    fmt.Sprintln(plugintest.Now.Add(-10 * time.Minute).Unix()),
		ext4File("last_error_errcode"): "5\n",
		ext4File("last_error_func"):    "ext4_lookup\n",
		"proc/fs/ext4/loop0/options":   "rw\nbsddf\nerrors=remount-ro\ncommit=5\n",
	}
}

func ext4File(name string) string { return "sys/fs/ext4/loop0/" + name }

func TestExt4Errors(t *testing.T) {
	const (
		rw       = "28 27 7:0 / /data rw,relatime - ext4 /dev/loop0 rw\n"
		doubtful = "28 27 7:0 / /sysroot ro,relatime - ext4 /dev/loop0 ro\n29 27 7:0 /var /var rw,relatime - ext4 /dev/loop0 ro\n"
	)
	goesOn := hosttest.Tree{"proc/fs/ext4/loop0/options": "rw\nerrors=continue\n"}
	before := hosttest.Tree{ext4File("last_error_time"): fmt.Sprintln(plugintest.Now.Add(-61 * time.Minute).Unix())}
	tests := []struct {
		name, mounts string
		change       hosttest.Tree
		status       plugin.Status
	}{
		{"since the mount", rw, nil, plugin.Problem},
		{"none", rw, hosttest.Tree{ext4File("errors_count"): "0\n"}, plugin.OK},
		{"before the mount", rw, before, plugin.OK},
		{"goes on after errors", rw, goesOn, plugin.OK},
		{"goes on after errors, but the journal cannot be written", rw, merged(goesOn, hosttest.Tree{ext4File("last_error_func"): "ext4_journal_check_start\n"}), plugin.Problem},
		{"goes on after errors, and was shut down", rw, merged(goesOn, hosttest.Tree{ext4File("last_error_errcode"): "16\n"}), plugin.Problem},
		{"goes on after errors, and has no code for them", rw, merged(goesOn, hosttest.Tree{ext4File("last_error_errcode"): ""}), plugin.OK},
		{"the thread is found where its pid is not told", rw, hosttest.Tree{ext4File("journal_task"): "0\n"}, plugin.Problem},
		{"the thread's pid is that of another", rw, hosttest.Tree{ext4File("journal_task"): "144\n"}, plugin.Problem},
		{"no journal", rw, hosttest.Tree{"proc/143/stat": "143 (cat) S 1 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 8640000 0 0 18446744073709551615 0 0 0\n"}, plugin.OK},
		{"not known which", rw, hosttest.Tree{"proc/uptime": "x\n"}, plugin.OK},
		{"no number", rw, hosttest.Tree{ext4File("errors_count"): "x\n"}, plugin.OK},
		{"mounted read-only", "28 27 7:0 / /data ro,relatime - ext4 /dev/loop0 ro\n", nil, plugin.OK},
		{"a directory of what is mounted read-only", doubtful, nil, plugin.Problem},
		{"a directory of what is mounted read-only, the error is old", doubtful, before, plugin.OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plugintest.Want(t, lookAt(t, merged(ext4Tree(3), hosttest.Tree{"proc/1/mountinfo": root + tt.mounts}, tt.change)), tt.status)
		})
	}
}

func merged(trees ...hosttest.Tree) hosttest.Tree {
	all := hosttest.Tree{}
	for _, tree := range trees {
		maps.Copy(all, tree)
	}
	return all
}

// A long name of a device makes a long one of the thread, which older kernels cut.
func TestJournalThreadName(t *testing.T) {
	e := ext4{device: "nvme10n1p12"}
	stat := func(parent int, comm string) procfs.Stat { return procfs.Stat{PPID: parent, Comm: comm} }
	for comm, want := range map[string]bool{"jbd2/nvme10n1p12-8": true, "jbd2/nvme10n1p1": true, "jbd2/nvme10n1-8": false, "jbd2/nvme10n1p1-8": false, "nvme10n1p12": false} {
		if e.isJournalThread(stat(2, comm)) != want {
			t.Errorf("%s: want %v", comm, want)
		}
	}
	if e.isJournalThread(stat(700, "jbd2/nvme10n1p12-8")) {
		t.Error("a process took the name of a kernel thread")
	}
}

func TestManyMounts(t *testing.T) {
	var many strings.Builder
	many.WriteString("27 1 254:0 / / rw,relatime - ext4 /dev/vda ro\n")
	for i := range 5000 {
		fmt.Fprintf(&many, "%d 27 254:0 /x%d /bind/%d rw,relatime - ext4 /dev/vda ro\n", i+100, i, i)
		fmt.Fprintf(&many, "%d 27 254:0 /y%d /bind/%d ro,relatime - ext4 /dev/vda ro\n", i+100, i, i)
	}
	for i := range 30 {
		fmt.Fprintf(&many, "%d 27 8:%d / /disk/%d rw,relatime - ext4 /dev/sd%d ro\n", i+9000, i, i, i)
	}
	v := lookAt(t, hosttest.Tree{"proc/1/mountinfo": many.String()})
	plugintest.Want(t, v, plugin.Problem, "ext4 on /dev/vda turned read-only: mounted at /; and 30 more: /dev/sd0, /dev/sd1")
	if len(v.Details) > 10*11 || v.Measurements[0].Value != 31 || v.Measurements[1].Value != 31 {
		t.Errorf("%d details, %+v", len(v.Details), v.Measurements)
	}
}

func TestUnknown(t *testing.T) {
	plugintest.Want(t, lookAt(t, hosttest.Tree{}), plugin.Unknown, "cannot list mounts", "mount the host's /proc there")
	plugintest.Want(t, lookAt(t, hosttest.Tree{"proc/1/mountinfo": root + "garbage\n"}), plugin.Unknown)
}

// An XFS that cannot be asked is no problem of the disk.
func TestXFSElsewhere(t *testing.T) {
	const xfs = "28 27 8:16 / /data rw - xfs /dev/sdb rw\n29 27 8:17 / /absent rw - xfs /dev/sdc rw\n"
	plugintest.Want(t, lookAt(t, hosttest.Tree{"proc/1/mountinfo": root + xfs, "data/": ""}), plugin.OK, "none of 3")
}

func FuzzLook(f *testing.F) {
	f.Add("28 27 7:0 / /data rw - ext4 /dev/loop0 rw\n", "1\n", "143\n", "1793534300\n", "rw\nerrors=remount-ro\n")
	f.Add("28 27 7:0 / /a ro - ext4 /dev/x ro\n29 27 7:0 /b "+volume("p", `\011`)+" rw - ext4 - ro,shutdown\n", "-1", "", "99999999999999999999", "")
	f.Fuzz(func(t *testing.T, mounts, count, task, last, options string) {
		if strings.Contains(mounts, "xfs") {
			return // starts a process
		}
		dir := t.TempDir()
		merged(ext4Tree(1), hosttest.Tree{"proc/1/mountinfo": mounts, ext4File("errors_count"): count, ext4File("journal_task"): task,
			ext4File("last_error_time"): last, "proc/fs/ext4/loop0/options": options}).Write(t, dir)
		h, err := host.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		v := look(context.Background(), plugintest.Look(t, h))
		if (v.Status == plugin.Problem) != (v.Measurements != nil && v.Measurements[0].Value > 0) || v.Message == "" {
			t.Errorf("%+v", v)
		}
		for _, line := range v.Details {
			if len(line) > 1000 || plugin.Safe(line, 1000) != line {
				t.Errorf("detail %q", line)
			}
		}
	})
}
