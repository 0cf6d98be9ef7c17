package plugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// maxState is the largest state file in bytes that is read back.
const maxState = 4 << 20

// maxLastAge is how long a verdict may stand in for looks that fail, and count
// as the look before.
const maxLastAge = time.Hour

// state is what a check remembers between two runs. It belongs to one boot of
// the node: pids, start times and ages mean nothing in the next.
//
// Its file has a line for each: a key, a space, and the value to the end of the
// line. Reading and writing this costs a tenth of a millisecond less of CPU than
// JSON, which is a tenth of what a check costs that finds nothing. When the file
// was modified is when the check ran; a run that has nothing new to remember
// changes that alone.
//
//	boot 0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0
//	bad 1
//	failed 0
//	last 1 3 toys broken
//	said 08f0a3d0c8a1b7e2@2989224
//	sample 1793534400 1 toys
//	check [[4711,99]]
type state struct {
	BootID  string
	Bad     int    // bad looks in a row
	Failed  int    // looks in a row that could not see
	Last    *told  // what the last run told
	Said    string // the warnings that were written, see said
	History map[string][]sample
	Check   json.RawMessage // the check's own memory

	file string // what it was read from, "" for nothing
}

// told is the verdict of an earlier run.
type told struct {
	Status  Status
	Message string
}

// append adds the text of the state to b.
func (st state) append(b []byte) []byte {
	b = fmt.Appendf(b, "boot %s\nbad %d\nfailed %d\n", st.BootID, st.Bad, st.Failed)
	if st.Last != nil {
		b = fmt.Appendf(b, "last %d %s\n", int(st.Last.Status), st.Last.Message)
	}
	if st.Said != "" {
		b = fmt.Appendf(b, "said %s\n", st.Said)
	}
	for name, samples := range st.History {
		for _, s := range samples {
			b = fmt.Appendf(b, "sample %v %v %s\n", s[0], s[1], name)
		}
	}
	if st.Check != nil {
		b = fmt.Appendf(b, "check %s\n", st.Check)
	}
	return b
}

// parse is the reverse of append.
func (st *state) parse(text string) error {
	if !strings.HasPrefix(text, "boot ") || !strings.HasSuffix(text, "\n") {
		return errors.New("not a whole state")
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if err := st.set(key, value); err != nil {
			return fmt.Errorf("%s: %w", Safe(key, 20), err)
		}
	}
	if st.Bad < 0 || st.Failed < 0 || (st.Last != nil && (st.Last.Status < OK || st.Last.Status > Unknown)) {
		return errors.New("values out of range")
	}
	return nil
}

func (st *state) set(key, value string) (err error) {
	switch key {
	case "boot":
		st.BootID = value
	case "bad":
		st.Bad, err = strconv.Atoi(value)
	case "failed":
		st.Failed, err = strconv.Atoi(value)
	case "last":
		status, message, _ := strings.Cut(value, " ")
		n, err := strconv.Atoi(status)
		st.Last = &told{Status(n), message}
		return err
	case "said":
		st.Said = value
	case "sample":
		var s sample
		at, rest, _ := strings.Cut(value, " ")
		measured, name, _ := strings.Cut(rest, " ")
		if s[0], err = strconv.ParseFloat(at, 64); err == nil {
			s[1], err = strconv.ParseFloat(measured, 64)
		}
		if st.History == nil {
			st.History = map[string][]sample{}
		}
		st.History[name] = append(st.History[name], s)
	case "check":
		st.Check = json.RawMessage(value)
	default:
		err = errors.New("no key of a state")
	}
	return err
}

// store keeps the state file of one check.
type store struct {
	path string
}

// openStore prepares dir, which is made with mode 0700 when it is missing. The
// error says why nothing can be kept there; what is there can be read even so.
func openStore(dir, check string) (store, error) {
	s := store{path: filepath.Join(dir, check+".state")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, err
	}
	const writable = 2 // W_OK of access(2)
	if err := syscall.Access(dir, writable); err != nil {
		return s, fmt.Errorf("write to %s: %w", dir, err)
	}
	if info, err := os.Lstat(s.path); err == nil && info.IsDir() { // all else is replaced by save
		return s, fmt.Errorf("state file %s: is a directory", s.path)
	}
	return s, nil
}

// errNoBoot says that the state file belongs to a boot and the host root does
// not say of which boot it is. The file is left alone then: what is at the host
// root is no host, but may be one again at the next run.
var errNoBoot = errors.New("the host root does not tell which boot it is")

// load reads the state of this boot. A file that is missing or of another boot
// is an empty state; one that is broken or belongs to another user is an error
// beside an empty state.
func (s store) load(bootID string, now time.Time) (state, error) {
	empty := state{BootID: bootID}
	b, ran, err := readOwn(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	st := state{file: string(b)}
	if err := st.parse(st.file); err != nil {
		return empty, fmt.Errorf("state file %s: %w", s.path, err)
	}
	switch {
	case st.BootID != bootID && bootID == "":
		return empty, errNoBoot
	case st.BootID != bootID:
		return empty, nil
	}
	if age := now.Sub(ran); age < 0 || age > maxLastAge {
		st.Bad, st.Failed, st.Last = 0, 0, nil
	}
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
// waiting for the writer of a FIFO, and tells when it was modified.
func readOwn(path string) (b []byte, modified time.Time, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, modified, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, modified, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || int(owner.Uid) != os.Geteuid() {
		return nil, modified, fmt.Errorf("state file %s: not a regular file of uid %d", path, os.Geteuid())
	}
	b, err = io.ReadAll(io.LimitReader(f, maxState+1))
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("state file %s: more than %d bytes", path, maxState)
	}
	return b, info.ModTime(), err
}

// save replaces the state file in one step, so that a reader sees the old or
// the new one whole. One that says the same already is only marked as of now.
func (s store) save(st state) error {
	text := st.append(nil)
	if len(text) > maxState { // it would not be read back
		return fmt.Errorf("state file %s: more than %d bytes", s.path, maxState)
	}
	if string(text) == st.file {
		if unix.UtimesNanoAt(unix.AT_FDCWD, s.path, nil, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return nil
		}
	}
	if err := s.replace(text); err != nil {
		var errno syscall.Errno // without the name of the temporary file, which is another at each run
		if errors.As(err, &errno) {
			err = errno
		}
		return fmt.Errorf("write to %s: %w", filepath.Dir(s.path), err)
	}
	return nil
}

func (s store) replace(text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(s.path), "."+filepath.Base(s.path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(text)
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
