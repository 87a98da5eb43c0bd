package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrLine is returned when a line of a log file is not what a Writer writes.
var ErrLine = errors.New("damaged line in log file")

// Stream names.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// MaxText is the most bytes of one entry: longer lines are split, as Docker does.
const MaxText = 16 << 10

// maxEncoded bounds one line of a file: JSON needs up to six bytes for one of text, and some for the rest.
const maxEncoded = 6*MaxText + 512

// Entry is one line, or a part of one.
type Entry struct {
	Time   time.Time
	Stream string
	// Text ends with a newline unless it is a part of a longer line.
	Text []byte
	// Seq counts the entries of a log from 1 on, over all its files; a Writer sets it. It is 0 in logs of before there was one.
	Seq uint64
	// Missed is how many entries before this one a Reader could not give: they were removed before it got to them, or are damaged.
	Missed uint64
}

// line is the layout of an entry in a file.
type line struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq,omitempty"`
}

// encode writes e to b as one line.
func encode(b *bytes.Buffer, e Entry) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	return enc.Encode(line{Log: string(e.Text), Stream: e.Stream, Time: e.Time.UTC(), Seq: e.Seq})
}

// Decode reads one line of a log file, with or without its newline.
func Decode(text []byte) (Entry, error) {
	if len(text) > maxEncoded {
		return Entry{}, fmt.Errorf("%w: %d bytes", ErrLine, len(text))
	}
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrLine, err)
	}
	if l.Stream != Stdout && l.Stream != Stderr {
		return Entry{}, fmt.Errorf("%w: unknown stream", ErrLine)
	}
	return Entry{Time: l.Time, Stream: l.Stream, Text: []byte(l.Log), Seq: l.Seq}, nil
}
