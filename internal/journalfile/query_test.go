package journalfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"npd-plugins/internal/journalfile/journaltest"
)

// Left counts what is still to come, from the time that was gone to.
func TestLeft(t *testing.T) {
	dir := t.TempDir()
	journaltest.File{SeqnumID: 1, Entries: numbered(1, 2, 10)}.Write(t, filepath.Join(dir, "odd.journal"))
	journaltest.File{SeqnumID: 2, Entries: numbered(2, 2, 10)}.Write(t, filepath.Join(dir, "even.journal"))
	for since, want := range map[int64]int{0: 20, 1: 20, 2: 19, 11: 10, 20: 1, 21: 0} {
		q := query()
		if since > 0 {
			q.Since = time.UnixMicro(since)
		}
		j, err := Open(q, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		var e Entry
		for ; ; want-- {
			if left := j.Left(); left != want {
				t.Errorf("since %d: %d left, want %d", since, left, want)
			}
			if j.Next(&e) != nil {
				break
			}
		}
		if want != 0 {
			t.Errorf("since %d: ended with %d left", since, want)
		}
	}
}

// All files are opened with OpenFile, and an error tells which one and when it was written to.
func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	journaltest.File{Entries: numbered(1, 1, 3)}.Write(t, filepath.Join(dir, "a.journal"))
	written := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	if err := os.WriteFile(filepath.Join(dir, "b.journal"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "b.journal"), written, written); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "a.journal"), filepath.Join(dir, "out.journal")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	q := query()
	q.OpenFile = root.Open
	got, j := all(t, q, ".")
	equal(t, "entries", lines(1, 1, 3), got)
	broken := j.Broken()
	if len(broken) != 2 {
		t.Fatalf("%v", broken)
	}
	if b := broken[0]; b.Path != "b.journal" || !b.Modified.Equal(written) {
		t.Errorf("%+v", b)
	}
	if b := broken[1]; b.Path != "out.journal" || !b.Modified.IsZero() {
		t.Errorf("%+v", b)
	}
	if _, err := Open(q, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
