package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Options say what a Reader gives.
type Options struct {
	// Tail is how many of the last lines to begin with; 0 is all, less than 0 none.
	Tail int
	// After leaves out the entries up to that number, unless it is 0; Tail must be 0 then.
	After uint64
	// Since leaves out what is older, unless it is zero.
	Since time.Time
	// Follow waits for more at the end. Watcher, which sees the changes, must not be nil then.
	Follow  bool
	Watcher *Watcher
	// Done, or nil, ends following: what was written before it was closed is still given, then io.EOF.
	Done <-chan struct{}
}

// Reader reads a log.
type Reader struct {
	path    string
	options Options
	file    *os.File      // being read; or nil: none yet
	changes *subscription // or nil: not following
	buffer  []byte        // read but not given
	skip    bool          // drop up to the next newline: the line is too long
	damaged uint64
	last    uint64 // number of the last entry that was read, or 0
}

// NewReader begins to read the log at path. A log that isn't there yet is empty. The caller closes the Reader.
func NewReader(path string, o Options) (*Reader, error) {
	r := &Reader{path: path, options: o, last: o.After}
	err := r.begin()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("read log: %w", err)
	}
	return r, nil
}

func (r *Reader) begin() error {
	if r.options.Follow {
		if err := r.startWatch(); err != nil {
			return err
		}
	}
	files, err := openAll(r.path)
	if err != nil || len(files) == 0 {
		return err
	}
	start, offset, err := 0, int64(0), error(nil)
	if r.options.After > 0 {
		start, err = fileOf(files, r.options.After)
	} else {
		start, offset, err = tail(files, r.options.Tail)
	}
	for i, f := range files {
		if i != start {
			f.Close()
		}
	}
	r.file = files[start]
	if err != nil {
		return err
	}
	_, err = r.file.Seek(offset, io.SeekStart)
	return err
}

// startWatch watches the directory, so that rotations are seen too.
func (r *Reader) startWatch() (err error) {
	if r.options.Watcher == nil {
		return errors.New("a log is followed with a Watcher")
	}
	r.changes, err = r.options.Watcher.subscribe(filepath.Dir(r.path))
	return err
}

// openAll opens the files of a log, the newest first. Between two opens the writer may rotate. Then a file shows up again, and is
// kept once; and while it rotates, the oldest file first, one number is free that has older files behind it. With an error, none is open.
func openAll(path string) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			files = nil
		}
	}()
	var seen []os.FileInfo
	missing := 0
	for i := range maxFiles {
		f, err := os.Open(numbered(path, i))
		if errors.Is(err, fs.ErrNotExist) {
			if missing++; missing > 1 {
				return files, nil
			}
			continue
		}
		if err != nil {
			return files, err
		}
		missing = 0
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return files, err
		}
		if slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(other, st) }) {
			f.Close()
			continue
		}
		files, seen = append(files, f), append(seen, st)
	}
	return files, nil
}

// tail gives the file, newest first, and the offset from where there are n lines to the end; all of them for n = 0.
func tail(files []*os.File, n int) (int, int64, error) {
	if n == 0 {
		return len(files) - 1, 0, nil
	}
	n = max(n, 0)
	for i, f := range files {
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return i, 0, err
		}
		offset, found, err := lastLines(f, size, n)
		if err != nil || found == n {
			return i, offset, err
		}
		n -= found
	}
	return len(files) - 1, 0, nil
}

// tailBlock is how much is read at once on the way back.
const tailBlock = 64 << 10

