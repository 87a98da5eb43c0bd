package unpack

import (
	"errors"
	"fmt"
	"io"
)

var (
	// ErrLayer is returned when a layer is malformed or tries something that
	// no honest layer does.
	ErrLayer = errors.New("bad layer")
	// ErrLimit is returned when a layer exceeds one of its [Limits].
	ErrLimit = errors.New("layer exceeds a limit")
	// ErrDigest is returned when a layer's content does not hash to its diffID.
	ErrDigest = errors.New("layer content does not match the image's config")
	// ErrSandbox is returned when the sandbox cannot be made.
	ErrSandbox = errors.New("unpack sandbox")
)

const (
	// maxPath is the kernel's PATH_MAX.
	maxPath = 4096
	// maxDepth bounds the recursion of removals, far above real trees.
	maxDepth = 255
	// maxXattrs is the most bytes of extended attributes of one entry, the
	// kernel's own limit for one value.
	maxXattrs = 64 << 10
	// maxNames bounds what is remembered of a layer's directories until its
	// end: their names, for their times.
	maxNames = 256 << 20
	// maxOpaque bounds the opaque directories of a layer: they are reported
	// one by one.
	maxOpaque = 1 << 16
	// freeStream and maxRatio refuse decompression bombs: a stream may always
	// grow to freeStream, and beyond it only maxRatio-fold, which is above what
	// gzip can do at all.
	freeStream = 1 << 30
	maxRatio   = 1100
	// entryOverhead is what an entry may add to the stream besides its content:
	// header, padding, and long-name or PAX headers.
	entryOverhead = 4096
)

// Limits bound what one layer may make of the disk. The zero value of a field
// means its default.
type Limits struct {
	Entries int   // files, directories and whiteouts; default 2 million
	Bytes   int64 // content of regular files with holes filled; default 32 GiB
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 2_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 32 << 30
	}
	return l
}

// stream returns how long the decompressed stream of a blob may be.
func (l Limits) stream(compressed int64) int64 {
	return min(l.Bytes+int64(l.Entries)*entryOverhead, max(freeStream, compressed*maxRatio))
}

// limited is a reader that fails, rather than ends, at its limit.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, fmt.Errorf("%w: it decompresses to too much", ErrLimit)
	}
	return n, err
}
