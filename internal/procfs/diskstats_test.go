package procfs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host/hosttest"
)

func TestParseDisk(t *testing.T) {
	tests := []struct {
		name, line string
		want       Disk
	}{
		{"3.10", "   8       1 sda1 2070 52 59812 1102 3 0 18 2 1 900 1104\n", Disk{8, 1, "sda1", 2073, 2073, 59812 + 18, 1104, 1, 900}},
		{"4.18", " 259       0 nvme0n1 1761416 312545 74865266 1346747 991556 545978 63567224 389322 2 234060 1882540 1084014 4084 62895344 134696\n", Disk{259, 0, "nvme0n1", 1761416 + 991556 + 1084014, 1761416 + 991556, 74865266 + 63567224, 1346747 + 389322, 2, 234060}},
		{"6.18", " 254       0 vda 1761416 312545 74865266 1346747 991556 545978 63567224 389322 0 234060 1882540 1084014 4084 62895344 134696 125901 11773\n", Disk{254, 0, "vda", 1761416 + 991556 + 1084014 + 125901, 1761416 + 991556, 74865266 + 63567224, 1346747 + 389322, 0, 234060}},
		{"of a later kernel", "7 0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 words of its own\n", Disk{7, 0, "loop0", 1 + 5 + 12 + 16, 1 + 5, 3 + 7, 4 + 8, 9, 10}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseDisk([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDisks(t *testing.T) {
	for want, text := range map[string]string{
		"no disk in it":             "",
		"fewer than 14 fields":      "8 1 sda1 2070 52\n",
		"field 4 of a line":         "8 1 sda1 -1 2 3 4 5 6 7 8 9 10 11\n",
		"no device number":          "4294967296 1 sda1 1 2 3 4 5 6 7 8 9 10 11\n",
		"field 1 of a line is no n": strings.Repeat("words ", 20),
	} {
		if disks, err := Disks(hosttest.Tree{"proc/diskstats": text}.Open(t)); err == nil || !strings.Contains(err.Error(), want) || disks != nil {
			t.Errorf("%q: %+v, %v; want %q", text, disks, err, want)
		}
	}
	if _, err := Disks(hosttest.Tree{}.Open(t)); err == nil || !strings.Contains(err.Error(), "mount the host's /proc there") {
		t.Errorf("without the file: %v", err)
	}
}

func FuzzParseDisk(f *testing.F) {
	for _, seed := range []string{
		"   8       1 sda1 2070 52 59812 1102 3 0 18 2 1 900 1104\n", "7 0 loop0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
		"7 0 a 999999999999999999 2 3 4 999999999999999999 6 7 8 9 10 11", "7 0 a", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDisk(b)
		if err != nil {
			if d != (Disk{}) {
				t.Errorf("%+v beside the error %v", d, err)
			}
			return
		}
		line := fmt.Sprintf("%d %d %s %d 0 %d %d 0 0 0 0 %d %d 0 %d 0 0 0", d.Major, d.Minor, d.Name, d.Transfers, d.Sectors, d.Waited, d.InFlight, d.Busy, d.Requests-d.Transfers)
		if again, err := parseDisk([]byte(line)); d.Requests < 1e18 && d.Sectors < 1e18 && (err != nil || again != d) {
			t.Errorf("%+v, %v; want %+v", again, err, d)
		}
	})
}
