package faults

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"npd-plugins/test/lab"
)

// exceedPipeLimit makes a culprit hold so many pipes that fs.pipe-user-pages-soft is exceeded for root: what is opened
// by a root without capabilities is cut from then on. The limit itself is left alone, so that nothing has to be
// restored should the test die.
func exceedPipeLimit(t *testing.T) *lab.Culprit {
	t.Helper()
	lab.NeedRoot(t)
	text, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Fatal(err)
	}
	soft, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	const most = 9000 // two descriptors each; a usual hard limit is 20,000 or more
	pipes := soft/16 + 76
	if soft == 0 || pipes > most {
		t.Skipf("fs.pipe-user-pages-soft is %d here, too high to exceed or unlimited: sysctl fs.pipe-user-pages-soft=16384", soft)
	}
	culprit := lab.StartCulprit(t)
	if small := culprit.Pipes(t, pipes); small == 0 {
		t.Fatalf("all of %d pipes have their full size, although the soft limit is %d pages", pipes, soft)
	}
	return culprit
}

func TestPipePages(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	check := watch(t, "pipe-pages")
	check.wantOK(t)
	culprit := exceedPipeLimit(t)
	check.wantProblem(t, "fs.pipe-user-pages-soft", culprit.Comm, fmt.Sprint(culprit.Pid))
	culprit.Stop()
	check.wantOK(t)
}
