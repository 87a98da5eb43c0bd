package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/skep-io/skep/store/seal"
)

const (
	// sectorSize is what a disk writes whole or not at all. Frames start and end at sectors, so that no write touches what an
	// earlier one made durable.
	sectorSize = 512
	frameMagic = "SKPF"
	// frameHead is the part of a frame that is readable without the key.
	frameHead = 4 + 4 + 8 + 8 + 8 + 4
	// maxFrame bounds a frame, and so what Open reads into memory at once. Raft has less than that in flight.
	maxFrame = 256 << 20
)

var (
	errFrameHead  = errors.New("the head of a frame is damaged")
	errFrameOrder = errors.New("a frame is out of order")
	errFrameTail  = errors.New("there is data behind the end of the log")
)

// frame is one write to the log: the unit that is there whole or not at all.
type frame struct {
	number      uint64 // counts the frames of the log, from 1
	index, term uint64 // of its first entry, or 0
	size        int    // on disk
	records     []byte
}

func (f frame) place() seal.Place {
	return seal.Place{Kind: seal.KindFrame, Index: f.index, Term: f.term, Part: f.number}
}

// frameSize is what a frame with records of n bytes takes on disk.
func frameSize(n int) int {
	return (frameHead + seal.Overhead + 4 + n + sectorSize - 1) / sectorSize * sectorSize
}

// encodeFrame appends a frame to dst. What fills its last sector is sealed, too: so no sector of it is all zero.
func encodeFrame(dst, scratch []byte, ring *seal.Ring, f frame) (encoded, reuse []byte, err error) {
	size := frameSize(len(f.records))
	start := len(dst)
	dst = append(dst, frameMagic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = binary.BigEndian.AppendUint64(dst, f.number)
	dst = binary.BigEndian.AppendUint64(dst, f.index)
	dst = binary.BigEndian.AppendUint64(dst, f.term)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli()))
	plain := binary.BigEndian.AppendUint32(scratch[:0], uint32(len(f.records)))
	plain = append(plain, f.records...)
	plain = append(plain, make([]byte, size-frameHead-seal.Overhead-len(plain))...)
	dst, err = ring.Seal(dst, f.place(), plain)
	if err != nil {
		return nil, plain, fmt.Errorf("seal log frame %d: %w", f.number, err)
	}
	return dst, plain, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// decodeHead reads the head of the frame that starts a sector.
func decodeHead(sector []byte) (f frame, ok bool) {
	if len(sector) < sectorSize || string(sector[:4]) != frameMagic ||
		binary.BigEndian.Uint32(sector[frameHead-4:]) != crc32.Checksum(sector[:frameHead-4], castagnoli()) {
		return frame{}, false
	}
	f = frame{
		size:   int(binary.BigEndian.Uint32(sector[4:])),
		number: binary.BigEndian.Uint64(sector[8:]),
		index:  binary.BigEndian.Uint64(sector[16:]),
		term:   binary.BigEndian.Uint64(sector[24:]),
	}
	return f, f.size >= sectorSize && f.size <= maxFrame && f.size%sectorSize == 0
}

// open unseals the records of a frame whose bytes are complete.
func (f *frame) open(ring *seal.Ring, b []byte) error {
	plain, err := ring.Open(f.place(), b[frameHead:f.size])
	if err != nil {
		return err
	}
	if n := binary.BigEndian.Uint32(plain); uint64(n) <= uint64(len(plain)-4) {
		f.records = plain[4 : 4+n]
		return nil
	}
	return seal.ErrOpen
}

// decodeFrame reads the first frame of b, the rest of a segment. At the clean end of a log it returns a frame without size.
// torn says that the frame is the last write of the log and only parts of it reached the disk: nobody was told that it was
// durable.
func decodeFrame(b []byte, ring *seal.Ring, number uint64) (f frame, torn bool, err error) {
	head, rest := b[:sectorSize], b[sectorSize:]
	f, ok := decodeHead(head)
	switch {
	case !ok && !isZero(head):
		return frame{}, false, errFrameHead
	case !ok && isZero(rest):
		return frame{}, false, nil
	case !ok: // the first sector was not written; nothing that comes later may be a write of its own
		return frame{}, !hasFrame(rest), errFrameTail
	case f.number != number:
		return frame{}, false, errFrameOrder
	case f.size > len(b):
		return frame{}, false, errFrameHead
	}
	if err := f.open(ring, b); err != nil {
		return f, hasGap(b[sectorSize:f.size]) && isZero(b[f.size:]), err
	}
	return f, false, nil
}

// isZero reports whether b was never written.
func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// zeros are what a new segment is filled with.
var zeros [64 << 10]byte

// hasGap reports whether a sector of b was never written.
func hasGap(b []byte) bool {
	for ; len(b) >= sectorSize; b = b[sectorSize:] {
		if isZero(b[:sectorSize]) {
			return true
		}
	}
	return false
}

// hasFrame reports whether a frame starts anywhere in b.
func hasFrame(b []byte) bool {
	for ; len(b) >= sectorSize; b = b[sectorSize:] {
		if _, ok := decodeHead(b); ok {
			return true
		}
	}
	return false
}
