package cgroup

import (
	"strings"
	"testing"
)

// checkOwner fails the test for an owner that cannot be.
func checkOwner(t *testing.T, o Owner) {
	t.Helper()
	if o.Container != "" && (len(o.Container) != 64 || !isHex(o.Container)) {
		t.Errorf("container %q", o.Container)
	}
	if o.PodUID != "" && !isUID(o.PodUID) {
		t.Errorf("pod UID %q", o.PodUID)
	}
}

func FuzzOwnerOf(f *testing.F) {
	for _, tt := range owners {
		f.Add(tt.path)
	}
	f.Fuzz(func(t *testing.T, name string) {
		o := OwnerOf(name)
		checkOwner(t, o)
		if o.PodUID == "" {
			return
		}
		// Written in the canonical form it is the same.
		path := "/kubepods/pod" + o.PodUID
		if o.Container != "" {
			path += "/" + o.Container
		}
		if again := OwnerOf(path); again != o {
			t.Errorf("%+v, again %+v", o, again)
		}
	})
}

func FuzzOwnerOfProcess(f *testing.F) {
	for _, tt := range owners {
		f.Add([]byte("12:pids:/\n1:name=systemd:" + tt.path + "\n0::/\n"))
		f.Add([]byte("0::" + tt.path + "\n"))
	}
	f.Add([]byte("\x00\xff:\n::\n:\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		o := OwnerOfProcess(file)
		checkOwner(t, o)
		if o == (Owner{}) {
			return
		}
		if again := OwnerOfProcess(append([]byte("3:cpu:/\n"), file...)); again != o {
			t.Errorf("%+v, with one more hierarchy %+v", o, again)
		}
	})
}

func FuzzUnitAndVolume(f *testing.F) {
	f.Add("/system.slice/kubelet.service")
	f.Add("/pods/0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f/volumes/a/b")
	f.Fuzz(func(t *testing.T, name string) {
		if unit := UnitOfProcess([]byte("0::" + name + "\n")); strings.Contains(unit, "/") {
			t.Errorf("unit %q", unit)
		}
		pod, volume := VolumeOf(name)
		checkOwner(t, pod)
		if strings.Contains(volume, "/") || volume != "" && pod.PodUID == "" {
			t.Errorf("volume %q of %+v", volume, pod)
		}
	})
}
