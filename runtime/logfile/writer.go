package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 5
)

// minSize is the least MaxSize: room for one entry at its largest.
const minSize = 2 * maxEncoded

// maxFiles is the most MaxFiles: each rotation renames them all.
const maxFiles = 1000

// ErrConfig is returned when a Config is out of bounds.
var ErrConfig = errors.New("log configuration not usable")

// Config says where a log goes.
type Config struct {
	Path string
	// MaxSize is in bytes, for each file; 0 is DefaultMaxSize.
	MaxSize int64
	// MaxFiles counts the file at Path too; 0 is DefaultMaxFiles.
	MaxFiles int
}

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.MaxSize != 0 && c.MaxSize < minSize {
		return fmt.Errorf("%w: a size of %d bytes, the least is %d", ErrConfig, c.MaxSize, minSize)
	}
	if c.MaxFiles < 0 || c.MaxFiles > maxFiles {
		return fmt.Errorf("%w: %d files, at most %d are possible", ErrConfig, c.MaxFiles, maxFiles)
	}
	return nil
}

// Writer appends to a log.
type Writer struct {
	path     string // constant after New, as are the next two
	maxSize  int64
	maxFiles int

	mu      sync.Mutex // guards all below
	file    *os.File   // or nil: a rotation went wrong half way
	size    int64      // of file
	seq     uint64     // of the last entry
	lost    uint64     // lines since the last that was written
	dropped uint64     // lines in all
	cause   error      // of the first of those lost
}

// buffers are for encoding: one for each Writer would be as large as its longest line, for as long as it is open.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// New opens the log for appending, and makes it if it isn't there. The caller closes the Writer.
func New(cfg Config) (*Writer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	w := &Writer{path: cfg.Path, maxSize: cfg.MaxSize, maxFiles: cfg.MaxFiles}
	if w.maxSize == 0 {
		w.maxSize = DefaultMaxSize
	}
	if w.maxFiles == 0 {
		w.maxFiles = DefaultMaxFiles
	}
	seq, err := lastSeq(cfg.Path)
	if err == nil {
		err = w.open()
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	w.seq = seq
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, st.Size()
	return nil
}

// Write appends an entry. It keeps nothing of it. A line that can't be written is counted (I2).
func (w *Writer) Write(e Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	e.Seq = w.seq + 1
	if w.lost > 0 {
		w.tellLoss(b, e.Time)
		e.Seq++
	}
	if err := encode(b, e); err != nil {
		w.drop(err)
		return
	}
	if err := w.append(b.Bytes()); err != nil {
		w.drop(err)
		return
	}
	w.lost, w.cause, w.seq = 0, nil, e.Seq
}

// tellLoss puts a line about the lost ones before the next.
func (w *Writer) tellLoss(b *bytes.Buffer, now time.Time) {
	text := fmt.Sprintf("skep: %d log lines lost: %v\n", w.lost, w.cause)
	// Encoding a string and a time fails only for a year beyond 9999, and then the entry after it fails too.
	_ = encode(b, Entry{Time: now, Stream: Stderr, Text: []byte(text), Seq: w.seq + 1})
}

func (w *Writer) drop(err error) {
	if w.lost == 0 {
		w.cause = err
	}
	w.lost++
	w.dropped++
}

// append writes text as a whole or not at all.
func (w *Writer) append(text []byte) error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size > 0 && w.size+int64(len(text)) > w.maxSize {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(text)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, w.file.Truncate(w.size))
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// rotate moves every file one place on and begins a new one (I1).
func (w *Writer) rotate() error {
	if err := os.Remove(numbered(w.path, w.maxFiles-1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for i := w.maxFiles - 2; i >= 0; i-- {
		err := os.Rename(numbered(w.path, i), numbered(w.path, i+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := w.file.Close()
	w.file = nil
	return errors.Join(err, w.open())
}

// numbered gives the path of a file of the log: 0 is the one that is written.
func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// Dropped is how many lines could not be written so far.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// Close closes the log. Write must not be called after it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Stream is one stream of a container on its way into a log: it takes bytes in pieces of any size, and appends lines.
// Its methods must not be called at once.
type Stream struct {
	writer *Writer
	name   string
	rest   []byte // of a line whose end has not come, or nil
}

// Stream gives the way into the log for a stream.
func (w *Writer) Stream(name string) *Stream { return &Stream{writer: w, name: name} }

// Write appends the complete lines of what came so far, and full parts of longer ones. It keeps nothing of data, and
// never fails: lines that can't be written are counted (I2).
func (s *Stream) Write(data []byte) (int, error) {
	now, n := time.Now(), len(data)
	for len(data) > 0 {
		take := min(len(data), MaxText-len(s.rest))
		end := bytes.IndexByte(data[:take], '\n')
		if end >= 0 {
			take = end + 1
		}
		text := data[:take]
		data = data[take:]
		whole := end >= 0 || len(s.rest)+take == MaxText
		if !whole || len(s.rest) > 0 {
			s.rest = append(s.rest, text...)
			text = s.rest
		}
		if whole {
			s.writer.Write(Entry{Time: now, Stream: s.name, Text: text})
			s.rest = s.rest[:0]
		}
	}
	if len(s.rest) == 0 {
		s.rest = nil // streams are silent most of the time
	}
	return n, nil
}

// Rest is what came of a line whose end has not. It is to be used before the next Write, and not modified.
func (s *Stream) Rest() []byte { return s.rest }

// End appends a last line that has no end.
func (s *Stream) End() {
	if len(s.rest) > 0 {
		s.writer.Write(Entry{Time: time.Now(), Stream: s.name, Text: s.rest})
	}
	s.rest = nil
}
