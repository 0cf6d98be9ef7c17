// Package journalfile reads the files that systemd-journald writes, in the order and with the rules of journalctl --directory, and
// without it. The format is that of https://systemd.io/JOURNAL_FILE_FORMAT/ and systemd's journal-def.h: regular and compact files,
// keyed or not, with data packed by XZ, LZ4 or ZSTD, closed or being written.
//
// It is written for reading all of them and little of each: a file holds each field once, however many entries have it, and what is
// known not to be asked for is not looked at again. BenchmarkReplayJournal of test/bench has it beside journalctl -o export.
package journalfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// MaxFields is how many different fields can be asked for.
const MaxFields = kinds - 1

// Query says which entries are wanted, and what of them.
type Query struct {
	Fields   []string                       // names of the fields, at most MaxFields
	Match    []string                       // values of the first field of Fields; an entry has one of them. None: all entries
	Since    time.Time                      // zero: from the first
	MaxValue int                            // bytes of a value that are kept
	Watch    func(realtime time.Time) error // called now and then with the time of an entry, also of one that is not wanted; an error ends the reading

	// OpenFile opens a file or directory for reading, and waits for nobody (O_NONBLOCK); nil is for any file of this machine.
	OpenFile func(path string) (*os.File, error)
}

// FileError tells of a file that could not be read, or not to its end.
type FileError struct {
	Path     string
	Modified time.Time // when it was last written to, zero if not even that is known
	Err      error
}

func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// WatchEvery is how many entries lie between two calls of Query.Watch.
const WatchEvery = 4096

// Entry is what was asked for of an entry. It is good until the next one is read.
type Entry struct {
	Realtime int64 // microseconds since 1970, when journald got it
	Fields   []Field
}

// Field is a field of an entry. A name can come several times.
type Field struct {
	Name  int // index in Query.Fields
	Value []byte
}

// Journal is the entries of several files in one order.
type Journal struct {
	query   Query
	names   []string // of the fields, with "="
	match   map[string]bool
	end     time.Time
	total   int
	seen    int
	files   []*file // that have an entry at hand
	turn    *file   // the one of files whose entry comes first
	rival   *file   // the one that comes next, nil if there is none
	started bool    // the entry of turn is done with
	passed  uint64  // bytes since memory was last given back
	last    *file   // of the entry that was returned last
	lastKey key
	damaged int
	broken  []*FileError
	unpack  unpacker
	places  []place
	values  []byte
}

// Open opens files and directories as journalctl's --file and --directory do: of a directory the files in it and in the directories in
// it that are named for a machine. A file that cannot be read is not an error but one of Broken.
func Open(q Query, paths ...string) (*Journal, error) {
	if len(q.Fields) > MaxFields {
		return nil, fmt.Errorf("%d fields, at most %d", len(q.Fields), MaxFields)
	}
	if q.OpenFile == nil {
		q.OpenFile = openFile
	}
	j := &Journal{query: q}
	for _, name := range q.Fields {
		j.names = append(j.names, name+"=")
	}
	if len(q.Match) > 0 {
		j.match = map[string]bool{}
		for _, value := range q.Match {
			j.match[value] = true
		}
	}
	for _, path := range paths {
		names, err := j.list(path)
		if err != nil {
			j.Close()
			return nil, err
		}
		for _, name := range names {
			j.add(name)
		}
	}
	return j, nil
}

func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// list returns the journal files that a path stands for.
func (j *Journal) list(path string) ([]string, error) {
	entries, isDir, err := j.readDir(path)
	if !isDir {
		return []string{path}, err
	}
	var names []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		switch {
		case isJournal(e):
			names = append(names, name)
		case isMachine(e.Name()):
			inner, _, _ := j.readDir(name)
			for _, e := range inner {
				if isJournal(e) {
					names = append(names, filepath.Join(name, e.Name()))
				}
			}
		}
	}
	return names, err
}

