package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skep-io/skep/store/vfs"
)

const (
	segmentMagic  = "SKPLOG2\n"
	segmentPrefix = "log-"
	// DefaultSegmentSize is the size of a segment, which is filled with zeros before it is used: overwriting is what a disk makes
	// durable fastest, because the size of the file and the place of its blocks do not change.
	DefaultSegmentSize = 4 << 20
)

// segment is a file of the log, of fixed size: a head of one sector, frames, and zeros.
type segment struct {
	number uint64 // counts the segments of the log, from 1
	first  uint64 // number of the first frame in it
	size   int
	last   uint64 // the highest index of an entry in it, or 0
}

func (s segment) name() string { return fmt.Sprintf("%s%016x", segmentPrefix, s.number) }

// segmentNumber returns the number in the name of a segment's file.
func segmentNumber(name string) (number uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 16, 64)
	return number, err == nil && number > 0
}

func isSegment(name string) bool { return strings.HasPrefix(name, segmentPrefix) }

// head is the first sector of the segment.
func (s segment) head() []byte {
	b := make([]byte, 0, sectorSize)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint64(b, s.number)
	b = binary.BigEndian.AppendUint64(b, s.first)
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	b = b[:sectorSize-4]
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

var errSegmentHead = errors.New("its head is damaged")

// readSegment returns a segment and its frames.
func readSegment(fsys vfs.FS, dir string, number uint64) (s segment, frames []byte, err error) {
	s.number = number
	path := filepath.Join(dir, s.name())
	info, err := fsys.Stat(path)
	if err != nil {
		return s, nil, err
	}
	if info.Size() < 2*sectorSize || info.Size() > 2*maxFrame {
		return s, nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	b := make([]byte, info.Size())
	f, err := fsys.Open(path)
	if err != nil {
		return s, nil, err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, b); err != nil {
		return s, nil, fmt.Errorf("read: %w", err)
	}
	s.first = binary.BigEndian.Uint64(b[len(segmentMagic)+8:])
	s.size = int(binary.BigEndian.Uint64(b[len(segmentMagic)+16:]))
	if string(s.head()) != string(b[:sectorSize]) {
		return s, nil, errSegmentHead
	}
	if s.size != len(b) {
		return s, nil, fmt.Errorf("it has %d bytes, not %d: it was cut or extended", len(b), s.size)
	}
	return s, b[sectorSize:], nil
}

// writeZeros fills a new segment, or one that is kept ready.
func writeZeros(to io.Writer, size int) error {
	for size > 0 {
		n, err := to.Write(zeros[:min(size, len(zeros))])
		if err != nil {
			return err
		}
		size -= n
	}
	return nil
}
