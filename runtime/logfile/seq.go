package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
)

// lastSeq returns the number of the last entry of a log, or 0. The newest file may have none yet.
func lastSeq(path string) (uint64, error) {
	for i := range 2 {
		f, err := os.Open(numbered(path, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		seq, err := lastSeqOf(f)
		f.Close()
		if err != nil || seq > 0 {
			return seq, err
		}
	}
	return 0, nil
}

// lastSeqOf looks at the end of a file, where there is a whole line among the last two.
func lastSeqOf(f *os.File) (uint64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	end := make([]byte, min(size, 2*maxEncoded))
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil {
		return 0, err
	}
	for len(end) > 0 {
		at := bytes.LastIndexByte(end[:len(end)-1], '\n') + 1
		if e, err := Decode(end[at:]); err == nil && e.Seq > 0 {
			return e.Seq, nil
		}
		end = end[:at]
	}
	return 0, nil
}

// fileOf returns which of the files, newest first, the entry after a number is in: the newest that begins with it or before, else the oldest.
func fileOf(files []*os.File, after uint64) (int, error) {
	begin := make([]byte, maxEncoded)
	for i, f := range files {
		n, err := f.ReadAt(begin, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		text, _, whole := bytes.Cut(begin[:n], []byte("\n"))
		if e, err := Decode(text); whole && err == nil && e.Seq > 0 && e.Seq <= after+1 {
			return i, nil
		}
	}
	return len(files) - 1, nil
}