// readDir returns what is in a directory, by name.
func (j *Journal) readDir(path string) (entries []fs.DirEntry, isDir bool, err error) {
	d, err := j.query.OpenFile(path)
	if err != nil {
		return nil, false, err
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil || !info.IsDir() {
		return nil, false, err
	}
	entries, err = d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, true, err
}

// isJournal is by name: "~" is behind that of a file that was not closed.
func isJournal(e fs.DirEntry) bool {
	return !e.IsDir() && (strings.HasSuffix(e.Name(), ".journal") || strings.HasSuffix(e.Name(), ".journal~"))
}

// isMachine tells an id of 128 bits, as it is or as a UUID.
func isMachine(name string) bool {
	if len(name) == 36 && name[8] == '-' && name[13] == '-' && name[18] == '-' && name[23] == '-' {
		name = strings.ReplaceAll(name, "-", "")
	}
	return len(name) == 32 && strings.Trim(name, "0123456789abcdefABCDEF") == ""
}

// add opens a file and goes to its first entry.
func (j *Journal) add(path string) {
	j.total++
	f, err := j.open(path)
	if err != nil {
		j.broken = append(j.broken, &FileError{path, f.modified, err})
		return
	}
	if end := f.end(); end.After(j.end) {
		j.end = end
	}
	j.turn = f
	if j.guarded(func() error { return f.first(j.query.Since) }) {
		j.files = append(j.files, f)
	}
	j.turn = nil
}

// Files is how many files there are, with those that cannot be read.
func (j *Journal) Files() int { return j.total }

// End is when the last entry was logged, zero if there is none.
func (j *Journal) End() time.Time { return j.end }

// Left is how many entries are still to come, wanted or not, as the files have it; those that are in several count each time.
func (j *Journal) Left() int {
	var sum uint64
	for _, f := range j.files {
		sum += f.left
		if f != j.turn || !j.started {
			sum++ // the one at hand
		}
	}
	return int(min(sum, math.MaxInt))
}

// Broken tells of the files that could not be read, or not to their end.
func (j *Journal) Broken() []*FileError { return j.broken }

// Damaged is how many entries, or fields of them, were left out so far because what is at their place in the file is something else.
func (j *Journal) Damaged() int {
	sum := j.damaged
	for _, f := range j.files {
		sum += f.damaged
	}
	return sum
}

// Close gives the files back.
func (j *Journal) Close() {
	for _, f := range j.files {
		f.close()
	}
	j.files, j.turn, j.rival = nil, nil, nil
	j.unpack.close()
}

// Next reads the next entry. Behind the last one it returns io.EOF, else only an error of Query.Watch.
func (j *Journal) Next(e *Entry) error {
	for j.step() {
		j.seen++
		if j.seen%WatchEvery == 0 && j.query.Watch != nil {
			if err := j.query.Watch(time.UnixMicro(int64(j.turn.realtime))); err != nil {
				return err
			}
		}
		if j.last != nil && j.last != j.turn && compare(&j.turn.key, &j.lastKey) == 0 {
			continue // the same entry, copied to another file
		}
		j.last, j.lastKey = j.turn, j.turn.key
		wanted := false
		j.guarded(func() error {
			wanted = j.read(e)
			return nil
		})
		if wanted {
			return nil
		}
	}
	return io.EOF
}

// step makes turn the file with the next entry, and says whether there is one.
func (j *Journal) step() bool {
	if j.started {
		before := j.turn.at
		if j.guarded(j.turn.next) {
			j.pass(j.turn.at - before)
		}
	}
	j.started = true
	if j.turn == nil || j.rival != nil && compare(&j.turn.key, &j.rival.key) > 0 {
		j.order()
	}
	j.started = j.turn != nil
	return j.started
}

// releaseEvery is after how many bytes that entries lie apart the memory of the files is given back.
const releaseEvery = 16 << 20

func (j *Journal) pass(bytes uint64) {
	if j.passed += bytes; j.passed < releaseEvery {
		return
	}
	j.passed = 0
	for _, f := range j.files {
		f.release()
	}
}

// order finds whose turn it is. The order is not always transitive, so it is found as sd_journal_next does it.
func (j *Journal) order() {
	j.turn, j.rival = nil, nil
	for _, f := range j.files {
		switch {
		case j.turn == nil:
			j.turn = f
		case compare(&f.key, &j.turn.key) < 0:
			j.turn, j.rival = f, j.turn
		case j.rival == nil || compare(&f.key, &j.rival.key) < 0:
			j.rival = f
		}
	}
}

// guarded reads from the file whose turn it is. At its end it is left behind, and so it is when that fails or when the disk does, which
// the kernel tells with a signal.
func (j *Journal) guarded(read func() error) (ok bool) {
	f := j.turn
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			j.leave(f, errors.New("a part of it cannot be read from its disk"))
		}
	}()
	if err := read(); err != nil {
		j.leave(f, err)
		return false
	}
	return true
}

func (j *Journal) leave(f *file, why error) {
	if f.truncated > 0 {
		why = fmt.Errorf("%d bytes at its end are missing", f.truncated)
	}
	if why != io.EOF {
		j.broken = append(j.broken, &FileError{f.path, f.modified, why})
	}
	j.damaged += f.damaged
	f.close()
	j.files = slices.DeleteFunc(j.files, func(other *file) bool { return other == f })
	j.turn, j.started = nil, false
}

// read takes what was asked for of the entry at hand, if the entry is.
func (j *Journal) read(e *Entry) bool {
	f := j.turn
	j.places, j.values = j.places[:0], j.values[:0]
	e.Realtime, e.Fields = int64(f.realtime), e.Fields[:0]
	matches := j.match == nil
	for i := range f.items {
		at := f.item(i)
		kind := f.kind(at, j)
		if kind == other {
			continue
		}
		j.places = append(j.places, place{at, int(kind - 1)})
		if !matches && kind == 1 {
			value, _ := f.value(at, j, 0)
			matches = j.match[string(value)]
		}
	}
	if !matches {
		return false
	}
	for _, p := range j.places {
		value, ok := f.value(p.at, j, p.name)
		if !ok {
			f.damaged++
			continue
		}
		begin := len(j.values)
		j.values = append(j.values, value...)
		e.Fields = append(e.Fields, Field{p.name, j.values[begin:len(j.values):len(j.values)]})
	}
	return true
}

// place is where the data of a field is.
type place struct {
	at   uint64
	name int // index in Query.Fields
}
