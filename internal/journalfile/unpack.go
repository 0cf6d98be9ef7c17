package journalfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// packedZSTDObject is the flag of an object; those for XZ and LZ4 are the same as in the header.
const packedZSTDObject = 1 << 2

// Limits of what is unpacked, so that a damaged or malicious file cannot ask for all memory. systemd packs with windows of 2 MiB (ZSTD,
// level 3) and 1 MiB (XZ, compress.c).
const (
	zstdWindow = 8 << 20
	xzWindow   = 1 << 20
)

// unpacker unpacks data objects, and remembers the last one: it is asked for its name first.
type unpacker struct {
	file *file
	at   uint64
	buf  []byte
	ok   bool
	zstd *zstd.Decoder
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
}

// text returns at most limit bytes of what is packed.
func (u *unpacker) text(f *file, at uint64, packing byte, packed []byte, limit int) (text []byte, ok bool) {
	if u.file == f && u.at == at {
		return u.buf, u.ok
	}
	var err error
	switch packing {
	case packedXZ:
		u.buf, err = appendXZ(u.buf[:0], packed, limit)
	case packedLZ4:
		u.buf, err = appendLZ4(u.buf[:0], packed, limit)
	case packedZSTDObject:
		u.buf, err = u.appendZSTD(u.buf[:0], packed, limit)
	default: // several flags
		u.buf, err = u.buf[:0], errBroken
	}
	u.file, u.at, u.ok = f, at, err == nil
	return u.buf, u.ok
}

var errBroken = errors.New("packed data is broken")

// appendZSTD appends at most limit bytes of a frame.
func (u *unpacker) appendZSTD(to, packed []byte, limit int) ([]byte, error) {
	if u.zstd == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return to, err
		}
		u.zstd = decoder
	}
	if err := u.zstd.Reset(bytes.NewReader(packed)); err != nil {
		return to, err
	}
	return appendFrom(to, u.zstd, limit)
}

// appendXZ appends at most limit bytes of a stream.
func appendXZ(to, packed []byte, limit int) ([]byte, error) {
	if !smallXZ(packed) {
		return to, errBroken
	}
	reader, err := xz.ReaderConfig{DictCap: xzWindow, SingleStream: true}.NewReader(bytes.NewReader(packed))
	if err != nil {
		return to, err
	}
	return appendFrom(to, reader, limit)
}

// smallXZ says that the first block of a stream is LZMA2 alone with a window of at most xzWindow, which the library takes from the
// stream. A block begins behind 12 bytes with its size and flags, which say whether two sizes follow; then come the filter, the
// length of its properties and the window: 1<<20 is 16 (section 5.3.1 of the XZ file format).
func smallXZ(packed []byte) bool {
	if len(packed) < 12+2 {
		return false
	}
	flags, rest := packed[13], packed[14:]
	for _, size := range []byte{0x40, 0x80} {
		if flags&size != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return false
			}
			rest = rest[n:]
		}
	}
	return flags&3 == 0 && len(rest) >= 3 && rest[0] == 0x21 && rest[1] == 1 && rest[2] <= 16
}

// appendFrom appends what there is to read up to limit bytes.
func appendFrom(to []byte, from io.Reader, limit int) ([]byte, error) {
	for len(to) < limit {
		if len(to) == cap(to) {
			to = append(to, 0)[:len(to)]
		}
		n, err := from.Read(to[len(to):min(cap(to), limit)])
		to = to[:len(to)+n]
		if err == io.EOF {
			return to, nil
		}
		if err != nil {
			return to, err
		}
	}
	return to, nil
}

// appendLZ4 appends at most limit bytes of an LZ4 block, which has the size of all of it in 8 bytes before it. The libraries unpack a
// block only whole, and a field can be 768 MiB. A block is of sequences: a token with two lengths, literals, a distance back and
// a match there; the last one is literals alone (LZ4 block format description).
func appendLZ4(to, packed []byte, limit int) ([]byte, error) {
	if len(packed) < 8 {
		return to, errBroken
	}
	size, in := number(packed), packed[8:]
	if size < uint64(limit) {
		limit = int(size)
	}
	for {
		if len(in) == 0 {
			return to, errBroken
		}
		token := in[0]
		literals, rest, ok := lz4Length(int(token>>4), in[1:])
		if !ok || literals > len(rest) {
			return to, errBroken
		}
		to = append(to, rest[:min(literals, limit-len(to))]...)
		in = rest[literals:]
		if len(to) == limit {
			return to, nil
		}
		if len(in) < 2 {
			return to, errBroken
		}
		back := int(binary.LittleEndian.Uint16(in))
		match, rest, ok := lz4Length(int(token&15), in[2:])
		if !ok || back == 0 || back > len(to) {
			return to, errBroken
		}
		in = rest
		for match = min(match+4, limit-len(to)); match > 0; { // what is copied can be what was just copied
			n := min(match, back)
			to = append(to, to[len(to)-back:len(to)-back+n]...)
			match -= n
		}
		if len(to) == limit {
			return to, nil
		}
	}
}

// lz4Length reads the bytes that follow a length of 15.
func lz4Length(length int, in []byte) (int, []byte, bool) {
	if length < 15 {
		return length, in, true
	}
	for i, b := range in {
		length += int(b)
		if b < 255 {
			return length, in[i+1:], true
		}
	}
	return 0, nil, false
}
