package procfs

import (
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestKernelOf(t *testing.T) {
	for release, want := range map[string]Kernel{
		"6.18.44-fc-v657\n":          {6, 18},
		"5.10.0-36-cloud-amd64\n":    {5, 10},
		"3.10.0-1160.el7.x86_64\n":   {3, 10},
		"6.1-rc3\n":                  {6, 1},
		"4.19.0+deb10u1-amd64-%s%n ": {4, 19},
	} {
		h := hosttest.Tree{"proc/sys/kernel/osrelease": release}.Open(t)
		if got, err := KernelOf(h); got != want || err != nil {
			t.Errorf("%q: %v, %v", release, got, err)
		}
	}
	for _, release := range []string{"", "\n", "linux", "6", "-1.2", "6.-1"} {
		h := hosttest.Tree{"proc/sys/kernel/osrelease": release}.Open(t)
		if got, err := KernelOf(h); got != (Kernel{}) || err == nil {
			t.Errorf("%q: %v, %v", release, got, err)
		}
	}
	if _, err := KernelOf(hosttest.Tree{}.Open(t)); err == nil {
		t.Error("no error without a host")
	}
}

func TestKernelBefore(t *testing.T) {
	for _, tt := range []struct {
		kernel       Kernel
		major, minor int
		want         bool
	}{
		{Kernel{5, 10}, 5, 3, false}, {Kernel{5, 2}, 5, 3, true}, {Kernel{4, 19}, 5, 3, true}, {Kernel{5, 3}, 5, 3, false}, {Kernel{6, 1}, 5, 3, false},
	} {
		if got := tt.kernel.Before(tt.major, tt.minor); got != tt.want {
			t.Errorf("%v before %d.%d: %v", tt.kernel, tt.major, tt.minor, got)
		}
	}
}
