package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
)

// maxState is the largest state file in bytes that is read back.
const maxState = 4 << 20

// maxLastAge is how long a verdict may stand in for looks that fail, and count
// as the look before.
const maxLastAge = time.Hour

// state is what a check remembers between two runs. It belongs to one boot of
// the node: pids, start times and ages mean nothing in the next.
type state struct {
	BootID  string              `json:"bootID"`
	Time    int64               `json:"time"`           // of the run, in seconds since 1970
	Bad     int                 `json:"bad"`            // bad looks in a row
	Failed  int                 `json:"failed"`         // looks in a row that could not see
	Last    *told               `json:"last,omitempty"` // what the last run told
	History map[string][]sample `json:"history,omitempty"`
	Check   json.RawMessage     `json:"check,omitempty"` // the check's own memory
}

// told is the verdict of an earlier run.
type told struct {
	Status  Status `json:"status"`
	Message string `json:"message"`
}

// store keeps the state file of one check.
type store struct {
	path string
	err  error // why nothing can be kept, nil when it can
}

// openStore prepares dir, which is made with mode 0700 when it is missing.
func openStore(dir, check string) store {
	s := store{path: filepath.Join(dir, check+".json")}
	if s.err = os.MkdirAll(dir, 0o700); s.err != nil {
		return s
	}
	const writable = 2 // W_OK of access(2)
	if err := syscall.Access(dir, writable); err != nil {
		s.err = fmt.Errorf("write to %s: %w", dir, err)
	}
	if info, err := os.Lstat(s.path); err == nil && info.IsDir() { // all else is replaced by save
		s.err = fmt.Errorf("state file %s: is a directory", s.path)
	}
	return s
}

// errNoBoot says that the state file belongs to a boot and the host root does
// not say of which boot it is. The file is left alone then: what is at the host
// root is no host, but may be one again at the next run.
var errNoBoot = errors.New("the host root does not tell which boot it is")

// load reads the state of this boot. A file that is missing or of another boot
// is an empty state; one that is broken or belongs to another user is an error
// beside an empty state.
func (s store) load(bootID string, now time.Time) (state, error) {
	empty := state{BootID: bootID, Time: now.Unix()}
	b, err := readOwn(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return empty, fmt.Errorf("state file %s: %w", s.path, err)
	}
	switch {
	case st.BootID != bootID && bootID == "":
		return empty, errNoBoot
	case st.BootID != bootID:
		return empty, nil
	}
	if st.Bad < 0 || st.Failed < 0 || (st.Last != nil && (st.Last.Status < OK || st.Last.Status > Unknown)) {
		return empty, fmt.Errorf("state file %s: values out of range", s.path)
	}
	if age := now.Sub(time.Unix(st.Time, 0)); age < 0 || age > maxLastAge {
		st.Bad, st.Failed, st.Last = 0, 0, nil
	}
	st.Time = now.Unix()
	return st, nil
}

// keep takes what the check wants remembered. After a look that failed the
// older memory stays.
func (st *state) keep(remembered any, log *logrus.Logger) {
	if remembered == nil {
		return
	}
	b, err := json.Marshal(remembered)
	if err != nil {
		log.Errorf("cannot remember: %v", err)
		return
	}
	st.Check = b
}

// readOwn reads a regular file of this user without following a symlink or
// waiting for the writer of a FIFO.
func readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(owner.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("state file %s: not a regular file of uid %d", path, os.Geteuid())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("state file %s: more than %d bytes", path, maxState)
	}
	return b, err
}

// save replaces the state file in one step, so that a reader sees the old or
// the new one whole.
func (s store) save(st state) error {
	if s.err != nil {
		return s.err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(s.path), "."+filepath.Base(s.path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}
