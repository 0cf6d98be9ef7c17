// Package journaltest writes small journal files for tests. They have what a reader of all entries needs, and no hash tables:
// journalctl does not read them.
package journaltest

import (
	"cmp"
	"encoding/binary"
	"os"
	"testing"
)

// File is what a file is made of.
type File struct {
	Compact  bool
	SeqnumID byte // numbers count on among files that have the same
	Array    int  // entries in an array of them; 0 is 4
	Entries  []Entry
}

// Entry is an entry. Its number is one more than that of the one before, if it is 0, and so is its time since boot.
type Entry struct {
	Seqnum, Realtime, Monotonic uint64
	Boot                        byte
	Fields                      []Field
}

// Field is a data object.
type Field struct {
	Flags byte // how Text is packed
	Text  string
}

// Texts makes fields of NAME=value.
func Texts(texts ...string) []Field {
	var fields []Field
	for _, text := range texts {
		fields = append(fields, Field{Text: text})
	}
	return fields
}

// Write puts it into a file.
func (f File) Write(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, f.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

const headerSize = 272

// Bytes returns the content of the file.
func (f File) Bytes() []byte {
	w := writer{compact: f.Compact, b: make([]byte, headerSize), known: map[Field]int{}}
	copy(w.b, "LPKSHHRH")
	if f.Compact {
		binary.LittleEndian.PutUint32(w.b[12:], 1<<4|1<<3|1<<2|1<<1|1)
	} else {
		binary.LittleEndian.PutUint32(w.b[12:], 1<<3|1<<2|1<<1|1)
	}
	w.b[72] = f.SeqnumID
	w.put(88, headerSize)
	var seqnum, monotonic uint64
	perArray := cmp.Or(f.Array, 4)
	array := 176 // where the offset of the next array goes
	for i, e := range f.Entries {
		seqnum, monotonic = cmp.Or(e.Seqnum, seqnum+1), cmp.Or(e.Monotonic, monotonic+1)
		e.Seqnum, e.Monotonic = seqnum, monotonic
		if i%perArray == 0 {
			at := w.object(6, 0, make([]byte, 8+perArray*w.width()))
			w.put(array, uint64(at))
			array = at + 16
		}
		w.link(array+8+i%perArray*w.width(), w.entry(e))
		w.put(192, e.Realtime)
	}
	w.put(152, uint64(len(f.Entries)))
	w.put(96, uint64(len(w.b)-headerSize))
	return w.b
}

type writer struct {
	compact bool
	b       []byte
	known   map[Field]int
}

func (w *writer) width() int {
	if w.compact {
		return 4
	}
	return 8
}

func (w *writer) put(at int, n uint64) { binary.LittleEndian.PutUint64(w.b[at:], n) }

func (w *writer) link(at, to int) {
	if w.compact {
		binary.LittleEndian.PutUint32(w.b[at:], uint32(to))
	} else {
		w.put(at, uint64(to))
	}
}

func (w *writer) object(kind, flags byte, payload []byte) (at int) {
	at = len(w.b)
	w.b = append(w.b, kind, flags, 0, 0, 0, 0, 0, 0)
	w.b = binary.LittleEndian.AppendUint64(w.b, uint64(16+len(payload)))
	w.b = append(w.b, payload...)
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
	return at
}

func (w *writer) data(field Field) (at int) {
	if at, ok := w.known[field]; ok {
		return at
	}
	head := make([]byte, 48)
	if w.compact {
		head = make([]byte, 56)
	}
	at = w.object(1, field.Flags, append(head, field.Text...))
	w.known[field] = at
	return at
}

func (w *writer) entry(e Entry) (at int) {
	payload := make([]byte, 48)
	binary.LittleEndian.PutUint64(payload, e.Seqnum)
	binary.LittleEndian.PutUint64(payload[8:], e.Realtime)
	binary.LittleEndian.PutUint64(payload[16:], e.Monotonic)
	payload[24] = e.Boot
	for _, field := range e.Fields {
		data := uint64(w.data(field))
		if w.compact {
			payload = binary.LittleEndian.AppendUint32(payload, uint32(data))
		} else {
			payload = append(binary.LittleEndian.AppendUint64(payload, data), make([]byte, 8)...)
		}
	}
	return w.object(3, 0, payload)
}