// lastLines gives the offset of the last n lines of f, or 0 and how many lines there are.
func lastLines(f io.ReaderAt, size int64, n int) (offset int64, found int, err error) {
	if n == 0 {
		return size, 0, nil
	}
	block := make([]byte, tailBlock)
	newlines := 0
	for end := size; end > 0; {
		begin := max(0, end-tailBlock)
		part := block[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil {
			return 0, 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			if part[i] != '\n' {
				continue
			}
			if newlines++; newlines == n+1 {
				return begin + int64(i) + 1, n, nil
			}
		}
		end = begin
	}
	return 0, newlines, nil
}

// Next gives the next entry. At the end it gives io.EOF, or when following waits for more; then it ends with the
// context's error, and may be called again. Damaged lines are left out and counted.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	for {
		e, ok, err := r.buffered()
		if ok || err != nil {
			return e, err
		}
		finished := r.done() // before the last look, so that nothing written before it is missed
		more, err := r.fill()
		if err != nil {
			return Entry{}, fmt.Errorf("read log: %w", err)
		}
		if more {
			continue
		}
		if !r.options.Follow || finished {
			return Entry{}, io.EOF
		}
		if err := r.wait(ctx); err != nil {
			return Entry{}, err
		}
	}
}

// done reports whether following should end.
func (r *Reader) done() bool {
	select {
	case <-r.options.Done: // nil blocks for ever
		return true
	default:
		return false
	}
}

// buffered gives the next wanted entry among what was read.
func (r *Reader) buffered() (Entry, bool, error) {
	for {
		end := bytes.IndexByte(r.buffer, '\n')
		if end < 0 {
			if len(r.buffer) > maxEncoded {
				r.buffer, r.skip = r.buffer[:0], true
			}
			return Entry{}, false, nil
		}
		text := r.buffer[:end]
		r.buffer = r.buffer[end+1:]
		if r.skip {
			r.skip = false
			r.damaged++
			continue
		}
		e, err := Decode(text)
		if err != nil {
			r.damaged++
			continue
		}
		if r.last > 0 && e.Seq > r.last+1 {
			e.Missed = e.Seq - r.last - 1
		}
		if e.Seq > 0 {
			r.last = e.Seq
		}
		if !e.Time.Before(r.options.Since) && (e.Seq > r.options.After || r.options.After == 0) {
			return e, true, nil
		}
	}
}

// Damaged is how many lines could not be read so far.
func (r *Reader) Damaged() uint64 { return r.damaged }

// readBlock is how much is read at once.
const readBlock = 32 << 10

// fill reads more, from this file or the next. It reports whether there may be still more.
func (r *Reader) fill() (bool, error) {
	if r.file != nil {
		n, err := r.read()
		if n > 0 || err != nil {
			return n > 0, err
		}
	}
	next, err := r.next()
	if err != nil || next == nil {
		return false, err
	}
	if r.file != nil {
		// The writer is done with the old file, but it may have written between the read above and the rotation.
		for n := 1; n > 0; {
			if n, err = r.read(); err != nil {
				next.Close()
				return false, err
			}
		}
		r.file.Close()
	}
	r.file = next
	return true, nil
}

func (r *Reader) read() (int, error) {
	old := len(r.buffer)
	grown := append(make([]byte, 0, old+readBlock), r.buffer...)
	n, err := r.file.Read(grown[old:cap(grown)])
	r.buffer = grown[:old+n]
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// next opens the file that follows the one being read; nil if that is the newest.
func (r *Reader) next() (*os.File, error) {
	files, err := openAll(r.path)
	pick := len(files) - 1 // the oldest, if ours was removed (I3)
	if r.file != nil && err == nil {
		var ours, st os.FileInfo
		ours, err = r.file.Stat()
		for i, f := range files {
			if err == nil {
				st, err = f.Stat()
			}
			if err == nil && os.SameFile(ours, st) {
				pick = i - 1
			}
		}
	}
	if err != nil {
		pick = -1
	}
	for i, f := range files {
		if i != pick {
			f.Close()
		}
	}
	if pick < 0 {
		return nil, err
	}
	return files[pick], nil
}

// wait blocks until something in the log's directory changed, following ended, or ctx did.
func (r *Reader) wait(ctx context.Context) error {
	select {
	case <-r.changes.changed:
	case <-r.options.Done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// Close ends reading.
func (r *Reader) Close() error {
	var errs []error
	if r.file != nil {
		errs = append(errs, r.file.Close())
	}
	if r.changes != nil {
		errs = append(errs, r.changes.close())
	}
	r.file, r.changes = nil, nil
	return errors.Join(errs...)
}
