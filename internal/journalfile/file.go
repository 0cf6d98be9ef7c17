package journalfile

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Signature is what a journal file begins with (HEADER_SIGNATURE of journal-def.h).
const Signature = "LPKSHHRH"

// Flags of the header that say what a reader must know.
const (
	packedXZ   = 1 << 0
	packedLZ4  = 1 << 1
	keyedHash  = 1 << 2
	packedZSTD = 1 << 3
	compact    = 1 << 4
	allKnown   = packedXZ | packedLZ4 | keyedHash | packedZSTD | compact
)

// Places in the header.
const (
	incompatibleAt = 12
	seqnumIDAt     = 72
	headerSizeAt   = 88
	arenaSizeAt    = 96
	entriesAt      = 152
	entryArrayAt   = 176
	tailRealtimeAt = 192
	minHeader      = 208 // that of the first files; more was added behind it
)

// Objects, each with a type, flags, and at 8 its size, which counts from its beginning.
const (
	objectHeader = 16

	dataObject      = 1
	dataText        = 64 // where its text begins
	dataTextCompact = 72 // in a compact file

	entryObject    = 3
	entrySeqnum    = 16
	entryRealtime  = 24
	entryMonotonic = 32
	entryBoot      = 40
	entryXORHash   = 56
	entryItems     = 64

	arrayObject = 6
	arrayNext   = 16
	arrayItems  = 24
)

// timeLimit is VALID_REALTIME's and VALID_MONOTONIC's, the year 3111.
const timeLimit = 1 << 55

// The kind of a data object is 0 for what was not asked for, else one more than the index in Query.Fields. It fits into the bits of an
// offset that are zero.
const (
	kinds     = 8
	other     = 0
	cacheBits = 12
)

// file is an open journal file, and the entry of it that is at hand.
type file struct {
	path      string
	modified  time.Time // when journald last wrote to it
	data      []byte    // from the header to the end of the last object
	compact   bool
	truncated uint64 // bytes that the header tells of and the file lacks
	tail      uint64 // realtime of the last entry
	damaged   int

	array   []byte // items of the array of entries that is being gone through
	arrayAt uint64
	index   uint64
	left    uint64 // entries that the file had when it was opened and that are still to come

	key
	at    uint64
	links []byte // of the entry to its data
	items uint64

	cache []uint64 // offsets of data objects, each with its kind
}

