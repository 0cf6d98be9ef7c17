package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// hardening is the drop-in without what it starts.
func hardening(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../systemd/npd-plugins.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n\n# Where the checks remember.")
	if !found || strings.Contains(rest, "ExecStart") {
		t.Fatal("the drop-in has another form")
	}
	return "#" + rest
}

// TestHardening runs the checks of the drop-in as services of a real systemd, with its settings and without. They must say the same.
func TestHardening(t *testing.T) {
	bin := binaries(t)
	for _, version := range []string{lab.SystemdVersions()[0], lab.SystemdVersions()[len(lab.SystemdVersions())-1]} {
		t.Run(version, func(t *testing.T) {
			s := lab.StartSystemd(t, version)
			testHeld(t, s)
			for check, need := range readAllNeeds(t).Checks {
				if need.Kubelet == "needed" || check == "journal-count" { // which does not run without a pattern
					continue
				}
				program, err := os.ReadFile(filepath.Join(bin, check))
				if err != nil {
					t.Fatal(err)
				}
				s.Unit(t, check, string(program))
				if err := os.Chmod(filepath.Join(s.Root, "run/lab/units", check), 0o755); err != nil {
					t.Fatal(err)
				}
				free := serve(t, s, check, "free", "RuntimeDirectory=npd-plugins\nRuntimeDirectoryPreserve=yes\n")
				held := serve(t, s, check, "held", hardening(t))
				if free.Status != held.Status || free.Status == "Unknown" && number.ReplaceAllString(free.Message, "N") != number.ReplaceAllString(held.Message, "N") {
					t.Errorf("%s: %+v, with the settings of the drop-in %+v", check, free, held)
				}
				t.Logf("%s: %s, %s", check, held.Status, held.Message)
			}
		})
	}
}

// testHeld: the settings do hold a service, or there would be nothing to test.
func testHeld(t *testing.T, s *lab.Systemd) {
	t.Helper()
	s.Unit(t, "rights.service", "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nStandardOutput=file:/run/rights\n"+
		"ExecStart=/bin/sh -c 'while read line; do echo \"$line\"; done </proc/self/status; (: >/run/npd-plugins/ours) && echo state; (: >/tmp/theirs) || echo strict'\n"+hardening(t))
	s.Run(t, "systemctl", "start", "rights.service")
	said, err := os.ReadFile(filepath.Join(s.Root, "run/rights"))
	if err != nil {
		t.Fatal(err)
	}
	const bounding = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYSLOG
	for _, want := range []string{fmt.Sprintf("CapBnd:\t%016x\n", bounding), "NoNewPrivs:\t1\n", "\nstate\n", "\nstrict\n"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("a service with the settings does not have %q:\n%s", want, said)
		}
	}
}

// number is what differs between two looks.
var number = regexp.MustCompile(`[0-9]+`)

// verdict is what is compared of the output of a check.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// serve runs a check once as a service with the settings.
func serve(t *testing.T, s *lab.Systemd, check, name, settings string) (v verdict) {
	t.Helper()
	unit := check + "-" + name + ".service"
	s.Unit(t, unit, "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nSuccessExitStatus=0 1 2\n"+
		"ExecStart=/run/lab/units/"+check+" --output=json --state-dir=/run/npd-plugins\nStandardOutput=file:/run/"+unit+".json\nStandardError=null\n"+settings)
	s.Run(t, "systemctl", "daemon-reload")
	s.Run(t, "systemctl", "start", unit)
	said, err := os.ReadFile(filepath.Join(s.Root, "run", unit+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(said, &v); err != nil {
		t.Fatalf("%s: %v: %s", unit, err, said)
	}
	return v
}