// open always returns a file; with an error it is empty.
func (j *Journal) open(path string) (*file, error) {
	f := &file{path: path}
	opened, err := j.query.OpenFile(path)
	if err != nil {
		return f, cmp.Or(errors.Unwrap(err), err)
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return f, err
	}
	f.modified = info.ModTime()
	switch {
	case !info.Mode().IsRegular():
		return f, errors.New("no regular file")
	case info.Size() < minHeader:
		return f, errors.New("too short for a journal file")
	}
	header := make([]byte, minHeader)
	if _, err := opened.ReadAt(header, 0); err != nil {
		return f, err
	}
	size, err := f.readHeader(header, uint64(info.Size()))
	if err != nil {
		return f, err
	}
	f.data, err = unix.Mmap(int(opened.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	return f, err
}

// readHeader returns how much of the file is in use.
func (f *file) readHeader(header []byte, size uint64) (used uint64, err error) {
	if string(header[:len(Signature)]) != Signature {
		return 0, errors.New("no journal file")
	}
	flags := binary.LittleEndian.Uint32(header[incompatibleAt:])
	if unknown := flags &^ allKnown; unknown != 0 {
		return 0, fmt.Errorf("written by a newer systemd than is known here (incompatible flags %#x)", unknown)
	}
	f.compact = flags&compact != 0
	begin, arena := number(header[headerSizeAt:]), number(header[arenaSizeAt:])
	used = begin + arena
	if begin < minHeader || begin%8 != 0 || begin > size || used < begin {
		return 0, errors.New("its header makes no sense")
	}
	if used > size {
		f.truncated = used - size
		used = size
	}
	f.seqnumID = id(header[seqnumIDAt:])
	f.tail = number(header[tailRealtimeAt:])
	f.left = number(header[entriesAt:])
	f.arrayAt = number(header[entryArrayAt:])
	return used, nil
}

func number(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func (f *file) close() {
	_ = unix.Munmap(f.data)
	f.data, f.array, f.links, f.cache = nil, nil, nil, nil
}

// release gives back the memory that the file takes. It stays in the page cache.
func (f *file) release() { _ = unix.Madvise(f.data, unix.MADV_DONTNEED) }

// end is when the last entry was logged.
func (f *file) end() time.Time {
	if 0 < f.tail && f.tail < timeLimit {
		return time.UnixMicro(int64(f.tail))
	}
	return time.Time{}
}

// object returns an object if there is one of this type.
func (f *file) object(at uint64, kind byte, least uint64) (object []byte, ok bool) {
	if at%8 != 0 || at < minHeader || at > uint64(len(f.data))-objectHeader {
		return nil, false
	}
	rest := f.data[at:]
	size := number(rest[8:])
	if rest[0] != kind || size < least || size > uint64(len(rest)) {
		return nil, false
	}
	return rest[:size], true
}

// first goes to the first entry, or the first since a time.
func (f *file) first(since time.Time) error {
	if f.left == 0 {
		return io.EOF
	}
	if err := f.openArray(f.arrayAt); err != nil {
		return err
	}
	if since.IsZero() {
		return f.next()
	}
	if end := f.end(); !end.IsZero() && end.Before(since) {
		return io.EOF
	}
	wanted := uint64(max(0, since.UnixMicro()))
	if err := f.seek(wanted); err != nil {
		return err
	}
	for {
		if err := f.next(); err != nil || f.realtime >= wanted {
			return err
		}
	}
}

// seek goes to before the first entry at or after a time: to its array, and in there by halving. An entry that cannot be read counts as
// later, so that the way goes on before it.
func (f *file) seek(realtime uint64) error {
	for {
		after := f.after()
		if after <= f.arrayAt || f.count() >= f.left {
			break
		}
		array, ok := f.object(after, arrayObject, arrayItems)
		if !ok || len(array) < arrayItems+f.width() || !f.earlier(f.link(array[arrayItems:], 0, f.width()), realtime) {
			break
		}
		f.left -= f.count()
		if err := f.openArray(after); err != nil {
			return err
		}
	}
	low, high := uint64(0), min(f.count(), f.left)
	for low < high {
		middle := low + (high-low)/2
		if f.earlier(f.link(f.array, middle, f.width()), realtime) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	f.index = low
	f.left -= low
	return nil
}

func (f *file) earlier(at, realtime uint64) bool {
	entry, ok := f.object(at, entryObject, entryItems)
	return ok && number(entry[entryRealtime:]) < realtime
}

// width is how many bytes an offset takes.
func (f *file) width() int {
	if f.compact {
		return 4
	}
	return 8
}

// link returns an offset from a table with rows of so many bytes.
func (f *file) link(table []byte, row uint64, size int) uint64 {
	at := table[row*uint64(size):]
	if f.compact {
		return uint64(binary.LittleEndian.Uint32(at))
	}
	return number(at)
}

// openArray goes to an array of entries. Arrays are only ever added, so each is behind the one before; a circle is not.
func (f *file) openArray(at uint64) error {
	object, ok := f.object(at, arrayObject, arrayItems)
	if !ok {
		return fmt.Errorf("its list of entries is damaged, %d entries are not found", f.left)
	}
	f.array, f.arrayAt, f.index = object[arrayItems:], at, 0
	return nil
}

// count is how many entries the array has room for.
func (f *file) count() uint64 { return uint64(len(f.array) / f.width()) }

// after is where the next array is, 0 if there is none.
func (f *file) after() uint64 { return number(f.data[f.arrayAt+arrayNext:]) }

// next goes to the next entry that can be read, io.EOF is behind the last one.
func (f *file) next() error {
	for f.left > 0 {
		if f.index >= f.count() {
			after := f.after()
			if after <= f.arrayAt {
				return fmt.Errorf("its list of entries is damaged, %d entries are not found", f.left)
			}
			if err := f.openArray(after); err != nil {
				return err
			}
			continue
		}
		at := f.link(f.array, f.index, f.width())
		f.index++
		f.left--
		if !f.load(at) {
			f.damaged++
			continue
		}
		return nil
	}
	return io.EOF
}

// load reads an entry. Entries too are only ever added.
func (f *file) load(at uint64) bool {
	object, ok := f.object(at, entryObject, entryItems+uint64(f.itemSize()))
	if !ok || at <= f.at {
		return false
	}
	k := key{
		seqnum:    number(object[entrySeqnum:]),
		realtime:  number(object[entryRealtime:]),
		monotonic: number(object[entryMonotonic:]),
		xorHash:   number(object[entryXORHash:]),
		boot:      id(object[entryBoot:]),
		seqnumID:  f.seqnumID,
	}
	if k.seqnum == 0 || k.realtime == 0 || k.realtime >= timeLimit || k.monotonic >= timeLimit {
		return false
	}
	f.key, f.at, f.links = k, at, object[entryItems:]
	f.items = uint64(len(f.links) / f.itemSize())
	return true
}

// itemSize is how many bytes an entry has for each field: the offset, and its hash if the file is not compact.
func (f *file) itemSize() int {
	if f.compact {
		return 4
	}
	return 16
}

// item returns where the data of a field of the entry is.
func (f *file) item(i uint64) uint64 { return f.link(f.links, i, f.itemSize()) }

// kind returns which of the fields a data object is. The cache is small enough to stay in that of the processor: a journal has some
// hundred different values that come all the time, and others that come once.
func (f *file) kind(at uint64, j *Journal) uint64 {
	if f.cache == nil {
		f.cache = make([]uint64, 1<<cacheBits)
	}
	slot := &f.cache[at*0x9e3779b97f4a7c15>>(64-cacheBits)]
	if *slot&^(kinds-1) == at && at != 0 {
		return *slot & (kinds - 1)
	}
	kind := uint64(other)
	text, ok := f.text(at, j)
	if !ok {
		f.damaged++
		return other
	}
	for i, name := range j.names {
		if len(text) >= len(name) && string(text[:len(name)]) == name {
			kind = uint64(i + 1)
		}
	}
	*slot = at | kind
	return kind
}

// value returns the value of a field that was found.
func (f *file) value(at uint64, j *Journal, name int) (value []byte, ok bool) {
	text, ok := f.text(at, j)
	if !ok {
		return nil, false
	}
	value = text[len(j.names[name]):]
	return value[:min(len(value), j.query.MaxValue)], true
}

// text returns a data object's field with name and value, unpacked. A long one may be cut off behind MaxValue bytes of the value.
func (f *file) text(at uint64, j *Journal) (text []byte, ok bool) {
	begin := uint64(dataText)
	if f.compact {
		begin = dataTextCompact
	}
	object, ok := f.object(at, dataObject, begin+1)
	if !ok {
		return nil, false
	}
	if packing := object[1] & (packedXZ | packedLZ4 | packedZSTDObject); packing != 0 {
		return j.unpack.text(f, at, packing, object[begin:], maxName+1+j.query.MaxValue)
	}
	return object[begin:], true
}

// maxName is the longest name of a field.
const maxName = 64
